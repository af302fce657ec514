"""times.py and selection.py: times and states as people type and read them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import typer

from undisclosed.cli.selection import Filter, Which, parse_state
from undisclosed.cli.times import age, at_time, local_time, near_time, parse_time, utc_time
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


@pytest.fixture
def in_london(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This host's time zone is that of London."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/London")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_london")
def test_a_day_begins_at_midnight_of_this_hosts_clock() -> None:
    """`today` and `yesterday` are days of the people who type them, not of UTC."""
    summer = datetime(2026, 7, 1, 23, 30, tzinfo=UTC)  # half past midnight on the second
    times = [parse_time(text, summer) for text in ("today", "Yesterday", "2026-07-01")]
    assert times == [datetime(2026, 7, day, 23, tzinfo=UTC) - timedelta(days=1) for day in (2, 1, 1)]


@pytest.mark.usefixtures("in_london")
def test_people_read_local_times_with_their_offset_and_programs_utc() -> None:
    """A table's time can be typed into --since; a spreadsheet reads the other form as a time (users' walk, 29)."""
    winter, summer = datetime(2026, 1, 1, 12, 5, 9, tzinfo=UTC), datetime(2026, 7, 1, 12, 5, 9, tzinfo=UTC)
    assert [local_time(moment) for moment in (winter, summer, None)] == [
        "2026-01-01 12:05+00:00",
        "2026-07-01 13:05+01:00",
        "-",
    ]
    assert parse_time(local_time(summer, "seconds"), NOW) == summer
    assert [utc_time(moment) for moment in (summer, None)] == ["2026-07-01 12:05:09", ""]


@pytest.mark.usefixtures("in_london")
def test_a_near_time_is_short() -> None:
    """Hours for today, the name of the day within a week, else the date."""
    now = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    moments = [now + timedelta(minutes=5), now + timedelta(days=1), now + timedelta(days=13), now - timedelta(days=7)]
    assert [near_time(moment, now) for moment in moments] == ["13:05", "Thu 13:00", "2026-07-14", "2026-06-24"]
    assert [at_time(moment, now) for moment in moments[:2]] == ["at 13:05", "on 2026-07-02 at 13:00"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(61, "61 seconds"), (180, "3 minutes"), (7199, "119 minutes"), (7200, "2 hours"), (200_000, "2 days")],
)
def test_an_age_has_one_unit(seconds: int, expected: str) -> None:
    """Whole units, and at least two of them."""
    assert age(timedelta(seconds=seconds)) == expected


@pytest.mark.parametrize("text", ["tomorrow", "", "7", "7y", "2026-13-01"])
def test_a_text_that_is_not_a_time_is_refused(text: str) -> None:
    """The error has correct examples."""
    with pytest.raises(ValueError, match='"7d"'):
        parse_time(text, NOW)


def test_states_are_typed_as_people_do() -> None:
    """With dashes or blanks, in any case; an unknown one is refused with the known ones."""
    wanted = Filter.of(Which(), states=["Never-Queued", "HELD", "handed to postfix"])
    assert wanted.states == (State.NEVER_QUEUED, State.HELD, State.DELIVERED)
    assert wanted.limit is None
    with pytest.raises(ValueError, match="released-by-hand"):
        parse_state("lost")


def test_an_empty_option_selects_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A variable that is not set must not select all mail with a null sender, or without a rule."""
    assert (Filter.of(Which(sender="<>")).sender, Filter.of(Which(rule="(none)")).rule) == ("", "")
    for which in (Which(sender=""), Which(sender=" "), Which(rule="")):
        with pytest.raises(typer.Exit):
            Filter.of(which)
    assert '--sender is empty; --sender "<>" selects messages without one' in capsys.readouterr().err


def test_a_hint_repeats_no_escape_sequence() -> None:
    """A sender that was copied from a message may have one."""
    assert Filter(sender="a\x1b[2J").hint.endswith("such as a\\x1b[2J@*")
