"""common.py: times and states as people type them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from undisclosed.cli.common import Filter, parse_state, parse_time
from undisclosed.incidents.records import State

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12 h", NOW - timedelta(hours=12)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-02-28T10:00:00+01:00", datetime(2026, 2, 28, 9, 0, tzinfo=UTC)),
    ],
)
def test_a_time_is_read(text: str, expected: datetime) -> None:
    """As an age, or in ISO 8601."""
    assert parse_time(text, NOW) == expected


def test_a_day_begins_at_midnight_of_this_hosts_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """`today` and `yesterday` are days of the people who type them, not of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/London")
        time.tzset()
        summer = datetime(2026, 7, 1, 23, 30, tzinfo=UTC)  # half past midnight on the second
        times = [parse_time(text, summer) for text in ("today", "Yesterday", "2026-07-01")]
    time.tzset()
    assert times == [datetime(2026, 7, day, 23, tzinfo=UTC) - timedelta(days=1) for day in (2, 1, 1)]


@pytest.mark.parametrize("text", ["tomorrow", "", "7", "7y", "2026-13-01"])
def test_a_text_that_is_not_a_time_is_refused(text: str) -> None:
    """The error has correct examples."""
    with pytest.raises(ValueError, match='"7d"'):
        parse_time(text, NOW)


def test_states_are_typed_as_people_do() -> None:
    """With dashes or blanks, in any case; an unknown one is refused with the known ones."""
    wanted = Filter.from_options(sender=None, rule=None, since=None, states=["Never-Queued", "held"], limit=0)
    assert wanted.states == (State.NEVER_QUEUED, State.HELD)
    assert wanted.limit is None
    with pytest.raises(ValueError, match="released-by-hand"):
        parse_state("lost")
