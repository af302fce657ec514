"""One loop: see what is held, carry out what was asked, let expire what nobody wanted, have senders told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from undisclosed.decision import queue_file, rules
from undisclosed.decision.exposure import expose
from undisclosed.decision.queue_file import QueuedMessage, QueueFileError
from undisclosed.decision.reference import reference
from undisclosed.incidents.records import (
    OPEN,
    AcceptedPart,
    Incident,
    NoticeKind,
    QueueCopy,
    ReleaseMode,
    Request,
    State,
    UnrecordedMail,
)
from undisclosed.incidents.transaction import is_automatic, transaction_of
from undisclosed.journal.journal import Journal
from undisclosed.policy import Action, Mode, Policy
from undisclosed.steward import authorize, release_parts
from undisclosed.steward.hold_queue import Entry, HoldQueue, HoldQueueError, Listing, RootHalfGoneError
from undisclosed.steward.privileged import MAX_QUEUE_IDS
from undisclosed.steward.reconcile import Change, Traces, survey
from undisclosed.steward.release import CAN_BE_RELEASED, DELETING, Job, Releases, Result, Step

IDLE: Final = timedelta(seconds=15)
"""Between two rounds where nothing is known to be due: what is done by hand is noticed within this time."""

SOON: Final = timedelta(seconds=0.5)
"""Between two rounds while something is expected: with `LISTEN`, a sender is told within two seconds."""

RETRY: Final = timedelta(seconds=60)
"""Until what a rule asked for, and Postfix did not take, is tried again."""

REMIND: Final = timedelta(days=1)
"""How long before it expires the sender of a held message is reminded."""

LOOK_BACK: Final = timedelta(days=1)
"""How far back delivered messages are looked for whose senders were not told, when the steward starts."""

RECENT: Final = timedelta(minutes=10)
"""How far back later."""

MANY: Final = 20
"""Requests for which all open incidents are read at once, and not one by one."""

PRUNE_EVERY: Final = timedelta(days=1)

CLOSED: Final = {"release": State.RELEASED, "delete": State.DELETED}


Deliver = Callable[[datetime], None]
"""Sends the notices that are due. Raises JournalError; what cannot be sent stays due."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the steward works on: a policy, the key of references, and the name of this gateway in the journal."""

    policy: Policy
    key: bytes
    gateway: str


@dataclass(slots=True)
class _Due:
    """A request that is being carried out: the copies that are left, and what became of the others."""

    request: Request
    incident: Incident
    left: set[int]
    results: list[Result] = field(default_factory=list)


