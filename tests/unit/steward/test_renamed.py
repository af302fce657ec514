"""Following copies to queue files with other names: never to the file of another message."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.letters import CROWD, Letter
from model.machine import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A simulated Postfix with a steward; at its end everything settles, and the sums are taken."""
    machine = Machine()
    yield machine
    machine.teardown()


def test_a_message_without_message_id_does_not_take_the_place_of_another(machine: Machine) -> None:
    """Of the same size and second. The deleted one would leave by itself; the other waits for a person."""
    world = machine.world
    world.start()
    deleted = world.send(Letter(1, "delay@council.test", crowd=True, message_id=None), CROWD[:2])
    world.work(5)
    world.stop()
    world.faults.milter_journal_fails = True
    waiting = world.send(Letter(2, "other@council.test", crowd=True, message_id=None), CROWD[2:4])
    world.faults.milter_journal_fails = False
    assert deleted is not None
    assert waiting is not None
    assert deleted.file.size == waiting.file.size
    world.postfix.run("postsuper", "-d", deleted.file.queue_id)
    world.note_deleted(by_steward=False)
    world.start()
    world.work_long(7200)
    assert [file.queue_id for file in world.postfix.files.values() if file.queue == "hold"] == [waiting.file.queue_id]
