"""What the hold queue says of the journal's copies: which are held, which are gone, and what nobody has recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from undisclosed.decision.queue_file import QueuedMessage
from undisclosed.incidents.records import AcceptedPart, QueueCopy, State, is_complete, places_served
from undisclosed.steward.hold_queue import Entry, Listing

GRACE: Final = timedelta(minutes=2)
"""How long after its record a message may take to arrive in the hold queue: Postfix has to write it to the disk."""

ARRIVED_BEFORE: Final = timedelta(hours=1)
"""How long before its record a message may have begun to arrive: its client may have sent it slowly."""

CLOCK: Final = timedelta(seconds=5)
"""How much earlier the record may seem, since Postfix and we do not round alike."""


@dataclass(frozen=True, slots=True)
class Change:
    """A copy's new state, and why."""

    copy: QueueCopy
    state: State
    why: str


@dataclass(frozen=True, slots=True)
class Traces:
    """What the journal tells of a copy that is not on hold."""

    taken: Collection[AcceptedPart] = ()
    """The parts of it that were handed over."""
    deleting: State | None = None
    """The state that it was to have once deleted, if a steward was about to delete it."""


NO_TRACES: Final = Traces()


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen: new states, entries of the hold queue that no copy stands for, copies that were not seen."""

    changes: tuple[Change, ...]
    unknown: tuple[Entry, ...]
    missed: frozenset[int]
    """The ids of copies that are gone if the next listing does not have them either: a message that moves is missed."""


def survey(
    listing: Listing,
    copies: Iterable[QueueCopy],
    traces: Mapping[int, Traces],
    *,
    now: datetime,
    missed: Collection[int] = (),
) -> Survey:
    """Compare a listing with the open copies.

    `traces` has what an earlier steward may have left of those that are not on hold; `missed` is the last survey's.
    """
    changes: list[Change] = []
    unseen: set[int] = set()
    unknown = dict(listing.held)
    for copy in copies:
        entry = listing.held.get(copy.queue_id)
        if entry is not None and stands_against(copy, entry) is None:
            unknown.pop(copy.queue_id, None)
            if copy.state is State.PENDING:
                changes.append(Change(copy, State.HELD, "seen in the hold queue"))
        elif copy.state is State.PENDING and now - copy.arrived < GRACE and copy.queue_id not in listing.elsewhere:
            continue
        elif finished := _finished(copy, traces.get(copy.id, NO_TRACES)):
            changes.append(finished)
        elif copy.id in missed or copy.queue_id in listing.elsewhere:
            changes.append(_gone(copy, copy.queue_id in listing.elsewhere, traces.get(copy.id, NO_TRACES).taken))
        else:
            unseen.add(copy.id)
    return Survey(tuple(changes), tuple(unknown.values()), frozenset(unseen))


def stands_against(copy: QueueCopy, found: Entry | QueuedMessage) -> str | None:
    """Why a queued message with the copy's queue id is another message; None if it is the one."""
    if copy.size is not None and copy.size != found.size:
        return f"the message that has this queue id now has {found.size} bytes, and not {copy.size}"
    if not -CLOCK <= copy.arrived - found.arrived <= ARRIVED_BEFORE:
        return f"the message that has this queue id now arrived at {found.arrived:%Y-%m-%d %H:%M:%S}"
    return None


def _finished(copy: QueueCopy, traces: Traces) -> Change | None:
    """What a steward had done that ended before it could say so."""
    if copy.state is State.RELEASING and is_complete(traces.taken):
        return Change(copy, State.RELEASED, "every recipient had been served, and the held message is gone")
    if traces.deleting is not None:
        return Change(copy, traces.deleting, "it was about to be deleted, and is gone")
    return None


def _gone(copy: QueueCopy, elsewhere: bool, taken: Collection[AcceptedPart]) -> Change:
    if elsewhere:
        return Change(copy, State.RELEASED_BY_HAND, "moved out of the hold queue by hand, as it was")
    if copy.state is State.PENDING:
        why = "not in the hold queue: its client went away, or somebody removed it before it was seen"
        return Change(copy, State.NEVER_QUEUED, why)
    why = "gone from the hold queue, and not by the steward: released or deleted by hand"
    if taken:
        why += f"; {len(places_served(taken))} recipients had been served before"
    return Change(copy, State.RELEASED_BY_HAND, why)
