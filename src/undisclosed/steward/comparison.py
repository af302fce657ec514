"""The differences between a listing of Postfix's queue and the open copies in the journal. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from undisclosed.incidents.records import AcceptedPart, QueueCopy, State, is_complete, places_served
from undisclosed.postfix.log_events import Fate, What
from undisclosed.steward.hold_queue import Listing, QueueEntry
from undisclosed.steward.identity import why_other_message

ARRIVAL_TIME: Final = timedelta(minutes=2)
"""The time after its record in which a message must appear in the hold queue: Postfix has to write it to the disk."""

SOON: Final = timedelta(seconds=0.5)
"""The time to the next round while a message is expected to appear or to be gone, and the least time between two
listings that lack a message which is gone: two rounds can follow at once, while Postfix moves it."""

LOGGED_WITHIN: Final = timedelta(seconds=30)
"""The time in which the log says what became of a message that is gone: `postsuper -d ALL` logs at its end."""

_DEPARTURES: Final[Mapping[What, tuple[State, str]]] = {
    What.DELETED: (State.DELETED_BY_HAND, "deleted by hand (postsuper -d)"),
    What.EXPIRED: (State.DELETED_BY_HAND, "returned to its sender by hand (postsuper -f): no recipient has it"),
    What.LET_GO: (State.RELEASED_BY_HAND, "released by hand (postsuper -H), unchanged"),
    What.REQUEUED: (State.RELEASED_BY_HAND, "requeued by hand (postsuper -r), unchanged"),
}
"""The state of a copy whose fate the log tells, and the reason."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A copy's new state, and the reason."""

    copy: QueueCopy
    state: State
    why: str


@dataclass(frozen=True, slots=True)
class History:
    """The facts known about a copy that is not on hold: an interrupted steward may have left records, the log lines."""

    accepted: Collection[AcceptedPart] = ()
    """The parts of its release that Postfix accepted."""
    deleting: State | None = None
    """The state after its deletion, if a deletion was begun."""
    fate: Fate | None = None
    """The history of its queue file in the log."""
    is_refused: bool = False
    """Whether the log says that a milter refused it: it was never queued."""


NO_HISTORY: Final = History()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between a listing and the journal."""

    changes: tuple[StateChange, ...]
    unrecorded: tuple[QueueEntry, ...]
    """Entries of the hold queue without a copy in the journal."""
    missing_since: Mapping[int, datetime]
    """Copies by id that are gone if later listings lack them too, with the time of the first that lacked them: a
    listing can miss a message that moves."""
    never_listed: Mapping[int, bool]
    """Pending copies by id for which this steward looked when Postfix may have been writing them, and whether all
    listings lacked them. Such a copy was never queued if it does not appear. Another one may have been on hold, and
    deleted or released by hand."""


def compare(
    listing: Listing,
    copies: Iterable[QueueCopy],
    histories: Mapping[int, History],
    *,
    now: datetime,
    missing_since: Mapping[int, datetime],
    never_listed: Mapping[int, bool],
    has_log: bool = False,
) -> Comparison:
    """Compare a listing with the open copies.

    `histories`: of the copies that are not on hold, by id. `missing_since`, `never_listed`: the result of the
    comparison before. `has_log`: the log can be read, and may yet say what became of a message that is gone.
    """
    changes: list[StateChange] = []
    missing: dict[int, datetime] = {}
    watched: dict[int, bool] = {}
    unrecorded = dict(listing.held)
    for copy in copies:
        entry = listing.held.get(copy.queue_id)
        history = histories.get(copy.id, NO_HISTORY)
        is_elsewhere = copy.queue_id in listing.elsewhere
        is_known = is_elsewhere or history.fate is not None or history.is_refused
        is_young = copy.state is State.PENDING and abs(now - copy.arrived) < ARRIVAL_TIME
        is_listed = entry is not None and why_other_message(copy, entry) is None
        if copy.state is State.PENDING and (is_young or copy.id in never_listed):
            may_be_listed = is_listed or listing.may_have(copy.queue_id)
            watched[copy.id] = not may_be_listed and never_listed.get(copy.id, True)
        is_watched = watched.get(copy.id, False)
        since = min(missing_since.get(copy.id, now), now)  # the clock may have been set back
        if is_listed:
            unrecorded.pop(copy.queue_id, None)
            if copy.state is State.PENDING:
                changes.append(StateChange(copy, State.HELD, "seen in the hold queue"))
        elif listing.may_have(copy.queue_id) or (is_young and not is_known):
            continue
        elif finished := _finished(copy, history):
            changes.append(finished)
        elif is_elsewhere or _is_gone(history, now - since, may_be_logged=has_log and not is_watched):
            changes.append(_gone(copy, is_elsewhere, history, is_watched=is_watched))
        else:
            missing[copy.id] = since
    return Comparison(tuple(changes), tuple(unrecorded.values()), missing, watched)


def _is_gone(history: History, missing_for: timedelta, *, may_be_logged: bool) -> bool:
    """Whether a copy has been missing for long enough; longer, if the log may yet say more."""
    is_unclear = may_be_logged and history.fate is None and not history.is_refused
    return missing_for >= (LOGGED_WITHIN if is_unclear else SOON)


def _finished(copy: QueueCopy, history: History) -> StateChange | None:
    """The final state of a copy that a steward finished without recording it: it was interrupted."""
    if copy.state is State.RELEASING and is_complete(history.accepted):
        return StateChange(copy, State.RELEASED, "every recipient had been served, and the held message is gone")
    if history.deleting is not None:
        return StateChange(copy, history.deleting, "its deletion had begun, and the held message is gone")
    return None


def _gone(copy: QueueCopy, is_elsewhere: bool, history: History, *, is_watched: bool) -> StateChange:
    if history.fate is not None:
        state, why = _DEPARTURES[history.fate.kind]
    elif is_elsewhere:
        state, why = State.RELEASED_BY_HAND, "moved out of the hold queue by hand, unchanged"
    elif copy.state is State.PENDING and history.is_refused:
        state, why = State.NEVER_QUEUED, "a milter refused it"
    elif is_watched:
        state, why = State.NEVER_QUEUED, "not in the hold queue: the client disconnected, or it was removed at once"
    elif copy.state is State.PENDING:
        state = State.GONE
        why = "not in the hold queue, and it came while no steward ran: nothing says whether it was, and who removed it"
    else:
        state, why = State.GONE, "gone from the hold queue, and not by the steward: nothing says who did what with it"
    if history.accepted:
        why += f"; {len(places_served(history.accepted))} recipients had been served before"
    return StateChange(copy, state, why)
