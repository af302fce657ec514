"""The journal locked by another program between two steps of the steward: a backup, a report, a slow disk."""

from __future__ import annotations

import pytest

from faults.held import PEOPLE, Held
from undisclosed.incidents.records import JournalError

STEPS = (
    "before set_state held",
    "before take",
    "after take",
    "before begin_release",
    "before send",
    "after send",
    "after record_accepted",
    "before delete",
    "after delete",
    "after set_state released",
    "before answer",
)
"""The calls of a round that holds one message and releases another."""


def test_between_record_and_filing(held: Held) -> None:
    """The milter has recorded it, Postfix has said 250, and it cannot be filed: it is not adopted as another copy."""
    sent = held.send("delay")
    with held.locked(), pytest.raises(JournalError):
        held.round()
    held.rounds()
    [copy] = held.incident(sent).copies
    request = held.office.ask(held.incident(sent), "release", "bcc")
    held.rounds()
    assert (held.office.answer(request)[0], copy.queue_id) == ("done", sent.queue_id)
    held.report("The journal locked between the milter's record and its filing", "by itself, once the lock is gone")


def test_at_a_request(held: Held) -> None:
    """A command that comes to a locked journal says so, and nothing was asked: asking again is right."""
    sent = held.hold()
    with held.locked(), pytest.raises(JournalError):
        held.office.ask(held.incident(sent), "release", "bcc")
    assert held.office.journal.held.requests(gateway=held.office.context.gateway) == []
    held.office.ask(held.incident(sent), "release", "bcc")
    held.rounds()
    held.report("The journal locked while a command asks for a release", "ask again")


def test_at_an_adoption(held: Held) -> None:
    """Mail that a person put on hold is recorded once."""
    postfix = held.stage.postfix
    with postfix.deferring():
        sent = held.send("ordinary")
        postfix.postsuper("-h", "ALL")
    assert held.locked_at("before adopt")
    held.rounds()
    [_] = held.incident(sent).copies
    held.report("The journal locked at an adoption", "by itself, once the lock is gone")


@pytest.mark.parametrize("step", STEPS)
def test_between_two_steps(held: Held, step: str) -> None:
    """A release that comes to a locked journal is finished once the lock is gone, and nobody gets a second copy."""
    sent = held.hold(people=PEOPLE[:3])
    held.office.ask(held.incident(sent), "release", "split")
    held.send()
    if not held.locked_at(step):
        pytest.fail(f"no round comes to {step}")
    held.rounds()
    assert {copy.state.value for copy in held.incident(sent).copies} == {"released"}
    held.report(f"The journal locked {step} of a release", "by itself, once the lock is gone")
