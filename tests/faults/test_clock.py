"""A wall clock that stands still or jumps, in the milter alone: no wait and no decision of the milter depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from faults.trial import Trial, fresh
from lab.milter import Milter, unprivileged_user
from lab.waiting import until
from live_postfix.stage import Stage
from support.wall_clock import Clock


class ClockedMilter(Milter):
    """A milter with the clock of a test."""

    clock: Clock

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self.clock.environment


@pytest.fixture
def stage(attached_stage: Stage, clock: Clock) -> Iterator[Stage]:
    """The gateway, with a milter that uses `clock`."""
    gateway = attached_stage.gateway
    gateway.milter.stop()
    usual = gateway.milter
    gateway.milter = ClockedMilter(gateway.config, directory=gateway.state, user=unprivileged_user())
    gateway.milter.clock = clock
    try:
        fresh(attached_stage)
        yield attached_stage
    finally:
        gateway.milter.stop()
        gateway.milter = usual


def times(trial: Trial) -> list[datetime]:
    """The times in the milter's log of its decisions, in the order of the decisions."""
    return [datetime.fromisoformat(event["timestamp"]) for event in trial.logged(event="message")]


@pytest.mark.parametrize(
    ("change", "codes", "fault"),
    [
        (lambda clock: clock.jump(timedelta(hours=-5)), {250, 550}, "The wall clock jumps back by five hours"),
        # libmilter closes sessions that seem to have been silent for ten minutes (worker.c, OLD_SESSION_TIMEOUT).
        (lambda clock: clock.jump(timedelta(days=400)), {250, 451, 550}, "The wall clock jumps ahead by 400 days"),
        (lambda clock: clock.stop(), {250, 550}, "The wall clock stands still"),
    ],
    ids=["back", "ahead", "stopped"],
)
def test_the_clock(trial: Trial, clock: Clock, change: Callable[[Clock], None], codes: set[int], fault: str) -> None:
    """Every message is decided as usual while the clock is wrong, and after it is right again."""
    with trial.load() as load:
        load.go_on(12)
        change(clock)
        load.go_on(12)
        until(trial.as_ever, what="messages to be judged as ever")
        wrong = times(trial)
        clock.jump(timedelta())
        load.go_on(12)
        trial.recover()
    now = datetime.now(UTC)
    assert abs(wrong[-1] - now) > timedelta(hours=4) or wrong[-1] == wrong[-2]
    assert abs(times(trial)[-1] - now) < timedelta(minutes=1)
    assert set(trial.codes()) <= codes
    trial.report(fault, "nothing to do: the milter waits by the monotonic clock")
