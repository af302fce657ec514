"""The steward's clock jumps or stops while mail is on hold, or the steward was away: nothing is deleted by that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from faults.held import Held
from lab.steward import Steward
from support.wall_clock import Clock


class ClockedSteward(Steward):
    """A steward with the clock of a test. Postfix's tools, which its root half starts, have the machine's."""

    clock: Clock

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self.clock.environment


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda clock: clock.jump(timedelta(days=20)), "The steward's clock jumps ahead by 20 days, and back"),
        (lambda clock: clock.jump(timedelta(days=400)), "The steward's clock jumps ahead by 400 days, and back"),
        (lambda clock: clock.jump(timedelta(hours=-5)), "The steward's clock jumps back by five hours"),
        (lambda clock: clock.stop(), "The steward's clock stands still"),
    ],
    ids=["20 days ahead", "400 days ahead", "back", "stopped"],
)
def test_the_stewards_clock(held: Held, clock: Clock, change: Callable[[Clock], None], fault: str) -> None:
    """Held mail stays held and its record stays, what comes meanwhile is held and told as ever."""
    before = [held.send(), held.send("delay")]
    steward = held.process(ClockedSteward, clock=clock)
    held.wait_until_told(*before)
    change(clock)
    meanwhile = held.send()
    held.process_rounds(steward)
    clock.jump(timedelta())
    held.process_rounds(steward)
    held.wait_until_told(meanwhile)
    assert {before[0].number, meanwhile.number} <= held.queued
    assert {copy.state.value for sent in (before[0], meanwhile) for copy in held.incident(sent).copies} == {"held"}
    held.report(fault, "nothing to do, once the clock is right")


def test_the_steward_was_away(held: Held) -> None:
    """Mail that was held for 15 days before the steward's first round: its sender is told first."""
    sent = held.send()
    held.ahead = timedelta(days=15)
    held.rounds()
    assert sent.number in held.queued
    held.stage.gateway.settle()
    assert held.told(sent)
    held.report("The steward starts 15 days after the mail was held", "nothing to do")


@pytest.mark.parametrize("action", ["delay", "split", "rewrite"])
def test_the_steward_was_away_for_longer_than_a_delay(held: Held, action: str) -> None:
    """Mail that leaves in the steward's first round: its sender is told what was done with it."""
    sent = held.send(action)
    held.ahead = timedelta(hours=1)
    held.rounds()
    held.stage.gateway.settle()
    assert sent.number not in held.queued
    held.report(f"The steward starts an hour after the message, under `{action}`", "nothing to do")


def test_the_clock_was_in_the_past(held: Held) -> None:
    """Mail held while the clock stood at 1970, as without a battery: it does not expire when the clock is set."""
    sent = held.send()
    held.ahead = timedelta(days=-20_000)
    held.rounds()
    held.ahead = timedelta()
    held.rounds()
    assert sent.number in held.queued
    held.report("The clock is 20,000 days behind when the mail is held, then right", "nothing to do")


def test_mail_of_before_the_installation(held: Held) -> None:
    """Mail that a person put on hold, 15 days before the first round: it is not the steward's to delete."""
    postfix = held.stage.postfix
    with postfix.deferring():
        sent = held.send_past_the_milter()
        postfix.postsuper("-h", "ALL")
    held.ahead = timedelta(days=15)
    held.rounds()
    held.ahead = timedelta(days=30)
    held.rounds()
    assert sent.number in held.queued
    held.report("A hold queue that existed before the steward, 15 and 30 days on", "nothing to do")
