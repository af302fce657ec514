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


def held(machine: Machine, sender: str) -> None:
    """A letter that shows too many, of a sender whose rule has the action of its name."""
    machine.world.send(Letter(1, sender, crowd=True, message_id=1), CROWD[:2])


def test_a_delayed_message_that_is_first_seen_when_it_leaves(machine: Machine) -> None:
    """The steward was away for longer than `hold.delay`: the notice that the message waits is not true any more."""
    held(machine, "delay@council.test")
    machine.world.tick(3600)
    machine.world.start()
    machine.world.work(30)
    [told] = machine.world.told
    assert (told.kind, told.recipient) == ("released", "delay@council.test")


def test_a_release_that_a_person_asked_for_and_that_failed(machine: Machine) -> None:
    """The rule's own release had been withdrawn for it: half of a split was sent, the rest never, and nobody told."""
    held(machine, "split@council.test")
    machine.ask(which=0, choice="split", actor="admin", trouble=("the listener answers", "250", "451 to RCPT"))
    machine.world.start()
    machine.world.work_long(7200)
    assert {recipient for delivery in machine.world.postfix.deliveries for recipient in delivery.recipients} == {
        *CROWD[:2]
    }
    assert machine.world.told[-1].recipient == "split@council.test"


def test_a_request_that_is_refused_does_not_keep_a_delayed_message(machine: Machine) -> None:
    """A sender may not choose `unchanged`; the message leaves hidden as its rule says."""
    held(machine, "delay@council.test")
    machine.world.start()
    machine.world.work(5)
    machine.ask(which=0, choice="unchanged", actor="sender", trouble=("none",))
    machine.world.work_long(900)
    assert not machine.world.holds