class Steward:
    """Sees to the held mail of one gateway. Time comes from outside."""

    def __init__(
        self,
        place: Place,
        journal: Journal,
        queue: HoldQueue,
        log: structlog.BoundLogger,
        deliver: Deliver = lambda _: None,
        step: Step = lambda _: None,
    ) -> None:
        self.place = place
        """May be exchanged between two rounds."""
        self._journal = journal
        self._queue = queue
        self._log = log
        self._deliver = deliver
        self._step = step
        self._missed: frozenset[int] = frozenset()
        self._retry_at: dict[int, datetime] = {}
        self._next: datetime | None = None
        self._unreadable: set[str] = set()
        self._unwritten: dict[int, set[AcceptedPart]] = {}
        self._told: set[tuple[int, NoticeKind]] = set()
        self._looked_back = False
        self._pruned_at: datetime | None = None

    def round(self, now: datetime) -> datetime:
        """Do all that is to be done now; returns when to come again at the latest.

        Raises JournalError, HoldQueueError: the next round does what was left.
        """
        self._next = now + IDLE
        self._see(now)
        self._carry_out_requests(now)
        self._expire(now)
        self._have_told(now)
        if self._pruned_at is None or now - self._pruned_at >= PRUNE_EVERY:
            self._journal.prune(now)
            self._pruned_at = now
        return self._next

    def _come_again(self, at: datetime) -> None:
        if self._next is None or at < self._next:
            self._next = at

    # -- what is held --------------------------------------------------------------------------------------------------

    def _see(self, now: datetime) -> None:
        # The list first: what the milter records comes before Postfix holds it, so nothing listed lacks its record.
        listing = self._queue.list()
        copies = self._journal.incidents.copies(gateway=self.place.gateway, states=OPEN)
        traces = {copy.id: self._traces(copy) for copy in copies if copy.queue_id not in listing.held}
        seen = survey(listing, copies, traces, now=now, missed=self._missed)
        self._missed = seen.missed
        for change in seen.changes:
            self._change(change, listing, now)
        self._adopt(seen.unknown, now)
        if seen.missed or any(copy.state is State.PENDING and copy.queue_id not in listing.held for copy in copies):
            self._come_again(now + SOON)

    def _traces(self, copy: QueueCopy) -> Traces:
        if copy.state is State.PENDING:
            return Traces()
        events = [event for event in self._journal.incidents.events(copy.incident_id) if event.copy_id == copy.id]
        last = events[-1] if events else None
        deleting = State(last.detail["state"]) if last is not None and last.what == DELETING else None
        return Traces(self._journal.held.accepted_parts(copy.id), deleting)

    def _change(self, change: Change, listing: Listing, now: datetime) -> None:
        copy = change.copy
        if change.state is State.HELD:
            self._hold(copy, listing.held[copy.queue_id], change.why, now)
        elif self._journal.held.set_state(copy.id, change.state, why=change.why, expected=copy.state):
            self._log.info("copy_closed", queue_id=copy.queue_id, state=change.state.value, reason=change.why)

    def _hold(self, copy: QueueCopy, entry: Entry, why: str, now: datetime) -> None:
        one = self._journal.incidents.get(copy.incident_id)
        # All before the state: what comes twice after an interruption finds nothing to do, what never came is lost.
        if kind := one.action.effect.notice_when("held"):
            self._notice(one, kind, now)  # not sent before it is true
        way = one.action.effect.released_as
        if way is not None:
            not_before = one.at + self.place.policy.hold.delay if one.action is Action.DELAY else None
            self._ask(one, copy, way, not_before)
        until = entry.arrived + timedelta(days=self.place.policy.hold.expire_days)
        self._journal.held.set_state(copy.id, State.HELD, why=why, expected=copy.state, size=entry.size, until=until)
        self._step("held")
        self._log.info("copy_held", queue_id=copy.queue_id, reference=one.reference, until=until.isoformat())

    def _ask(self, one: Incident, copy: QueueCopy, way: ReleaseMode, not_before: datetime | None) -> None:
        self._journal.held.ask(
            one.id,
            copy_id=copy.id,
            verb="release",
            mode=way,
            actor=authorize.STEWARD,
            reason=f"the rule {one.rule!r} says {one.action}",
            not_before=not_before,
        )

    # -- held mail that nobody has recorded ----------------------------------------------------------------------------

    def _adopt(self, entries: Iterable[Entry], now: datetime) -> None:
        unknown = {entry.queue_id: entry for entry in entries if entry.queue_id not in self._unreadable}
        ids = list(unknown)
        for start in range(0, len(ids), MAX_QUEUE_IDS):
            for held in self._read(ids[start : start + MAX_QUEUE_IDS]):
                self._record(held, unknown[held.queue_id], now)

    def _read(self, queue_ids: list[str]) -> Iterable[QueuedMessage]:
        try:
            return queue_file.parse(self._queue.read(queue_ids)).values()
        except RootHalfGoneError:
            raise
        except (HoldQueueError, QueueFileError) as error:
            if len(queue_ids) > 1:
                return [held for queue_id in queue_ids for held in self._read([queue_id])]
            if isinstance(error, QueueFileError):  # else it has gone meanwhile
                self._unreadable.add(queue_ids[0])
                self._log.warning("queue_file_unreadable", queue_id=queue_ids[0], reason=str(error))
            return []

    def _record(self, held: QueuedMessage, entry: Entry, now: datetime) -> None:
        """Record a held message: as the milter would have, where the policy holds it, else as what it is."""
        policy, message = self.place.policy, release_parts.message(held)
        decision = rules.judge(policy, message, release_parts.body(held))
        ours = decision.action.effect.holds and policy.mode is Mode.ENFORCE
        exposure = decision.exposure if ours else expose(policy, message.fields, message.addresses)
        name = reference(self.place.key, message, exposure)
        if ours:
            transaction = transaction_of(
                policy, message, decision, reference=name, gateway=self.place.gateway, at=held.arrived
            )
            copy = self._journal.filing.record(transaction)
        else:
            mail = UnrecordedMail(
                reference=name,
                gateway=self.place.gateway,
                queue_id=held.queue_id,
                message_id=message.message_id,
                sender=held.sender,
                recipients=len(held.recipients),
                arrived=held.arrived,
                size=entry.size,
                automatic=is_automatic(message),
            )
            copy = self._journal.filing.adopt(mail)
        self._step("adopted")
        self._log.info("copy_adopted", queue_id=held.queue_id, reference=name, rule=decision.rule if ours else None)
        if copy.state is State.PENDING:
            self._hold(copy, entry, "found in the hold queue without a record", now)
        elif copy.state not in OPEN:
            self._journal.held.set_state(copy.id, State.HELD, why="on hold again", expected=copy.state, size=entry.size)

    # -- requests ------------------------------------------------------------------------------------------------------

    def _carry_out_requests(self, now: datetime) -> None:
        due: dict[int, _Due] = {}
        by_copy: dict[int, _Due] = {}
        jobs: list[Job] = []
        requests = self._journal.held.requests(gateway=self.place.gateway)
        known = self._open_incidents() if len(requests) > MANY else {}
        for request in requests:
            one = known.get(request.incident_id) or self._journal.incidents.get(request.incident_id)
            mine = [copy for copy in one.copies if self._is_meant(request, copy)]
            refused = authorize.refusal(self.place.policy, request, one) or next(
                filter(None, map(authorize.copy_refusal, mine)), None
            )
            if refused:
                self._answer(request, one, Result("refused", refused))
            elif (later := self._not_before(request, one, now)) > now:
                self._come_again(later)
            elif any(copy.state is State.PENDING or copy.id in self._missed for copy in mine):
                self._come_again(now + SOON)
            elif any(copy.id in by_copy for copy in mine):
                self._come_again(now)  # two requests for one copy: the second finds what the first has done
            else:
                held = [copy for copy in mine if copy.state in CAN_BE_RELEASED]
                due[request.id] = _Due(request, one, {copy.id for copy in held})
                by_copy |= dict.fromkeys((copy.id for copy in held), due[request.id])
                jobs += [_job(request, copy) for copy in held]
        for one_due in due.values():
            if not one_due.left:
                self._conclude(one_due, now)
        with Releases(self.place.policy, self._journal, self._queue, self._step, self._unwritten) as releases:
            for job, result in releases.carry_out(jobs):
                one_due = by_copy[job.copy.id]
                one_due.results.append(result)
                one_due.left.discard(job.copy.id)
                if not one_due.left:
                    self._conclude(one_due, now)

    def _not_before(self, request: Request, one: Incident, now: datetime) -> datetime:
        moments = (authorize.not_before(self.place.policy, request, one), self._retry_at.get(request.id))
        return max(filter(None, moments), default=now)

    def _open_incidents(self) -> dict[int, Incident]:
        return {one.id: one for one in self._journal.incidents.search(states=OPEN)}

    def _is_meant(self, request: Request, copy: QueueCopy) -> bool:
        return copy.gateway == self.place.gateway and request.copy_id in (None, copy.id)

    def _conclude(self, due: _Due, now: datetime) -> None:
        """Answer a request, unless it is to be tried again, or another gateway has a part in it."""
        request, one, results = due.request, due.incident, due.results
        bad = next((result for result in results if result.state != "done"), None)
        if bad is not None and bad.state == "failed" and request.actor == authorize.STEWARD:
            self._retry_at[request.id] = now + RETRY
            self._come_again(now + RETRY)
            self._log.warning("release_failed", reference=one.reference, reason=bad.why, retry_in=RETRY.total_seconds())
        elif bad is not None:
            self._answer(request, one, bad)
        elif self._is_open_elsewhere(request, one) and self._is_open_elsewhere(
            request, self._journal.incidents.get(one.id)
        ):
            return  # the last gateway answers: what it was when we began may be over, and then nobody would be the last
        elif results or any(copy.state is CLOSED[request.verb] for copy in one.copies):
            # The sender first: what comes twice after an interruption is told once, an answered request does not come.
            self._tell_of(request, one, now)
            self._answer(request, one, results[-1] if results else Result("done", ""))
        else:
            self._answer(request, one, Result("refused", "nothing of it is held any more"))

    def _is_open_elsewhere(self, request: Request, one: Incident) -> bool:
        """Whether another gateway still has a part in a request."""
        meant = [copy for copy in one.copies if request.copy_id in (None, copy.id)]
        return any(copy.state in OPEN and copy.gateway != self.place.gateway for copy in meant)

    def _answer(self, request: Request, one: Incident, result: Result) -> None:
        self._retry_at.pop(request.id, None)
        self._journal.held.answer(request.id, result.state, result.why)
        self._step("answered")
        log = self._log.bind(reference=one.reference, verb=request.verb, release_mode=request.mode, actor=request.actor)
        match result.state:
            case "done":
                log.info("request_done", reason=result.why)
            case "refused":
                log.warning("request_refused", reason=result.why)
            case "failed":
                log.warning("request_failed", reason=result.why)

    def _tell_of(self, request: Request, one: Incident, now: datetime) -> None:
        if request.actor != authorize.STEWARD:
            self._notice(one, "released" if request.verb == "release" else "deleted", now)
        elif kind := one.action.effect.notice_when("released"):
            self._notice(one, kind, now)

    # -- expiry --------------------------------------------------------------------------------------------------------

    def _expire(self, now: datetime) -> None:
        hold = self.place.policy.hold
        expired = []
        for copy in self._journal.incidents.copies(gateway=self.place.gateway, states=CAN_BE_RELEASED):
            if copy.until is None:
                continue
            if copy.until > now:
                if copy.until - REMIND <= now and hold.expire_days > REMIND.days:
                    self._notice_once(copy, "reminder", now)
            elif hold.on_expiry == "keep":
                self._notice_once(copy, "kept", now)
            elif authorize.copy_refusal(copy) is None:
                self._notice_once(copy, "expired", now)  # not sent before it is true
                why = f"held for {hold.expire_days} days"
                expired.append(Job(copy, "delete", None, authorize.STEWARD, why, State.EXPIRED))
        with Releases(self.place.policy, self._journal, self._queue, self._step) as releases:
            for job, result in releases.carry_out(expired):
                if result.state == "done":
                    self._log.info("copy_expired", queue_id=job.copy.queue_id, reason=result.why)
                else:
                    self._log.warning("expiry_failed", queue_id=job.copy.queue_id, reason=result.why)

    # -- notices -------------------------------------------------------------------------------------------------------

    def _notice_once(self, copy: QueueCopy, kind: NoticeKind, now: datetime) -> None:
        if (copy.incident_id, kind) not in self._told:
            self._notice(self._journal.incidents.get(copy.incident_id), kind, now)

    def _notice(self, one: Incident, kind: NoticeKind, now: datetime) -> None:
        if one.action in self.place.policy.notices.after:
            self._journal.notices.add(one.id, kind, now)
        self._told.add((one.id, kind))

    def _have_told(self, now: datetime) -> None:
        since = now - (RECENT if self._looked_back else LOOK_BACK)
        for one in self._journal.incidents.search(since=since, states=[State.DELIVERED]):
            kind = one.action.effect.notice_when("delivered")
            if kind and (one.id, kind) not in self._told and self._is_first(one):
                self._notice(one, kind, now)
        self._looked_back = True
        self._deliver(now)

    def _is_first(self, one: Incident) -> bool:
        """Whether this gateway had the message first: of several, one sends the notice."""
        return min(one.copies, key=lambda copy: copy.id).gateway == self.place.gateway


def _job(request: Request, copy: QueueCopy) -> Job:
    return Job(copy, request.verb, request.mode, request.actor, request.reason, CLOSED[request.verb])
