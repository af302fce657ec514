"""When held mail expires: by a reminder, by the time that stewards saw it held, and by the wall clock, all together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from undisclosed.incidents import expiry
from undisclosed.incidents.expiry import Seen, Told

ARRIVED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UNTIL = ARRIVED + timedelta(days=14)
HOUR = 3600.0
DAY = 24 * HOUR

Clock = Callable[[float], float]
"""The wall clock, in seconds since ARRIVED, at a time of the monotonic clock."""


class Life:
    """The life of a held copy: rounds of stewards, and a reminder that is accepted once it is owed."""

    def __init__(self, clock: Clock = lambda seconds: seconds, *, is_told: bool = True) -> None:
        self.clock = clock
        self.is_told = is_told
        self.seen = Seen(0.0, None, None)
        self.told: list[Told] = []
        self.over_at: float | None = None

    def rounds(self, start: float, end: float, every: float = 60.0) -> Life:
        """A steward runs from start to end, by the monotonic clock; a new one each time."""
        last: float | None = None
        at = start
        while at <= end and self.over_at is None:
            now = ARRIVED + timedelta(seconds=self.clock(at))
            self.seen = expiry.seen(
                self.seen,
                UNTIL,
                now=now,
                elapsed=0.0 if last is None else min(at - last, expiry.MAX_ROUND),
                is_reminded=expiry.is_reminded(self.told, UNTIL, now),
            )
            if expiry.owes_reminder(self.told, UNTIL, now):
                self.told.append(Told("sent", now) if self.is_told else Told("suppressed", now))
            if self.seen.is_over:
                self.over_at = at
            last, at = at, at + every
        return self


def test_the_usual_end() -> None:
    """One reminder a day before, and the end an hour after `until`."""
    life = Life().rounds(0, 20 * DAY)
    assert [told.sent_at for told in life.told] == [UNTIL - timedelta(days=1)]
    assert life.over_at == 14 * DAY + HOUR


def test_a_steward_that_was_away_for_15_days() -> None:
    """Its first round adds a reminder; the end is a day later, and not before (hostile review, 1 A)."""
    life = Life().rounds(15 * DAY, 20 * DAY)
    assert [told.sent_at for told in life.told] == [ARRIVED + timedelta(days=15)]
    assert life.over_at == 16 * DAY + 60


def test_a_clock_that_jumps_ahead_for_a_moment() -> None:
    """Nothing ends, and the reminder is sent again in its time (hostile review, 1 B)."""
    life = Life(lambda at: at + 20 * DAY if 2 * DAY <= at < 2 * DAY + 17 * 60 else at).rounds(0, 20 * DAY)
    sent = [told.sent_at for told in life.told]
    assert sent == [ARRIVED + timedelta(days=22), UNTIL - timedelta(days=1)]
    assert life.over_at == 14 * DAY + HOUR


def test_a_reminder_of_a_wrong_clock_counts_for_nothing_after_a_pause() -> None:
    """No round saw the clock put right: the reminder was sent in the future, and nobody knows when."""
    life = Life(lambda at: at + 20 * DAY if at < 3 * DAY else at).rounds(2 * DAY, 2 * DAY + HOUR)
    life.rounds(13.5 * DAY, 20 * DAY)
    assert [told.sent_at for told in life.told] == [ARRIVED + timedelta(days=22), ARRIVED + timedelta(days=13.5)]
    assert life.over_at == 14.5 * DAY + 60


def test_a_copy_whose_reminder_nobody_got_never_ends() -> None:
    """A reminder that was suppressed is none (hostile review, 12)."""
    life = Life(is_told=False).rounds(0, 60 * DAY, every=600.0)
    assert life.over_at is None
    assert len(life.told) == 1


def test_restarts_lose_nothing_and_gain_nothing() -> None:
    """The hours of several stewards add up; the time between them does not count."""
    life = Life()
    for hour in range(400):
        life.rounds(13 * DAY + hour * 2 * HOUR, 13 * DAY + hour * 2 * HOUR + HOUR)
    assert life.over_at is not None
    assert life.over_at - 13 * DAY == pytest.approx(2 * DAY, abs=3 * HOUR)


def test_a_steward_that_stands_still_sees_nothing() -> None:
    """A round adds a minute at most, however long the one before was ago: the host may have been suspended."""
    life = Life().rounds(13 * DAY, 16 * DAY, every=HOUR)
    assert life.over_at is None
    assert life.seen.seconds == 72 * 60


def test_a_clock_that_stands_before_the_end_keeps_the_mail() -> None:
    """Hours seen alone end nothing."""
    assert Life(lambda at: min(at, 13.9 * DAY)).rounds(0, 30 * DAY, every=600.0).over_at is None


def test_two_rounds_past_the_end_with_one_before_it_between() -> None:
    """The hour begins again: the clock was not to be trusted."""
    life = Life(lambda at: at - HOUR if 14 * DAY + 0.5 * HOUR <= at < 14 * DAY + 0.6 * HOUR else at)
    assert life.rounds(0, 20 * DAY).over_at == pytest.approx(14 * DAY + 1.6 * HOUR, abs=60)


@pytest.mark.parametrize(
    ("told", "days", "owed"),
    [
        ([], 12.9, False),
        ([], 13, True),
        ([("due", None)], 13.5, False),
        ([("suppressed", 13)], 13.5, False),
        ([("sent", 13)], 13.5, False),
        ([("sent", 11.9)], 12.5, False),
        ([("sent", 11.9)], 13, True),
        ([("sent", 11.9), ("due", None)], 13.5, False),
        ([("sent", 11.9), ("sent", 13.1)], 13.5, False),
        ([("sent", 22)], 13.5, True),
    ],
)
def test_when_a_reminder_is_owed(told: Iterable[tuple[str, float | None]], days: float, owed: bool) -> None:
    """A day before the end, unless one is under way, counts, or has been suppressed."""
    notices = [
        Told(state, None if at is None else ARRIVED + timedelta(days=at))  # type: ignore[arg-type]
        for state, at in told
    ]
    assert expiry.owes_reminder(notices, UNTIL, ARRIVED + timedelta(days=days)) is owed


def test_the_first_notice_of_mail_that_is_held_for_a_day() -> None:
    """`expire_days = 1`: it is the reminder."""
    assert "held" in expiry.reminders(1)
    assert list(expiry.reminders(2)) == ["reminder"]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([15.0, 60.0, 90000.0]),
            st.sampled_from([1, 60, 1500]),
            st.sampled_from([-40, 0, 1, 13, 14, 20, 400]),
            st.booleans(),
        ),
        max_size=8,
    )
)
@example([(60.0, 1500, 13, False), (60.0, 1500, 14, False)])  # it ends
def test_nothing_ends_unless_it_was_seen_for_a_day_after_a_reminder(steps: list[tuple[float, int, int, bool]]) -> None:
    """For any clock, pauses and restarts: not without a reminder, and a day of rounds of a minute at most after it."""
    seen, at, counted = Seen(0.0, None, None), 0.0, 0.0
    told: list[Told] = []
    reminded_at = math.inf
    for pause, repeat, ahead, is_restarted in steps:
        for number in range(repeat):
            at += pause
            elapsed = 0.0 if is_restarted and number == 0 else min(pause, expiry.MAX_ROUND)
            counted += elapsed
            now = ARRIVED + timedelta(seconds=at + ahead * DAY)
            is_reminded = expiry.is_reminded(told, UNTIL, now)
            seen = expiry.seen(seen, UNTIL, now=now, elapsed=elapsed, is_reminded=is_reminded)
            if expiry.owes_reminder(told, UNTIL, now):
                told.append(Told("sent", now))
                reminded_at = min(reminded_at, counted)
            assert not seen.is_over or (now >= UNTIL and counted - reminded_at >= DAY)


def test_a_notice_that_a_message_is_kept_takes_back_its_reminder() -> None:
    """A reload from `on_expiry = "keep"` to "delete" reminds again, before anything is deleted."""
    day = ARRIVED + timedelta(days=13)
    reminder, later = Told("sent", day), Told("sent", day + timedelta(days=9))
    kept = Told("sent", UNTIL + timedelta(hours=1), "kept")
    assert expiry.not_taken_back([reminder, Told("due", None, "kept")]) == [reminder]
    assert expiry.not_taken_back([reminder, kept]) == []
    assert expiry.owes_reminder([], UNTIL, day + timedelta(days=2))
    assert expiry.not_taken_back([reminder, kept, later, Told("due", None)]) == [later, Told("due", None)]
