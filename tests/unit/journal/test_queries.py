"""Incidents are searched, and found by the beginning of a reference; in SQLite and in PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.factories import transaction
from undisclosed.incidents.records import State, parts_for
from undisclosed.journal.journal import Journal

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_incidents_are_filtered_and_the_newest_come_first(journal: Journal) -> None:
    """By sender (a glob in any case; % and _ are ordinary characters), rule, time, state and number."""
    for number, (sender, rule, treatment) in enumerate(
        [
            ("clerk@council.test", "a", "hold"),
            ("head_1@council.test", "b", "reject"),
            ("head-1@other.test", "b", "hold"),
        ]
    ):
        journal.filing.record(
            transaction(
                reference=f"2222-222{number + 2}",
                message_id=f"<{number}@council.test>",
                queue_id=f"4dX{number}",
                sender=sender,
                rule=rule,
                treatment=treatment,
                at=NOON + timedelta(hours=number),
            )
        )

    def found(**filters: Any) -> list[str]:
        return [incident.sender for incident in journal.incidents.search(**filters)]

    assert found() == ["head-1@other.test", "head_1@council.test", "clerk@council.test"]
    assert found(sender="*@COUNCIL.test") == ["head_1@council.test", "clerk@council.test"]
    assert found(sender="head_1@*") == ["head_1@council.test"]
    assert found(sender="%") == []
    assert found(rule="b", limit=1) == ["head-1@other.test"]
    assert found(since=NOON + timedelta(hours=1)) == ["head-1@other.test", "head_1@council.test"]
    assert found(states={State.REJECTED}) == ["head_1@council.test"]
    assert found(states={State.PENDING, State.REJECTED}) == found()


def test_an_incidents_state_is_that_of_its_least_final_copy(journal: Journal) -> None:
    """An incident is held while one copy is; the filter by state agrees."""
    first = journal.filing.record(transaction())
    second = journal.filing.record(transaction(gateway="mx2", queue_id="4dX2"))
    assert journal.held.set_state(first.id, State.RELEASED)
    assert journal.held.set_state(second.id, State.HELD)
    assert journal.incidents.matching("K7QF")[0].state is State.HELD
    assert [len(journal.incidents.search(states=[state])) for state in (State.HELD, State.RELEASED)] == [1, 0]
    assert journal.held.set_state(second.id, State.DELETED)
    assert journal.incidents.matching("K7QF")[0].state is State.RELEASED


@pytest.mark.parametrize("prefix", ["K7QF-3M2D", "k7qf3m2d", "K7", "k7qf-", " k7qf-3 "])
def test_a_reference_is_found_by_its_beginning(journal: Journal, prefix: str) -> None:
    """In any case, with and without the dash, with blanks around it."""
    journal.filing.record(transaction())
    journal.filing.record(transaction(reference="ZZZZ-2222", message_id="<2@council.test>"))
    assert [found.reference for found in journal.incidents.matching(prefix)] == ["K7QF-3M2D"]


@pytest.mark.parametrize("prefix", ["", "-", "X", "K7QF-3M2D2", "%", "_", "K7QF-3M2%", "'"])
def test_other_text_is_not_a_reference(journal: Journal, prefix: str) -> None:
    """Patterns of SQL and the empty text find no incident."""
    journal.filing.record(transaction())
    assert journal.incidents.matching(prefix) == []


def test_a_beginning_of_several_references_finds_all(journal: Journal) -> None:
    """The newest first; one message after more than an hour is another incident with the same reference."""
    journal.filing.record(transaction())
    journal.filing.record(
        transaction(reference="K7QF-4444", message_id="<2@council.test>", at=NOON + timedelta(minutes=1))
    )
    journal.filing.record(transaction(at=NOON + timedelta(hours=2)))
    found = [(incident.reference, incident.at - NOON) for incident in journal.incidents.matching("k7qf")]
    assert found == [
        ("K7QF-3M2D", timedelta(hours=2)),
        ("K7QF-4444", timedelta(minutes=1)),
        ("K7QF-3M2D", timedelta()),
    ]


def test_the_end_of_a_copy_is_known_by_its_event(journal: Journal) -> None:
    """The actor and the time of a release or a deletion, for each copy that is not held any more."""
    first, second = (journal.filing.record(transaction(queue_id=f"4dX1c23kLmz{number}")) for number in "12")
    assert journal.held.set_state(first.id, State.RELEASED, actor="alice", why="as bcc")
    endings = journal.incidents.endings([first.id, second.id])
    assert [(copy_id, event.actor, event.what) for copy_id, event in endings.items()] == [
        (first.id, "alice", "released")
    ]


def test_the_accepted_parts_of_many_copies_are_read_at_once(journal: Journal) -> None:
    """Copies of which Postfix has accepted nothing are left out."""
    first, second = (journal.filing.record(transaction(queue_id=f"4dX1c23kLmz{number}")) for number in "12")
    parts = parts_for("unchanged", [0, 1], 2)
    journal.held.record_accepted(second.id, parts)
    assert journal.incidents.accepted_parts([first.id, second.id]) == {second.id: set(parts)}
