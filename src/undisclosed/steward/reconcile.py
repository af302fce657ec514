"""Compares the hold queue with the copies in the journal: which are held, which are gone, which have no record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from undisclosed.decision.queue_file import QueueFileError
from undisclosed.incidents.records import (
    OPEN,
    STEWARD,
    AcceptedPart,
    JournalError,
    QueueCopy,
    ReleaseMode,
    State,
    is_complete,
    places_served,
)
from undisclosed.journal.journal import Journal
from undisclosed.steward import authorize
from undisclosed.steward.adoption import Adoption
from undisclosed.steward.context import Context
from undisclosed.steward.hold_queue import (
    HoldQueue,
    HoldQueueError,
    Listing,
    QueueEntry,
    RootHalfGoneError,
    UnreadableRow,
)
from undisclosed.steward.identity import why_other_message
from undisclosed.steward.release import DELETING
from undisclosed.steward.release_check import ReleaseCheck

ARRIVAL_TIME: Final = timedelta(minutes=2)
"""The time after its record in which a message must appear in the hold queue: Postfix has to write it to the disk."""

SOON: Final = timedelta(seconds=0.5)
"""The time to the next round while a message is expected to appear or to be gone, and the least time between two
listings that lack a message which is gone: two rounds can follow at once, while Postfix moves it."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A copy's new state, and the reason."""

    copy: QueueCopy
    state: State
    why: str


@dataclass(frozen=True, slots=True)
class History:
    """The journal's records about a copy that is not on hold: an interrupted steward may have left them."""

    accepted: Collection[AcceptedPart] = ()
    """The parts of its release that Postfix accepted."""
    deleting: State | None = None
    """The state after its deletion, if a deletion was begun."""


