"""Many messages in one SMTP session: each gets its own final answer, and no state of another one."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lab.client import Client
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.stage import Stage, attached
from support.delivered_header import leaks
from support.factories import rule, strangers

RULES = [
    rule(name=f"{word}", senders=[f"{word}@council.test"], action=word)
    for word in ("accept", "warn", "rewrite", "quarantine")
] + [rule(name="everybody else")]


@pytest.fixture(scope="module")
def attached_stage(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Stage]:
    """The gateway of this file's tests."""
    with attached(installed_postfix, outside) as stage:
        yield stage


@pytest.fixture
def stage(attached_stage: Stage) -> Stage:
    """The gateway, with a rule for each action: the envelope sender chooses."""
    attached_stage.policy("reject", rules=RULES)
    return attached_stage


def letter(number: int, sender: str, people: int) -> bytes:
    """A message to this number of people; its Subject identifies it."""
    lines = (f"From: {sender}", "To: " + ", ".join(strangers(people)), f"Subject: Number {number}", "", "Dear all", "")
    return "\n".join(lines).encode()


def test_ten_messages_with_different_verdicts(stage: Stage) -> None:
    """Accepted and stopped messages in turn, an RSET in between: each is decided by its own addresses."""
    senders = ["reject", "clerk", "quarantine", "warn", "rewrite", "rewrite", "reject", "accept", "quarantine", "clerk"]
    sizes = [11, 10, 11, 11, 11, 10, 12, 11, 10, 11]
    expected = ["550", "sent", "held", "sent", "hidden", "sent", "550", "sent", "sent", "550"]
    outcomes = []
    with Client(stage.postfix.port) as session:
        for number, (sender, people) in enumerate(zip(senders, sizes, strict=True)):
            address = f"{sender}@council.test"
            outcomes.append(session.send(letter(number, address, people), sender=address, to=strangers(people)))
            # An aborted message has no effect on the next one, at whatever stage it ends.
            session.mail("clerk@council.test")
            for recipient in strangers(number):
                session.rcpt(recipient)
            session.command("RSET")
    stage.gateway.settle()
    sent = {delivery.values("Subject")[0].decode(): delivery for delivery in stage.sink.deliveries}
    held = {stage.queued(queue_id).decode() for queue_id in stage.held()}
    seen = []
    for number, outcome in enumerate(outcomes):
        delivery = sent.get(f"Number {number}")
        if not outcome.accepted:
            seen.append(str(outcome.final.code))
        elif delivery is not None:
            seen.append("sent" if leaks(delivery.header) else "hidden")
        else:
            seen.append("held" if any(f"Subject: Number {number}\n" in message for message in held) else "lost")
    assert seen == expected
    assert (len(sent), len(held)) == (6, 1)
    for number, people in enumerate(sizes):
        if expected[number] in ("sent", "hidden"):
            assert set(sent[f"Number {number}"].recipients) == set(strangers(people))


def test_a_client_that_hangs_up_in_the_middle(stage: Stage) -> None:
    """A connection that breaks before the final dot leaves no state, and the next session works."""
    session = Client(stage.postfix.port)
    session.mail("quarantine@council.test")
    session.rcpt("parent@family.test")
    assert session.command("DATA").code == 354
    session.socket.sendall(letter(1, "quarantine@council.test", 11).replace(b"\n", b"\r\n"))
    session.socket.shutdown(socket.SHUT_RDWR)
    session.close()
    outcome = stage.gateway.send(letter(2, "clerk@council.test", 11), sender="clerk@council.test", to=["p@family.test"])
    assert outcome.final.code == 550
    stage.gateway.settle()
    assert (stage.sink.deliveries, stage.held()) == ((), [])


def test_a_message_that_postfix_itself_refuses(stage: Stage) -> None:
    """A message refused for its size does not affect the session: the next one is judged as usual."""
    usual = stage.postfix.get("message_size_limit")
    stage.postfix.set(message_size_limit="20000")
    small = letter(1, "quarantine@council.test", 11)
    try:
        with Client(stage.postfix.port) as session:
            refused = session.send(small + b"line\n" * 9000, sender="quarantine@council.test", to=["p@family.test"])
            taken = session.send(small, sender="quarantine@council.test", to=["p@family.test"])
    finally:
        stage.postfix.set(message_size_limit=usual)
    assert (refused.final.code, taken.final.code) == (552, 250)
    stage.gateway.settle()
    assert len(stage.held()) == 1
