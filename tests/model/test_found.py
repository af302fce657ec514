"""Sequences in which the model test has found a sum that was not zero."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.letters import CROWD, Letter
from model.machine import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine that the test drives; at its end everything settles, and the sums are taken."""
    machine = Machine()
    yield machine
    machine.teardown()


def test_a_delayed_message_that_is_first_seen_when_it_leaves(machine: Machine) -> None:
    """The steward was away for longer than `hold.delay`: the notice that the message waits is not true any more."""
    machine.world.send(Letter(1, "delay@council.test", crowd=True, message_id=1), CROWD[:2])
    machine.world.tick(3600)
    machine.world.start()
    machine.world.work(30)
    [told] = machine.world.told
    assert (told.kind, told.recipient) == ("released", "delay@council.test")
