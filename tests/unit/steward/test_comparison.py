"""The comparison of the hold queue with the copies in the journal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from support import request_factories
from undisclosed.incidents.records import AcceptedPart, QueueCopy, State, parts_for
from undisclosed.postfix.log_events import Fate, What
from undisclosed.steward.comparison import ARRIVAL_TIME, LOGGED_WITHIN, SOON, Comparison, History, compare
from undisclosed.steward.hold_queue import Listing, QueueEntry

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COPY = replace(request_factories.COPY, arrived=NOW - timedelta(hours=1))
ENTRY = QueueEntry("4jXkbq5QPvzJ9sp", COPY.arrived, 1000, "clerk@council.test", 3)


def compare_one(
    copy: QueueCopy,
    entry: QueueEntry | None = None,
    *,
    elsewhere: bool = False,
    missed_before: timedelta | None = None,
    history: History | None = None,
    has_log: bool = False,
    never_listed: bool | None = None,
) -> Comparison:
    """Compare one copy with a listing that has `entry` on hold, or the copy's queue id in another queue.

    `missed_before`: the time since the first listing that lacked it. `never_listed`: whether the rounds lacked it that
    looked for it when it was young; None if none did.
    """
    held = {} if entry is None else {entry.queue_id: entry}
    others = frozenset([copy.queue_id] if elsewhere else [])
    histories = {copy.id: history} if history else {}
    missing = {} if missed_before is None else {copy.id: NOW - missed_before}
    looked_for = {copy.id: never_listed} if never_listed is not None else {}
    return compare(
        Listing(held, others),
        [copy],
        histories,
        now=NOW,
        missing_since=missing,
        never_listed=looked_for,
        has_log=has_log,
    )


def states(comparison: Comparison) -> list[State]:
    """The new states."""
    return [change.state for change in comparison.changes]


def test_a_held_message_stays_held() -> None:
    """There is no difference."""
    assert compare_one(COPY, ENTRY) == Comparison((), (), {}, {})


def test_a_pending_copy_is_held_once_it_is_seen() -> None:
    """The same for a message that its client sent slowly, so that its arrival time is before the record."""
    early = replace(ENTRY, arrived=COPY.arrived - timedelta(minutes=30))
    assert states(compare_one(replace(COPY, state=State.PENDING, size=None), early)) == [State.HELD]


def test_a_pending_copy_may_arrive_later() -> None:
    """Postfix may be writing it. After ARRIVAL_TIME it was never queued, if two listings lack it."""
    young = replace(COPY, state=State.PENDING, arrived=NOW - ARRIVAL_TIME / 2)
    assert compare_one(young) == Comparison((), (), {}, {1: True})
    old = replace(COPY, state=State.PENDING)
    assert compare_one(old, never_listed=True) == Comparison((), (), {1: NOW}, {1: True})
    assert states(compare_one(old, missed_before=SOON, never_listed=True)) == [State.NEVER_QUEUED]


def test_a_pending_copy_that_came_while_no_steward_ran_is_gone() -> None:
    """Held-mail review: it may have been on hold, and deleted or released by hand meanwhile. Somebody must be told."""
    old = replace(COPY, state=State.PENDING)
    assert compare_one(old) == Comparison((), (), {1: NOW}, {})
    assert states(compare_one(old, missed_before=SOON)) == [State.GONE]


def test_a_pending_copy_that_was_listed_is_gone_when_it_disappears() -> None:
    """One of which the log is still read stays pending, although it is on hold."""
    young = replace(COPY, state=State.PENDING, arrived=NOW)
    listed = compare_one(young, replace(ENTRY, arrived=NOW), never_listed=True)
    assert listed.never_listed == {1: False}
    old = replace(COPY, state=State.PENDING)
    assert compare_one(young, never_listed=False).never_listed == {1: False}
    assert states(compare_one(old, missed_before=SOON, never_listed=False)) == [State.GONE]


def test_the_log_may_yet_tell_of_a_pending_copy_that_came_while_no_steward_ran() -> None:
    """As of one that was seen on hold; what the log says of it decides at once."""
    old = replace(COPY, state=State.PENDING)
    assert states(compare_one(old, missed_before=SOON, has_log=True)) == []
    assert states(compare_one(old, missed_before=LOGGED_WITHIN, has_log=True)) == [State.GONE]
    refused, deleted = History(is_refused=True), History(fate=Fate(What.DELETED))
    assert states(compare_one(old, missed_before=SOON, history=refused, has_log=True)) == [State.NEVER_QUEUED]
    assert states(compare_one(old, missed_before=SOON, history=deleted, has_log=True)) == [State.DELETED_BY_HAND]


def test_one_listing_may_miss_a_message() -> None:
    """A message is gone if two listings in a row lack it, or if it is in another queue."""
    assert compare_one(COPY) == Comparison((), (), {1: NOW}, {})
    assert states(compare_one(COPY, missed_before=SOON)) == [State.GONE]
    assert states(compare_one(COPY, elsewhere=True)) == [State.RELEASED_BY_HAND]


def test_two_listings_within_one_move_are_no_proof() -> None:
    """A round can follow at once, after a change of the journal: both listings may miss the message as it moves."""
    just_before = timedelta(milliseconds=3)
    assert compare_one(COPY, missed_before=just_before) == Comparison((), (), {1: NOW - just_before}, {})
    old = replace(COPY, state=State.PENDING)
    assert compare_one(old, missed_before=just_before) == Comparison((), (), {1: NOW - just_before}, {})


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, size=999),
        replace(ENTRY, arrived=NOW),
        replace(ENTRY, arrived=COPY.arrived - timedelta(hours=2)),
    ],
)
def test_a_reused_queue_id(entry: QueueEntry) -> None:
    """Another message has the short queue id now: the copy is gone, and that message has no record."""
    comparison = compare_one(COPY, entry, missed_before=SOON)
    assert (states(comparison), comparison.unrecorded) == ([State.GONE], (entry,))


@pytest.mark.parametrize(
    ("accepted", "state"),
    [
        (parts_for("bcc", range(3), 3), State.RELEASED),
        (parts_for("split", [0], 3) + parts_for("split", [1, 2], 3), State.RELEASED),
        (parts_for("split", [0], 3), None),
    ],
)
def test_a_release_that_was_finished_but_not_recorded(accepted: tuple[AcceptedPart, ...], state: State | None) -> None:
    """The steward died between deletion and record: the accepted parts tell that it was complete."""
    comparison = compare_one(replace(COPY, state=State.RELEASING), history=History(accepted))
    assert states(comparison) == ([state] if state else [])


def test_a_deletion_that_was_finished_but_not_recorded() -> None:
    """The copy gets the state that the event names."""
    assert states(compare_one(COPY, history=History(deleting=State.EXPIRED))) == [State.EXPIRED]


def test_a_message_removed_by_hand_during_a_release() -> None:
    """The reason has the number of recipients that were served."""
    comparison = compare_one(
        replace(COPY, state=State.RELEASING), missed_before=SOON, history=History(parts_for("split", [0, 1], 3))
    )
    assert states(comparison) == [State.GONE]
    assert "2 recipients had been served" in comparison.changes[0].why


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (What.LET_GO, State.RELEASED_BY_HAND),
        (What.REQUEUED, State.RELEASED_BY_HAND),
        (What.DELETED, State.DELETED_BY_HAND),
        (What.EXPIRED, State.DELETED_BY_HAND),
    ],
)
def test_the_log_tells_what_somebody_did(kind: What, state: State) -> None:
    """users-walk 5: a leak and a deletion by hand are not one state. The log decides at once, a listing after SOON."""
    history = History(fate=Fate(kind))
    assert states(compare_one(COPY, missed_before=SOON, history=history, has_log=True)) == [state]
    assert states(compare_one(COPY, elsewhere=True, history=history, has_log=True)) == [state]
    just_recorded = replace(COPY, state=State.PENDING, arrived=NOW)
    assert states(compare_one(just_recorded, missed_before=SOON, history=history, has_log=True)) == [state]


def test_a_message_is_gone_only_when_the_log_had_time_to_tell() -> None:
    """`postsuper -d ALL` logs when it has deleted all. Without a log nobody can tell more."""
    assert states(compare_one(COPY, missed_before=SOON, has_log=True)) == []
    assert states(compare_one(COPY, missed_before=LOGGED_WITHIN, has_log=True)) == [State.GONE]
    assert states(compare_one(COPY, missed_before=SOON)) == [State.GONE]


def test_a_held_message_that_a_milter_refused_in_the_end_was_never_queued() -> None:
    """The log tells it before ARRIVAL_TIME is over."""
    young = replace(COPY, state=State.PENDING, arrived=NOW)
    comparison = compare_one(young, missed_before=SOON, history=History(is_refused=True))
    assert states(comparison) == [State.NEVER_QUEUED]
    assert comparison.changes[0].why == "a milter refused it"


def test_a_clock_that_was_set_back_leaves_no_copy_between_two_states() -> None:
    """One that arrived, or was first missing, in what is the future now."""
    future = replace(COPY, state=State.PENDING, arrived=NOW + timedelta(days=365))
    assert compare_one(future) == Comparison((), (), {1: NOW}, {})
    assert states(compare_one(future, missed_before=SOON)) == [State.GONE]
    assert compare_one(COPY, missed_before=timedelta(days=-365)) == Comparison((), (), {1: NOW}, {})
