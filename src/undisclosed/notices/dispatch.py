"""Sends due notices, each alone, in a summary or in the administrator's digest, and records each result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from undisclosed.incidents.expiry import reminders
from undisclosed.incidents.records import REDIRECTED, Incident, Notice, NoticeKind, State
from undisclosed.notices import pacing, variables
from undisclosed.notices.addressee import Addressee, addressee
from undisclosed.notices.compose import render, render_many
from undisclosed.notices.eligibility import Timeliness, state_of, timeliness, why_suppressed
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.templates import SeveralName, TemplateName, Templates
from undisclosed.notices.variables import Facts
from undisclosed.policy import Policy
from undisclosed.service.backoff import Backoff

if TYPE_CHECKING:
    from undisclosed.journal.journal import Journal

FIRST_PAUSE: Final = 60.0
MAX_PAUSE: Final = 3600.0
"""Seconds between two attempts to send a notice: the first pause and the longest."""

AWAY: Final = timedelta(minutes=10)
"""The time after which a steward that was not seen does not run: another gateway, which has a copy of the same message,
sends the notice about both."""

SUMMARY: Final = "summary."
"""The beginning of a summary's Message-ID, by which the journal's record of a notice tells that it was in one."""

Send = Callable[[EmailMessage, str], None]
"""Sends a notice to an address. Raises NoticeError."""


class DispatchStatus(StrEnum):
    """The result for one or several notices."""

    SENT = "sent"
    SUPPRESSED = "suppressed"
    FOR_ADMINISTRATOR = "for the administrator"
    """No sender can be told: it goes into the next digest."""
    FAILED = "failed"
    """It stays due, and is tried again later."""


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A result, for the log."""

    status: DispatchStatus
    kind: TemplateName
    references: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Owed:
    """A notice that is due and true, with its facts and its addressee."""

    notice: Notice
    facts: Facts
    to: Addressee

    @property
    def due(self) -> datetime:
        """The time since which it is owed."""
        return self.notice.due


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message that sendmail(1) took."""

    owed: tuple[_Owed, ...]
    message_id: str
    at: datetime
    result: Dispatched


@dataclass(slots=True)
class _Retry:
    """The next attempt for a notice that could not be sent."""

    at: datetime
    pauses: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE, MAX_PAUSE))

    def postpone(self, now: datetime) -> None:
        self.at = now + timedelta(seconds=self.pauses.next())

    def waits(self, now: datetime) -> bool:
        """Whether it is too early; not if the clock was set back by more than a pause."""
        return timedelta() < self.at - now <= timedelta(seconds=MAX_PAUSE)


class Dispatcher:
    """Sends the notices of one gateway. Keeps in memory only what failed; what was sent is counted in the journal."""

    def __init__(self, journal: Journal, gateway: str, send: Send) -> None:
        """`gateway` is the id of this gateway in the journal: each one sends the notices about its own mail."""
        self._journal = journal
        self._gateway = gateway
        self._send = send
        self._retries: dict[int, _Retry] = {}
        self._unrecorded: list[_Sent] = []

    def dispatch(self, policy: Policy, templates: Templates, now: datetime) -> list[Dispatched]:
        """Send the notices that are due and true. `now` is aware. Raises JournalError.

        Ends at the first message that cannot be sent: the next ones would probably fail too, and each attempt may last
        as long as the timeout of sendmail(1). It then waits, so that it does not block the others.
        """
        results = []
        self._forget(now)
        for result in self._steps(policy, templates, now):
            results.append(result)
            if result.status is DispatchStatus.FAILED:
                break
        return results

    def _steps(self, policy: Policy, templates: Templates, now: datetime) -> Iterator[Dispatched]:
        while self._unrecorded:  # sent before, but the journal could not be written then
            yield self._record(self._unrecorded[0])
        to_senders: dict[str, list[_Owed]] = {}
        to_administrator: list[_Owed] = []
        due = list(self._due(now))
        told_as_released = {copy_id for notice, _ in due if notice.kind == "released" for copy_id in notice.copies}
        for notice, facts in due:
            result = self._closed(policy, notice, facts, told_as_released)
            if result is not None:
                yield result
            if result is not None or timeliness(facts) is not Timeliness.NOW:
                continue
            to = _addressee(policy, notice, facts, now)
            owed = _Owed(notice, facts, to)
            if to.role == "sender":
                to_senders.setdefault(to.mailbox, []).append(owed)
                continue
            if notice.addressee is None:
                self._journal.notices.assign(notice.id, "administrator")
                yield _result(DispatchStatus.FOR_ADMINISTRATOR, notice.kind, [owed], to.why)
            to_administrator.append(owed)
        # First the digest: one message, about mail that nobody knows of.
        if to_administrator and self._is_digest_due(now):
            yield self._send_many(policy, templates, to_administrator, "digest", now)
        if to_senders:
            yield from self._tell_senders(policy, templates, to_senders, now)

    def _is_digest_due(self, now: datetime) -> bool:
        return pacing.digest_is_due(self._journal.notices.last_digest(self._gateway), now)

    def _due(self, now: datetime) -> Iterator[tuple[Notice, Facts]]:
        """The notices of this gateway whose time has come, with their facts, the oldest first."""
        due = [
            notice
            for notice in self._journal.notices.due(now)
            if not (notice.id in self._retries and self._retries[notice.id].waits(now))
        ]
        if any(notice.addressee == "administrator" for notice in due) and not self._is_digest_due(now):
            due = [notice for notice in due if notice.addressee != "administrator"]
        incidents = self._journal.incidents.several({notice.incident_id for notice in due})
        ids = {copy_id for notice in due for copy_id in notice.copies}
        modes = self._journal.held.release_modes(ids)
        redirected = self._journal.held.with_event(ids, REDIRECTED)
        told = self._journal.notices.told_copies(ids)
        for notice in due:
            incident = incidents.get(notice.incident_id)
            copies = tuple(copy for copy in incident.copies if copy.id in notice.copies) if incident else ()
            own = tuple(copy for copy in copies if copy.gateway == self._gateway)
            if incident is None or not own:
                continue
            if copies[0].gateway != self._gateway:
                if not self._is_away(copies[0].gateway, now):
                    continue
                copies = own  # nobody sees what becomes of the others
            yield (
                notice,
                Facts(
                    incident,
                    notice.kind,
                    copies,
                    frozenset().union(*(modes.get(copy.id, frozenset()) for copy in copies)),
                    is_redirected=any(copy.id in redirected for copy in copies),
                    is_told=all(copy.id in told for copy in copies),
                    is_confirmed=all(copy.confirmed for copy in copies if copy.state is State.DELIVERED),
                ),
            )

    def _is_away(self, gateway: str, now: datetime) -> bool:
        """Whether the steward of the gateway that would tell of a copy of ours does not run."""
        record = self._journal.gateways.all().get(gateway)
        return record is None or record.seen_at is None or now - record.seen_at > AWAY

    def _closed(
        self, policy: Policy, notice: Notice, facts: Facts, told_as_released: Collection[int]
    ) -> Dispatched | None:
        """The result for a notice that is not sent; None if it is, now or later."""
        why = why_suppressed(policy, facts)
        if why is None and timeliness(facts) is Timeliness.TOO_LATE:
            why = f"by now the message is {state_of(facts)}"
        if why is None and notice.kind == "split" and set(notice.copies) <= set(told_as_released):
            why = "a person released the message: the notice about that tells it"
        if why is None:
            return None
        self._journal.notices.mark_suppressed(notice.id, why)
        return Dispatched(DispatchStatus.SUPPRESSED, notice.kind, (facts.incident.reference,), why)

    def _tell_senders(
        self, policy: Policy, templates: Templates, to_senders: dict[str, list[_Owed]], now: datetime
    ) -> Iterator[Dispatched]:
        told = self._told(policy, now)
        for mailbox, owed in to_senders.items():
            plan = pacing.plan(owed, told.get(mailbox, ()), now)
            for one in plan.single:
                yield self._send_one(policy, templates, one, now)
            if plan.summary:
                yield self._send_many(policy, templates, plan.summary, "summary", now)

    def _told(self, policy: Policy, now: datetime) -> dict[str, list[pacing.Told]]:
        """The messages that each sender got within the last hour, by mailbox."""
        told: dict[str, list[pacing.Told]] = {}
        sent_notices = self._journal.notices.told_since(now - pacing.PERIOD)
        incidents = self._journal.incidents.several({sent.incident_id for sent in sent_notices})
        for sent in sent_notices:
            to = _sender(policy, incidents[sent.incident_id])
            told.setdefault(to.mailbox, []).append(pacing.Told(sent.at, sent.message_id.startswith(f"<{SUMMARY}")))
        return told

    def _send_one(self, policy: Policy, templates: Templates, owed: _Owed, now: datetime) -> Dispatched:
        return self._sent(
            [owed],
            owed.notice.kind,
            lambda: render(policy, owed.facts, owed.to.address, now=now, templates=templates),
            now,
        )

    def _send_many(
        self, policy: Policy, templates: Templates, owed: Sequence[_Owed], name: SeveralName, now: datetime
    ) -> Dispatched:
        owed = _with_days_named(owed, reminders(policy.hold.expire_days))
        facts = [one.facts for one in owed]
        return self._sent(
            owed,
            name,
            lambda: render_many(policy, facts, owed[0].to.address, name=name, now=now, templates=templates),
            now,
        )

    def _sent(
        self, owed: Sequence[_Owed], kind: TemplateName, compose: Callable[[], EmailMessage], now: datetime
    ) -> Dispatched:
        """Compose and send one message, and record that it tells of these notices."""
        try:
            message = compose()
            self._send(message, owed[0].to.address)
        except NoticeError as error:
            return self._failed(owed, kind, str(error), now)
        except Exception as error:  # noqa: BLE001 - one message that nobody foresaw would stop all notices for ever
            return self._failed(owed, kind, f"{type(error).__name__}: {error}", now)
        sent = _Sent(tuple(owed), str(message["Message-ID"]), now, _result(DispatchStatus.SENT, kind, owed))
        self._unrecorded.append(sent)
        return self._record(sent)

    def _failed(self, owed: Sequence[_Owed], kind: TemplateName, why: str, now: datetime) -> Dispatched:
        for one in owed:
            self._retries.setdefault(one.notice.id, _Retry(now)).postpone(now)
        return _result(DispatchStatus.FAILED, kind, owed, why)

    def _record(self, sent: _Sent) -> Dispatched:
        ids = [one.notice.id for one in sent.owed]
        self._journal.notices.mark_sent(ids, sent.owed[0].to.role, sent.message_id, sent.at)
        self._unrecorded.remove(sent)
        return sent.result

    def _forget(self, now: datetime) -> None:
        """Drop old entries, so that memory does not grow for ever."""
        self._retries = {
            notice_id: retry
            for notice_id, retry in self._retries.items()
            if now < retry.at + timedelta(seconds=MAX_PAUSE)
        }


def _with_days_named(owed: Sequence[_Owed], kinds: Collection[NoticeKind]) -> list[_Owed]:
    """The notices that one message can tell together, the reminders first, so that each is listed with its day.

    A message that is only one of "and 300 more" would expire though nobody was told the day. The reminders that find no
    place stay owed.
    """
    others = [one for one in owed if one.notice.kind not in kinds]
    room = variables.MAX_LISTED - sum(one.notice.kind in variables.LISTED_FIRST for one in others)
    return [*[one for one in owed if one.notice.kind in kinds][: max(0, room)], *others]


def _addressee(policy: Policy, notice: Notice, facts: Facts, now: datetime) -> Addressee:
    """The addressee of this notice."""
    to_administrator = Addressee("administrator", policy.administrator)
    if notice.addressee == "administrator":
        return to_administrator
    if not any(copy.rule for copy in facts.copies):
        return Addressee("administrator", policy.administrator, "no rule holds the message: it was found on hold")
    if now - notice.due > pacing.TOO_LATE:
        days = pacing.TOO_LATE.days
        return Addressee("administrator", policy.administrator, f"the notice is owed for more than {days} days")
    return _sender(policy, facts.incident)


def _sender(policy: Policy, incident: Incident) -> Addressee:
    return addressee(policy, incident.sender, incident.author, incident.login, incident.automatic)


def _result(status: DispatchStatus, kind: TemplateName, owed: Sequence[_Owed], why: str = "") -> Dispatched:
    return Dispatched(status, kind, tuple(one.facts.incident.reference for one in owed), why)
