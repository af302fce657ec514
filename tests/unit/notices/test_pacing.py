"""How many notices a person gets, and that nothing is left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.notices.pacing import DIGEST_PERIOD, MAX_NOTICES, PERIOD, Told, digest_is_due, plan

NOW = datetime(2026, 11, 19, 14, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Owed:
    """A notice that is owed."""

    due: datetime


def owed(count: int, age: timedelta = timedelta()) -> list[Owed]:
    """So many notices that are owed for so long."""
    return [Owed(NOW - age) for _ in range(count)]


def told(count: int, age: timedelta = MINUTE, is_summary: bool = False) -> list[Told]:
    """So many messages that were sent so long ago."""
    return [Told(NOW - age, is_summary) for _ in range(count)]


def shape(owed: list[Owed], told: Iterable[Told] = ()) -> tuple[int, int, timedelta | None]:
    """The numbers of single notices and of those in a summary, and the time to wait for the rest."""
    found = plan(owed, told, NOW)
    wait = None if found.wait_until is None else found.wait_until - NOW
    return len(found.single), len(found.summary), wait


@pytest.mark.parametrize(
    ("owes", "sent", "expected"),
    [
        (owed(1), [], (1, 0, None)),
        (owed(20), [], (20, 0, None)),
        (owed(25), [], (20, 0, 5 * MINUTE)),
        (owed(25, age=5 * MINUTE), [], (20, 5, None)),
        (owed(5, age=5 * MINUTE), told(20), (0, 5, None)),
        (owed(5, age=MINUTE), told(20), (0, 0, 4 * MINUTE)),
        (owed(5, age=30 * MINUTE), [*told(20, age=40 * MINUTE), *told(1, is_summary=True)], (0, 0, 20 * MINUTE)),
        (owed(5, age=30 * MINUTE), [*told(20, age=HOUR), *told(1, is_summary=True)], (5, 0, None)),
        (owed(1), told(1, is_summary=True), (1, 0, None)),
        (owed(25), told(20, age=-MINUTE), (20, 0, 5 * MINUTE)),
    ],
)
def test_past_the_limit_the_rest_is_summed_up(
    owes: list[Owed], sent: list[Told], expected: tuple[int, int, timedelta | None]
) -> None:
    """20 single notices within an hour and one summary; a time in the future, by a wrong clock, counts for nothing
    (walk as users, 13)."""
    assert shape(owes, sent) == expected


@pytest.mark.parametrize(
    ("owes", "expected"),
    [
        (owed(1, age=25 * HOUR), (1, 0, None)),
        (owed(2, age=25 * HOUR), (0, 2, None)),
        ([*owed(3, age=25 * HOUR), *owed(2)], (2, 3, None)),
        ([*owed(3, age=25 * HOUR), *owed(22)], (20, 5, None)),
    ],
)
def test_what_is_owed_for_more_than_a_day_goes_as_one_summary(
    owes: list[Owed], expected: tuple[int, int, timedelta | None]
) -> None:
    """The steward was away (hostile review, 13). One alone is a notice of its own, which says more."""
    assert shape(owes) == expected


@given(
    ages=st.lists(st.integers(0, 3000), max_size=60),
    sent=st.lists(st.tuples(st.integers(-10, 90), st.booleans()), max_size=30),
)
def test_nobody_gets_more_and_nothing_is_lost(ages: list[int], sent: list[tuple[int, bool]]) -> None:
    """A notice that is neither sent nor summed up stays owed, with a time at which it is planned again."""
    owes = sorted((Owed(NOW - age * MINUTE) for age in ages), key=lambda one: one.due)
    before = [Told(NOW - age * MINUTE, is_summary) for age, is_summary in sent]
    found = plan(owes, before, NOW)
    recent = [one for one in before if NOW - PERIOD < one.at <= NOW]
    singles = sum(not one.is_summary for one in recent)
    assert not found.single or singles + len(found.single) <= MAX_NOTICES
    assert not found.summary or not any(one.is_summary for one in recent)
    left = len(owes) - len(found.single) - len(found.summary)
    assert left >= 0
    assert (found.wait_until is not None) == (left > 0)
    assert found.wait_until is None or NOW < found.wait_until <= NOW + PERIOD


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, True),
        (NOW - DIGEST_PERIOD, True),
        (NOW - DIGEST_PERIOD + MINUTE, False),
        (NOW + MINUTE, True),
    ],
)
def test_one_digest_a_day(last: datetime | None, expected: bool) -> None:
    """The first one at once; after a clock that was ahead, the next one too."""
    assert digest_is_due(last, NOW) is expected