NO_HISTORY: Final = History()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between a listing and the journal."""

    changes: tuple[StateChange, ...]
    unrecorded: tuple[QueueEntry, ...]
    """Entries of the hold queue without a copy in the journal."""
    missing_since: Mapping[int, datetime]
    """Copies by id that are gone if a listing after SOON lacks them too, with the time of the first that lacked them: a
    listing can miss a message that moves."""


def compare(
    listing: Listing,
    copies: Iterable[QueueCopy],
    histories: Mapping[int, History],
    *,
    now: datetime,
    missing_since: Mapping[int, datetime],
) -> Comparison:
    """Compare a listing with the open copies.

    `histories`: of the copies that are not on hold, by id. `missing_since`: the result of the comparison before.
    """
    changes: list[StateChange] = []
    missing: dict[int, datetime] = {}
    unrecorded = dict(listing.held)
    for copy in copies:
        entry = listing.held.get(copy.queue_id)
        history = histories.get(copy.id, NO_HISTORY)
        is_elsewhere = copy.queue_id in listing.elsewhere
        is_young = copy.state is State.PENDING and now - copy.arrived < ARRIVAL_TIME
        if entry is not None and why_other_message(copy, entry) is None:
            unrecorded.pop(copy.queue_id, None)
            if copy.state is State.PENDING:
                changes.append(StateChange(copy, State.HELD, "seen in the hold queue"))
        elif listing.may_have(copy.queue_id) or (is_young and not is_elsewhere):
            continue
        elif finished := _finished(copy, history):
            changes.append(finished)
        elif is_elsewhere or now - missing_since.get(copy.id, now) >= SOON:
            changes.append(_gone(copy, is_elsewhere, history.accepted))
        else:
            missing[copy.id] = missing_since.get(copy.id, now)
    return Comparison(tuple(changes), tuple(unrecorded.values()), missing)


def _is_listed(copy: QueueCopy, listing: Listing) -> bool:
    entry = listing.held.get(copy.queue_id)
    return entry is not None and why_other_message(copy, entry) is None


def _finished(copy: QueueCopy, history: History) -> StateChange | None:
    """The final state of a copy that a steward finished without recording it: it was interrupted."""
    if copy.state is State.RELEASING and is_complete(history.accepted):
        return StateChange(copy, State.RELEASED, "every recipient had been served, and the held message is gone")
    if history.deleting is not None:
        return StateChange(copy, history.deleting, "its deletion had begun, and the held message is gone")
    return None


def _gone(copy: QueueCopy, is_elsewhere: bool, accepted: Collection[AcceptedPart]) -> StateChange:
    if is_elsewhere:
        return StateChange(copy, State.RELEASED_BY_HAND, "moved out of the hold queue by hand, unchanged")
    if copy.state is State.PENDING:
        why = "not in the hold queue: the client disconnected, or the message was removed before the steward saw it"
        return StateChange(copy, State.NEVER_QUEUED, why)
    why = "gone from the hold queue, and not by the steward: released or deleted by hand"
    if accepted:
        why += f"; {len(places_served(accepted))} recipients had been served before"
    return StateChange(copy, State.RELEASED_BY_HAND, why)


class Reconciler:
    """Compares in each round, and records the result. Remembers the copies that the last listing lacked."""

    def __init__(self, journal: Journal, queue: HoldQueue, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._queue = queue
        self._adoption = Adoption(journal, queue, log)
        self._check = ReleaseCheck()
        self._log = log
        self._unreadable: frozenset[UnreadableRow] = frozenset()
        self.missing_since: Mapping[int, datetime] = {}
        """Copies by id whose state is unknown until a later round."""
        self.held: frozenset[int] = frozenset()
        """The ids of the copies that the last listing has on hold."""

    def reconcile(self, context: Context, now: datetime) -> datetime | None:
        """Compare once; returns the time of the next round if a message is expected to appear or to be gone."""
        # The listing first: the milter records a message before Postfix holds it, so every listed one has a record.
        listing = self._queue.list()
        self._check.forget()
        self._log_unreadable(listing)
        is_filed = self._file_inbox()
        copies = self._journal.incidents.copies(gateway=context.gateway, states=OPEN)
        absent = [copy for copy in copies if copy.queue_id not in listing.held]
        histories = {copy.id: self._history(copy) for copy in absent if copy.state is not State.PENDING}
        comparison = compare(listing, copies, histories, now=now, missing_since=self.missing_since)
        self.missing_since = comparison.missing_since
        self.held = frozenset(copy.id for copy in copies if _is_listed(copy, listing))
        for change in comparison.changes:
            self._record(context, change, listing, now)
        if is_filed:
            for copy, entry in self._adoption.record_all(context, comparison.unrecorded):
                self._record_adopted(context, copy, entry, now)
        is_expecting = not is_filed or self.missing_since or any(copy.state is State.PENDING for copy in absent)
        return now + SOON if is_expecting else None

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
        events = [event for event in self._journal.incidents.events(copy.incident_id) if event.copy_id == copy.id]
        last = events[-1] if events else None
        deleting = State(last.detail["state"]) if last is not None and last.what == DELETING else None
        return History(self._journal.held.accepted_parts(copy.id), deleting)

    def _record(self, context: Context, change: StateChange, listing: Listing, now: datetime) -> None:
        copy = change.copy
        if change.state is State.HELD:
            self._record_held(context, copy, listing.held[copy.queue_id], change.why, now)
        elif self._journal.held.set_state(copy.id, change.state, why=change.why, expected=copy.state):
            self._log.info(
                "copy_never_queued" if change.state is State.NEVER_QUEUED else "copy_closed",
                queue_id=copy.queue_id,
                reference=self._journal.incidents.get(copy.incident_id).reference,
                state=change.state.value,
                reason=change.why,
            )

    def _record_adopted(self, context: Context, copy: QueueCopy, entry: QueueEntry, now: datetime) -> None:
        if copy.state is State.PENDING:
            self._record_held(context, copy, entry, "found in the hold queue without a record", now)

    def _record_held(self, context: Context, copy: QueueCopy, entry: QueueEntry, why: str, now: datetime) -> None:
        """Record that a copy is held, with the request to release it if its rule asks for one."""
        incident = self._journal.incidents.get(copy.incident_id)
        mode = copy.action.effect.release_mode
        obstacle = copy.waits or (self._obstacle(context, copy) if mode is not None else None)
        # Before the state: all of it is idempotent, so a crash repeats it; after it, it would be lost. No notice is
        # sent before the copy is held.
        leaves = None
        if obstacle is not None and copy.waits is None:
            self._journal.held.wait_for_person(copy, obstacle, now=now)
            self._log.error("copy_waits", queue_id=copy.queue_id, reference=incident.reference, reason=obstacle)
        elif obstacle is None and mode is not None:
            leaves = authorize.release_time(context.policy, copy)
            self._ask_for_release(copy, mode, leaves)
        # Adopted mail does not expire: it may be on hold for another reason, and longer than the steward knows.
        until = None if copy.adopted else entry.arrived + timedelta(days=context.policy.hold.expire_days)
        self._journal.held.set_state(
            copy.id, State.HELD, why=why, expected=copy.state, size=entry.size, until=until, leaves=leaves
        )
        expires = until.isoformat() if until else None
        self._log.info("copy_held", queue_id=copy.queue_id, reference=incident.reference, until=expires)

    def _obstacle(self, context: Context, copy: QueueCopy) -> str | None:
        """Why the steward cannot release a copy itself. Asked before the first notice, which says that it will."""
        try:
            files = self._queue.read_beginnings([copy.queue_id], 0)  # no text: the envelope decides
        except RootHalfGoneError:
            raise
        except HoldQueueError:
            return None  # it is gone since the listing: the next round finds that
        except QueueFileError as error:
            return f"it cannot be read ({error}): it can only be deleted"
        return self._check.why_not_released(context.policy, files[copy.queue_id])

    def _ask_for_release(self, copy: QueueCopy, mode: ReleaseMode, leaves: datetime | None) -> None:
        self._journal.held.ask(
            [copy.id],
            verb="release",
            mode=mode,
            actor=STEWARD,
            reason=f"the rule {copy.rule!r} says {copy.action}",
            not_before=leaves,
        )
