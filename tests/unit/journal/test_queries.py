"""Incidents are searched, and found by the beginning of a reference; in SQLite and in PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.factories import transaction
from undisclosed.incidents.records import (
    AmbiguousError,
    NotFoundError,
    State,
)
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
    assert journal.incidents.find("K7QF").state is State.HELD
    assert [len(journal.incidents.search(states=[state])) for state in (State.HELD, State.RELEASED)] == [1, 0]
    assert journal.held.set_state(second.id, State.DELETED)
    assert journal.incidents.find("K7QF").state is State.RELEASED


@pytest.mark.parametrize("prefix", ["K7QF-3M2D", "k7qf3m2d", "K7", "k7qf-", " k7qf-3 "])
def test_a_reference_is_found_by_its_beginning(journal: Journal, prefix: str) -> None:
    """In any case, with and without the dash, with blanks around it."""
    journal.filing.record(transaction())
    journal.filing.record(transaction(reference="ZZZZ-2222", message_id="<2@council.test>"))
    assert journal.incidents.find(prefix).reference == "K7QF-3M2D"


@pytest.mark.parametrize("prefix", ["", "-", "X", "K7QF-3M2D2", "%", "_", "K7QF-3M2%", "'"])
def test_other_text_is_not_a_reference(journal: Journal, prefix: str) -> None:
    """Patterns of SQL and the empty text find no incident."""
    journal.filing.record(transaction())
    with pytest.raises(NotFoundError):
        journal.incidents.find(prefix)


def test_a_beginning_of_several_references_is_ambiguous(journal: Journal) -> None:
    """The error names them, with their times."""
    journal.filing.record(transaction())
    journal.filing.record(
        transaction(reference="K7QF-4444", message_id="<2@council.test>", at=NOON + timedelta(minutes=1))
    )
    with pytest.raises(AmbiguousError, match=r"K7QF-4444 of 2026-.*, K7QF-3M2D of 2026-"):
        journal.incidents.find("k7qf")


def test_one_message_after_hours_is_ambiguous_too(journal: Journal) -> None:
    """Both have one reference: the error names their times, so that a person can choose."""
    journal.filing.record(transaction())
    journal.filing.record(transaction(at=NOON + timedelta(hours=2)))
    with pytest.raises(AmbiguousError, match=r"K7QF-3M2D of .*:00:00, K7QF-3M2D of .*:00:00"):
        journal.incidents.find("K7QF-3M2D")
