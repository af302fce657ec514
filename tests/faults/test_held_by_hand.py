"""A person changes Postfix's queue with postsuper(1), whatever the steward is doing with the message."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from faults.held import Held, Sent
from lab.waiting import until


def recorded(held: Held) -> Sent:
    """Postfix has taken it; no steward has seen it."""
    return held.send()


def on_hold(held: Held) -> Sent:
    """Its sender was told that it is held."""
    return held.hold()


def asked_for(held: Held) -> Sent:
    """Its release was asked for."""
    sent = held.hold()
    held.office.ask(held.incident(sent), "release", "split")
    return sent


def half_released(held: Held) -> Sent:
    """Its release ended after the first of its recipients."""
    sent = asked_for(held)
    assert held.killed_at("after record_accepted")
    return sent


def reminded(held: Held) -> Sent:
    """It is about to expire."""
    sent = held.hold()
    held.round(timedelta(days=13, hours=1))
    return sent


def delayed(held: Held) -> Sent:
    """It waits for its time to leave."""
    return held.hold("delay")


STATES: list[Callable[[Held], Sent]] = [recorded, on_hold, asked_for, half_released, reminded, delayed]


def words(state: Callable[[Held], Sent]) -> str:
    """The state, for the table."""
    return state.__name__.replace("_", " ")


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("option", ["-h", "-H", "-r", "-d", "-d ALL"])
def test_postsuper(held: Held, state: Callable[[Held], Sent], option: str) -> None:
    """The wish of the person is carried out once; the journal says so, and the sender is told."""
    sent = state(held)
    other = held.send("rewrite")
    verb, *everything = option.split()
    if verb in ("-H", "-r"):
        held.may_show(sent)
        held.may_repeat(sent)
    elif verb == "-d":
        held.may_end(sent)
    held.stage.gateway.settle()
    held.stage.postfix.postsuper(verb, *(everything or [sent.queue_id]))
    held.rounds()
    assert other.number not in held.queued
    held.report(f"`postsuper {option}` on mail that is {words(state)}", "nothing to do")


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_detach(held: Held, state: Callable[[Held], Sent]) -> None:
    """It is refused while mail is held; with --anyway the queue files are renamed, and their records follow them."""
    sent = state(held)
    gateway, postfix = held.stage.gateway, held.stage.postfix
    detach = ("postfix", "detach", "--config-dir", str(postfix.config_dir))
    assert gateway.command(*detach).returncode
    assert sent.number in held.queued
    assert gateway.command(*detach, "--anyway").returncode == 0
    postfix.reload()
    held.rounds()
    assert sent.number in held.queued
    gateway.attach()
    postfix.reload()
    held.rounds()
    held.report(f"Detached, and attached again, with mail that is {words(state)}", "nothing to do")


def test_a_deferred_message_is_put_on_hold(held: Held) -> None:
    """A released message waits for its next hop, and comes to `postsuper -h ALL`: it waits for a person."""
    sent = held.hold()
    postfix = held.stage.postfix
    with postfix.deferring():
        held.office.ask(held.incident(sent), "release", "bcc")
        held.rounds()
        until(lambda: postfix.queue("deferred"), what="the released message to be deferred")
        postfix.postsuper("-h", "ALL")
        held.rounds()
    held.rounds()
    assert sent.number in held.queued
    held.report("`postsuper -h ALL` on a message that was released and waits for its next hop", "release it once more")
