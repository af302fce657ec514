"""What the steward makes of the hold queue, and of what stands in the journal: values in, values out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.factories import policy
from undisclosed.incidents.records import AcceptedPart, Incident, QueueCopy, Request, State, parts_for
from undisclosed.policy import Action
from undisclosed.steward.authorize import copy_refusal, not_before, refusal
from undisclosed.steward.hold_queue import Entry, Listing
from undisclosed.steward.privileged import QUEUE_ID
from undisclosed.steward.reconcile import GRACE, Survey, Traces, survey

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COPY = QueueCopy(
    id=1, incident_id=7, gateway="mx1", queue_id="4jXkbq5QPvzJ9sp", message_id="<1@council.test>", client="127.0.0.1",
    recipients=3, state=State.HELD, arrived=NOW - timedelta(hours=1), size=1000,
)  # fmt: skip
ENTRY = Entry("4jXkbq5QPvzJ9sp", COPY.arrived, 1000, "clerk@council.test", 3)


def look(
    copy: QueueCopy,
    entry: Entry | None = None,
    *,
    elsewhere: bool = False,
    missed: bool = False,
    traces: Traces | None = None,
) -> Survey:
    """A survey of one copy."""
    held = {} if entry is None else {entry.queue_id: entry}
    others = frozenset([copy.queue_id] if elsewhere else [])
    found = {copy.id: traces} if traces else {}
    return survey(Listing(held, others), [copy], found, now=NOW, missed={copy.id} if missed else ())


def states(seen: Survey) -> list[State]:
    """The new states."""
    return [change.state for change in seen.changes]


def test_what_is_held_stays_so() -> None:
    """Nothing changes, and nothing is unknown."""
    assert look(COPY, ENTRY) == Survey((), (), frozenset())


def test_a_pending_copy_is_held_once_it_is_seen() -> None:
    """Also where its client took long to send it, so that it began to arrive before the record."""
    early = replace(ENTRY, arrived=COPY.arrived - timedelta(minutes=30))
    assert states(look(replace(COPY, state=State.PENDING, size=None), early)) == [State.HELD]


def test_a_pending_copy_has_time_to_arrive() -> None:
    """Postfix may be writing it; later it was never queued, if two listings lack it."""
    young = replace(COPY, state=State.PENDING, arrived=NOW - GRACE / 2)
    assert look(young) == Survey((), (), frozenset())
    old = replace(COPY, state=State.PENDING)
    assert look(old) == Survey((), (), frozenset({1}))
    assert states(look(old, missed=True)) == [State.NEVER_QUEUED]


def test_one_listing_may_miss_a_message() -> None:
    """Only what two in a row lack is gone, unless it is seen in another queue."""
    assert look(COPY) == Survey((), (), frozenset({1}))
    assert states(look(COPY, missed=True)) == [State.RELEASED_BY_HAND]
    assert states(look(COPY, elsewhere=True)) == [State.RELEASED_BY_HAND]


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, size=999),
        replace(ENTRY, arrived=NOW),
        replace(ENTRY, arrived=COPY.arrived - timedelta(hours=2)),
    ],
)
def test_another_message_with_the_same_queue_id_is_another_message(entry: Entry) -> None:
    """Short ids are used again: the copy is gone, and what is there is nobody's yet."""
    seen = look(COPY, entry, missed=True)
    assert (states(seen), seen.unknown) == ([State.RELEASED_BY_HAND], (entry,))


@pytest.mark.parametrize(
    ("taken", "state"),
    [
        (parts_for("bcc", range(3), 3), State.RELEASED),
        (parts_for("split", [0], 3) + parts_for("split", [1, 2], 3), State.RELEASED),
        (parts_for("split", [0], 3), None),
    ],
)
def test_a_release_that_was_finished_but_not_recorded(taken: tuple[AcceptedPart, ...], state: State | None) -> None:
    """The steward died between the deletion and its record: the parts tell, and one look is enough."""
    seen = look(replace(COPY, state=State.RELEASING), traces=Traces(taken))
    assert states(seen) == ([state] if state else [])


def test_a_deletion_that_was_finished_but_not_recorded() -> None:
    """It gets the state that it was to have."""
    assert states(look(COPY, traces=Traces(deleting=State.EXPIRED))) == [State.EXPIRED]


