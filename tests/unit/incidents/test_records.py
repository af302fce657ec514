"""The parts of a release as values, and the state of an incident."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.incidents.records import AcceptedPart, State, is_complete, least_final, parts_for, places_served


def test_each_run_of_neighbours_is_one_part() -> None:
    """A release of thousands of recipients is a few rows."""
    assert parts_for("split", [9, 0, 1, 2, 7, 10], 12) == (
        AcceptedPart("split", 0, 2, 12),
        AcceptedPart("split", 7, 7, 12),
        AcceptedPart("split", 9, 10, 12),
    )


@given(st.frozensets(st.integers(0, 60)))
def test_parts_serve_the_places_they_were_made_of(places: frozenset[int]) -> None:
    """No recipient is lost, and none is added."""
    assert places_served(parts_for("bcc", places, 61)) == places


def test_a_part_reads_as_people_count() -> None:
    """From 1."""
    assert ", ".join(map(str, parts_for("split", [0, 1, 2, 7], 12))) == "split 1-3/12, split 8/12"


@pytest.mark.parametrize(
    ("parts", "complete"),
    [
        (parts_for("bcc", range(3), 3), True),
        (parts_for("split", [0], 3) + parts_for("bcc", [1, 2], 3), True),
        (parts_for("split", [0, 2], 3), False),
        ((), False),
    ],
)
def test_a_release_is_complete_when_every_recipient_has_it(parts: tuple[AcceptedPart, ...], complete: bool) -> None:
    """The parts alone say so: the held message may be gone."""
    assert is_complete(parts) is complete


def test_every_state_has_its_place_among_the_others() -> None:
    """An incident with a copy in a state that is missing there would have no state."""
    assert {least_final([state]) for state in State} == set(State)
