"""Compares the hold queue with the copies in the journal: which are held, which are gone, which have no record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog

from undisclosed.incidents.records import OPEN, STEWARD, JournalError, NoticeKind, QueueCopy, State
from undisclosed.journal.filing import CONFIRMATION_TIME
from undisclosed.journal.journal import Journal
from undisclosed.postfix.log_events import LogEvents
from undisclosed.steward import authorize
from undisclosed.steward.adoption import Adoption
from undisclosed.steward.alone import BY_HAND, Alone, Answer, is_due, wants_release
from undisclosed.steward.comparison import SOON, History, StateChange, compare
from undisclosed.steward.context import Context
from undisclosed.steward.due_notices import DueNotices
from undisclosed.steward.first_look import FirstLook
from undisclosed.steward.hold_queue import HoldQueue, Listing, QueueEntry, UnreadableRow
from undisclosed.steward.identity import why_other_message
from undisclosed.steward.release import DELETING
from undisclosed.steward.renamed import Renamed

DEPARTED: Final[Mapping[State, NoticeKind]] = {
    State.RELEASED_BY_HAND: "released_by_hand",
    State.DELETED_BY_HAND: "deleted",
    State.GONE: "gone",
}
"""The notice about a copy that left the hold queue, and not by the steward."""

LEAKS: Final = frozenset({State.RELEASED_BY_HAND, State.GONE})
"""The states of a copy whose list its recipients can, or may, have seen against the policy."""


def _is_listed(copy: QueueCopy, listing: Listing) -> bool:
    entry = listing.held.get(copy.queue_id)
    return entry is not None and why_other_message(copy, entry) is None


class Reconciler:
    """Compares in each round, and records the result. Remembers the copies that the last listing lacked."""

    def __init__(
        self,
        journal: Journal,
        queue: HoldQueue,
        due_notices: DueNotices,
        log: structlog.BoundLogger,
        monotonic: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._queue = queue
        self._due_notices = due_notices
        self._adoption = Adoption(journal, queue, log)
        self._renamed = Renamed(journal, queue, log)
        self._alone = Alone(queue, log, monotonic)
        self._first_look = FirstLook(queue, log)
        self._log = log
        self._unreadable: frozenset[UnreadableRow] = frozenset()
        self.missing_since: Mapping[int, datetime] = {}
        """Copies by id whose state is unknown until a later round."""
        self._never_listed: Mapping[int, bool] = {}
        """Pending copies by id for which a round looked while Postfix may have been writing them: see `Comparison`."""
        self.held: frozenset[int] = frozenset()
        """The ids of the copies that the last listing has on hold."""
        self.cleared: set[int] = set()
        """The ids of copies that the steward may release by itself in this round: the log has told all."""
        self._is_undecided = False
        self.has_open = False
        """Whether there are open copies: what somebody does with them is to be noticed soon."""

    def reconcile(self, context: Context, now: datetime) -> datetime | None:
        """Compare once; returns the time of the next round if something is expected to happen soon."""
        # The listing first: the milter records a message before Postfix holds it, so every listed one has a record.
        listing = self._queue.list()
        self._first_look.begin_round()
        self._log_unreadable(listing)
        self.cleared, self._is_undecided = set(), False
        is_filed = self._file_inbox()
        unconfirmed = self._journal.queue_facts.unconfirmed(context.gateway)
        copies = self._open_copies(context)
        self._alone.begin_round(context.policy, [*copies, *unconfirmed], now)
        if is_filed and self._renamed.follow(context, listing, copies, self._events, now):
            copies = self._open_copies(context)
        absent = [copy for copy in copies if copy.queue_id not in listing.held]
        comparison = compare(
            listing,
            copies,
            {copy.id: self._history(copy) for copy in absent},
            now=now,
            missing_since=self.missing_since,
            never_listed=self._never_listed,
            has_log=self._alone.reader.is_readable,
        )
        self.missing_since = comparison.missing_since
        self._never_listed = comparison.never_listed
        self.held = frozenset(copy.id for copy in copies if _is_listed(copy, listing))
        for change in comparison.changes:
            self._record(context, change, listing, now)
        if is_filed:
            for copy, entry in self._adoption.record_all(context, comparison.unrecorded):
                self._record_adopted(context, copy, entry, now)
        for copy in copies:
            if copy.state is State.HELD and copy.queue_id in listing.held:
                self._look_again(context, copy, now)
        is_waiting = self._confirm(unconfirmed, listing, now)
        self.has_open = bool(copies)
        is_pending = any(copy.state is State.PENDING for copy in absent)
        is_expecting = self.missing_since or self._is_undecided or is_pending or is_waiting or not is_filed
        return now + SOON if is_expecting else None

    def close(self) -> None:
        """Close Postfix's log."""
        self._alone.reader.close()

    @property
    def _events(self) -> LogEvents:
        return self._alone.reader.events

    def _open_copies(self, context: Context) -> list[QueueCopy]:
        return self._journal.incidents.copies(gateway=context.gateway, states=OPEN)

    def _file_inbox(self) -> bool:
        """File the milter's records. Without that, a listed message that is recorded could seem to have no record."""
        try:
            if not self._journal.inbox.is_empty():  # filing wakes the steward on PostgreSQL, also if there is nothing
                self._journal.inbox.file()
        except JournalError as error:
            self._log.warning("adoption_postponed", reason=str(error))
            return False
        return True

    def _log_unreadable(self, listing: Listing) -> None:
        """Log each row that cannot be read once, as long as it is listed."""
        rows = frozenset(listing.unreadable)
        for row in rows - self._unreadable:
            self._log.warning("queue_row_unreadable", queue_id=row.queue_id, reason=row.why)
        self._unreadable = rows

    def _history(self, copy: QueueCopy) -> History:
        fate = self._events.fate(copy.queue_id, was_held=copy.state is not State.PENDING)
        if copy.state is State.PENDING:
            return History(fate=fate, is_refused=self._events.is_refused(copy.queue_id))
        events = [event for event in self._journal.incidents.events(copy.incident_id) if event.copy_id == copy.id]
        last = events[-1] if events else None
        deleting = State(last.detail["state"]) if last is not None and last.what == DELETING else None
        return History(self._journal.held.accepted_parts(copy.id), deleting, fate)

    def _record(self, context: Context, change: StateChange, listing: Listing, now: datetime) -> None:
        if change.state is State.HELD:
            self._record_held(context, change.copy, listing.held[change.copy.queue_id], change.why, now)
        else:
            self._record_departure(change, now)

    def _record_departure(self, change: StateChange, now: datetime) -> None:
        """Record that a copy has left the hold queue, with its notice."""
        copy = change.copy
        is_told = not copy.adopted or copy.rule  # of what no rule holds, nobody was told
        if (kind := DEPARTED.get(change.state)) is not None and is_told:
            # Before the state, so that a crash cannot lose it. It is not sent before that.
            self._due_notices.add(copy, kind, now)
        if not self._journal.held.set_state(copy.id, change.state, why=change.why, expected=copy.state):
            return
        log = self._log.bind(
            queue_id=copy.queue_id,
            reference=self._journal.incidents.get(copy.incident_id).reference,
            state=change.state.value,
            reason=change.why,
        )
        if change.state in LEAKS:
            log.warning("copy_left_by_hand")
        elif change.state is State.NEVER_QUEUED:
            log.info("copy_never_queued")
        else:
            log.info("copy_closed")

    def _record_adopted(self, context: Context, copy: QueueCopy, entry: QueueEntry, now: datetime) -> None:
        if copy.state is State.PENDING:
            self._record_held(context, copy, entry, "found in the hold queue without a record", now)

    def _record_held(self, context: Context, copy: QueueCopy, entry: QueueEntry, why: str, now: datetime) -> None:
        """Record that a copy is held, with the request to release it if its rule asks for one.

        A copy that the steward is to release stays pending until it is known whether it may: its first notice says so.
        """
        leaves, obstacle = None, None
        # All before the state, and idempotent, so that a crash repeats it. No notice is sent before the copy is held.
        if wants_release(copy):
            answer = self._alone.answer(context.policy, copy)
            if answer is Answer.LATER:
                self._is_undecided = True
                return
            if isinstance(answer, str):
                self._let_wait(copy, answer, now)
            elif (refusal := self._refusal(context, copy)) is not None:
                self._let_wait(copy, refusal, now, is_error=True)
            else:
                leaves = self._ask_for_release(context, copy)
                self.cleared.add(copy.id)
        else:
            findings = self._first_look.look(context.policy, copy, is_searched=copy.obstacle is not None)
            obstacle = findings.obstacle
            if findings.refusal is not None:
                self._let_wait(copy, findings.refusal, now)
        # Adopted mail does not expire: it may be on hold for another reason, and longer than the steward knows. Other
        # mail that came while the clock was ahead would expire later by as much.
        arrived = min(entry.arrived, now)
        until = None if copy.adopted else arrived + timedelta(days=context.policy.hold.expire_days)
        self._journal.held.set_state(
            copy.id,
            State.HELD,
            why=why,
            expected=copy.state,
            size=entry.size,
            until=until,
            leaves=leaves,
            obstacle=obstacle,
        )
        reference = self._journal.incidents.get(copy.incident_id).reference
        self._log.info(
            "copy_held", queue_id=copy.queue_id, reference=reference, until=until.isoformat() if until else None
        )

    def _let_wait(self, copy: QueueCopy, why: str, now: datetime, *, is_error: bool = False) -> None:
        """Let a copy wait for a person, and say why. `is_error`: the steward cannot do what the rule says."""
        if self._journal.held.wait_for_person(copy, why, now=now):
            reference = self._journal.incidents.get(copy.incident_id).reference
            log = self._log.bind(queue_id=copy.queue_id, reference=reference, reason=why)
            if is_error:
                log.error("copy_not_releasable")
            else:
                log.warning("copy_waits")

    def _look_again(self, context: Context, copy: QueueCopy, now: datetime) -> None:
        """Look whether mail was placed on hold by hand since; when the copy is to leave, whether the log is current."""
        leaves = authorize.release_time(context.policy, copy)
        if copy.leaves is not None and leaves is not None and leaves > copy.leaves:
            self._journal.queue_facts.leaves_later(copy, leaves, "hold.delay is longer now", now=now)
        if self._alone.has_line_now(copy):
            self._journal.queue_facts.act_again(copy, "the mail log has its line by now", now=now)
            self._is_undecided = True
        elif wants_release(copy) and self._alone.is_by_hand(copy):
            self._let_wait(copy, BY_HAND, now)
        elif is_due(context.policy, copy, now):
            answer = self._alone.answer(context.policy, copy)
            if isinstance(answer, str):
                self._let_wait(copy, answer, now)
            elif answer is Answer.LATER:
                self._is_undecided = True
            else:
                self.cleared.add(copy.id)

    def _confirm(self, copies: Iterable[QueueCopy], listing: Listing, now: datetime) -> bool:
        """Record which messages that were delivered at once Postfix has queued; True if it is not known of all."""
        is_waiting = False
        for copy in copies:
            if self._events.is_refused(copy.queue_id):
                why = "a milter behind ours refused it"
                if self._journal.queue_facts.never_queued(copy, why, now=now):
                    reference = self._journal.incidents.get(copy.incident_id).reference
                    self._log.info(
                        "copy_never_queued",
                        queue_id=copy.queue_id,
                        reference=reference,
                        state=State.NEVER_QUEUED.value,
                        reason=why,
                    )
            elif copy.queue_id in listing.held.keys() | listing.elsewhere or self._events.is_queued(copy.queue_id):
                self._journal.queue_facts.confirm(copy, now=now)
            else:
                is_waiting |= now - copy.arrived < CONFIRMATION_TIME
        return is_waiting

    def _refusal(self, context: Context, copy: QueueCopy) -> str | None:
        """Why the steward cannot release a copy itself. Asked before the first notice, which says that it will."""
        return self._first_look.look(context.policy, copy, is_searched=True).refusal

    def _ask_for_release(self, context: Context, copy: QueueCopy) -> datetime | None:
        """Ask for the release that the copy's rule wants; returns its time, if it is delayed."""
        leaves = authorize.release_time(context.policy, copy)
        self._journal.held.ask(
            [copy.id],
            verb="release",
            mode=copy.action.effect.release_mode,
            actor=STEWARD,
            reason=f"the rule {copy.rule!r} says {copy.action}",
            not_before=leaves,
        )
        return leaves