def test_a_message_taken_away_in_the_midst_of_a_release() -> None:
    """Who has it already is said."""
    seen = look(replace(COPY, state=State.RELEASING), missed=True, traces=Traces(parts_for("split", [0, 1], 3)))
    assert states(seen) == [State.RELEASED_BY_HAND]
    assert "2 recipients had been served" in seen.changes[0].why


INCIDENT = Incident(
    id=7, reference="K7QF-3M2D", at=NOW, sender="clerk@council.test", message_id="<1@council.test>", adopted=False,
    rule="r", action=Action.DELAY, reason="", obstacle=None, count=12, organisations=12, named=0, per_field={},
    subject=None, automatic=False, copies=(COPY,),
)  # fmt: skip
REQUEST = Request(
    id=1, incident_id=7, copy_id=None, verb="release", mode="bcc", actor="admin", reason="", state="open", answer=None,
    at=NOW, not_before=None,
)  # fmt: skip


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"mode": "split"},
        {"mode": "unchanged"},
        {"verb": "delete", "mode": None},
        {"copy_id": 1},
        {"actor": "sender clerk@council.test"},
        {"actor": "steward", "not_before": NOW + timedelta(minutes=5)},
    ],
)
def test_requests_that_may_be_carried_out(over: dict[str, Any]) -> None:
    """Administrators may choose every way, senders those of hold.sender_may, the steward that of the rule."""
    assert refusal(policy(), replace(REQUEST, **over), INCIDENT) is None


@pytest.mark.parametrize(
    "over",
    [
        {"verb": "forward"},
        {"verb": "release", "mode": None},
        {"mode": "ALL"},
        {"mode": "delete"},
        {"verb": "delete"},
        {"incident_id": 8},
        {"copy_id": 2},
        {"actor": " "},
        {"actor": "sender", "mode": "unchanged"},
        {"actor": "steward", "mode": "unchanged"},
        {"actor": "steward", "mode": "split", "not_before": NOW + timedelta(minutes=5)},
        {"actor": "steward", "verb": "delete", "mode": None},
    ],
)
def test_requests_that_must_be_refused(over: dict[str, Any]) -> None:
    """Whoever wrote them into the journal."""
    assert refusal(policy(), replace(REQUEST, **over), INCIDENT)


@pytest.mark.parametrize(
    ("over", "minutes"),
    [
        ({"actor": "steward"}, 5),
        ({"actor": "steward", "not_before": NOW + timedelta(minutes=4)}, 5),
        ({"actor": "steward", "not_before": NOW + timedelta(minutes=9)}, 9),
        ({"not_before": NOW + timedelta(minutes=1)}, 1),
    ],
)
def test_a_delay_is_kept_whatever_the_row_says(over: dict[str, Any], minutes: int) -> None:
    """Also where hold.delay has grown since; an administrator may send it sooner."""
    assert not_before(policy(), replace(REQUEST, **over), INCIDENT) == NOW + timedelta(minutes=minutes)
    assert not_before(policy(), REQUEST, INCIDENT) is None


def test_what_a_sender_may_do_is_the_policys_to_say() -> None:
    """An organisation may keep every decision to itself, or leave all of them to its people."""
    wish = replace(REQUEST, actor="sender clerk@council.test", mode="unchanged")
    assert refusal(policy(hold={"sender_may": ["unchanged"]}), wish, INCIDENT) is None
    assert refusal(policy(hold={"sender_may": []}), replace(wish, mode="bcc"), INCIDENT)


@pytest.mark.parametrize("queue_id", ["4jXkbq5QPvzJ9sp", "3F2A1B", "0123456789ABCDEF"])
def test_queue_ids(queue_id: str) -> None:
    """The short form and the long one."""
    assert QUEUE_ID.fullmatch(queue_id)
    assert copy_refusal(replace(COPY, queue_id=queue_id)) is None


@pytest.mark.parametrize(
    "queue_id",
    ["ALL", "-", "", "hold", "3F2A1", "3f2a1b", "../3F2A1B", "3F2A1B 3F2A1C", "3F2A1B\n", "-d3F2A1B", "\uff13F2A1B"],
)
def test_no_queue_ids(queue_id: str) -> None:
    """Neither postsuper's magic words, nor an option, a path, or two at once."""
    assert not QUEUE_ID.fullmatch(queue_id)
    assert copy_refusal(replace(COPY, queue_id=queue_id))
