"""Recipient fields of the greatest length, and longer ones, which Postfix cuts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email import message_from_bytes
from email.utils import getaddresses

import pytest

from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.bounces import failures
from live_postfix.stage import Stage, attached
from support.delivered_header import leaks
from support.factories import strangers

SENDER = "clerk@council.test"


@pytest.fixture(scope="module")
def stage(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Stage]:
    """The gateway of this file's tests."""
    with attached(installed_postfix, outside) as stage:
        yield stage


def letter(*fields: tuple[str, Sequence[str]]) -> bytes:
    """A message with these recipient fields, ten addresses a line."""
    lines = [f"From: Clerk <{SENDER}>", "Subject: To all"]
    for name, addresses in fields:
        tens = [", ".join(addresses[start : start + 10]) for start in range(0, len(addresses), 10)]
        lines.append(f"{name}: " + ",\n ".join(tens))
    return "\n".join([*lines, "", "Dear all", ""]).encode()


def count(stage: Stage) -> int:
    """The number that the milter counted in the last message."""
    found: int = stage.gateway.milter.log(event="message")[-1]["count"]
    return found


@pytest.mark.parametrize("action", ["reject", "quarantine", "rewrite"])
def test_fourteen_hundred_addresses_in_to(stage: Stage, action: str) -> None:
    """All of them are counted, and nothing is shown."""
    stage.policy(action)
    message = letter(("To", strangers(1400)))
    outcome = stage.gateway.send(message, sender=SENDER, to=strangers(1400))
    stage.gateway.settle()
    assert count(stage) == 1400
    assert outcome.accepted == (action != "reject")
    assert len(stage.held()) == (action == "quarantine")
    assert len(stage.sink.deliveries) == (action == "rewrite")
    for delivery in stage.sink.deliveries:
        assert set(delivery.recipients) == set(strangers(1400))
        assert leaks(delivery.header) == []
        assert delivery.values("To") == [f"Clerk <{SENDER}>".encode()]


def test_colleagues_stay_however_many(stage: Stage) -> None:
    """700 internal addresses among 700 external ones: To keeps all internal ones, and no other."""
    stage.policy("rewrite")
    ours = strangers(700, "ours{}.council.test")
    message = letter(("To", [address for pair in zip(ours, strangers(700), strict=True) for address in pair]))
    stage.gateway.send(message, sender=SENDER, to=["parent@family.test"])
    stage.gateway.settle()
    [delivery] = stage.sink.deliveries
    assert leaks(delivery.header) == []
    [to] = message_from_bytes(delivery.data).get_all("To", [])
    assert [address for _, address in getaddresses([to])] == ours


def test_forty_fields_of_fifty(stage: Stage) -> None:
    """Every instance of every field is read, and one To is left."""
    stage.policy("rewrite")
    names = ("To", "Cc", "TO", "Resent-To", "Resent-Cc", "Apparently-To", "Reply-To", "Mail-Followup-To")
    everybody = strangers(2000)
    fields = [(names[place % 8], everybody[place * 50 : place * 50 + 50]) for place in range(40)]
    stage.gateway.send(letter(*fields), sender=SENDER, to=["parent@family.test"])
    stage.gateway.settle()
    assert count(stage) == 2000
    [delivery] = stage.sink.deliveries
    assert leaks(delivery.header) == []
    assert not delivery.values("Cc")


@pytest.mark.parametrize("number", [2600, 12000])
@pytest.mark.parametrize("action", ["reject", "rewrite"])
def test_a_field_that_postfix_cuts(stage: Stage, action: str, number: int) -> None:
    """Postfix cuts a field at 60,000 bytes and a header at 102,400: what is left of it is all that can be shown."""
    stage.policy(action)
    outcome = stage.gateway.send(letter(("To", strangers(number))), sender=SENDER, to=["parent@family.test"])
    stage.gateway.settle()
    assert 1500 < count(stage) < 2000
    assert outcome.accepted == (action != "reject")
    assert len(stage.sink.deliveries) == (action == "rewrite")
    assert not [found for delivery in stage.sink.deliveries for found in leaks(delivery.header)]


def too_long() -> bytes:
    """A message with a header of 1.2 MB, in fields that Postfix does not cut."""
    return letter(*((f"X-{number}", strangers(1200)) for number in range(40)))


def test_a_header_of_more_than_a_mebibyte(stage: Stage) -> None:
    """550 in words of its own, where it was 451 for ever (hostile review, 18)."""
    stage.policy("reject")
    outcome = stage.gateway.send(too_long(), sender=SENDER, to=["parent@family.test"])
    assert not outcome.accepted
    assert "550" in str(outcome)
    assert "too long to be checked" in str(outcome)
    assert stage.gateway.milter.log(event="header_too_large")[-1]["sender"] == SENDER


def test_a_header_of_more_than_a_mebibyte_by_sendmail(stage: Stage) -> None:
    """It bounces: it was in maildrop for ever, and nobody was told."""
    stage.policy("reject")
    stage.postfix.sendmail(["-f", SENDER, "parent@family.test"], too_long())
    stage.gateway.settle()
    [bounce] = stage.sink.deliveries
    assert (bounce.sender, list(bounce.recipients)) == ("", [SENDER])
    [failure] = failures(bounce)
    assert (failure.recipient, failure.status) == ("parent@family.test", "5.3.4")
    assert "too long to be checked" in failure.reason
