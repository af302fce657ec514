"""The steward killed at each step of a release and of an expiry."""

from __future__ import annotations

from datetime import timedelta

import pytest

from faults.held import PEOPLE, Held

RELEASE = (
    "before take",
    "after take",
    "before begin_release",
    "after begin_release",
    "before send",
    "after send",
    "after record_accepted",
    "before delete",
    "after delete",
    "after set_state released",
    "before answer",
    "after answer",
)

EXPIRY = ("before read", "before add_event", "after add_event", "before delete", "after delete")


@pytest.mark.parametrize("step", RELEASE)
def test_a_release(held: Held, step: str) -> None:
    """The next steward finishes it; a second copy comes only after a kill between a 250 and its record."""
    sent = held.hold(people=PEOPLE[:3])
    held.office.ask(held.incident(sent), "release", "split")
    if not held.killed_at(step):
        pytest.fail(f"no round comes to {step}")
    if step == "after send":
        held.may_repeat(sent)
    held.rounds()
    assert {copy.state.value for copy in held.incident(sent).copies} == {"released"}
    held.report(f"The steward killed {step} of a release", "by itself: systemd starts it again")


@pytest.mark.parametrize("step", EXPIRY)
def test_an_expiry(held: Held, step: str) -> None:
    """The next steward finishes it: the message is gone, and its sender told so."""
    sent = held.hold()
    held.about_to_expire(sent)
    if not held.killed_at(step, later=timedelta(seconds=1)):
        pytest.fail(f"no round comes to {step}")
    held.rounds()
    assert sent.number not in held.queued
    assert {copy.state.value for copy in held.incident(sent).copies} == {"expired"}
    held.report(f"The steward killed {step} of an expiry", "by itself: systemd starts it again")
