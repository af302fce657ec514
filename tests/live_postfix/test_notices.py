"""Notices through a real sendmail(1) and a real Postfix with our milter attached."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes
from email import policy as email_policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from lab.postfix import PrivatePostfix
from lab.sink import Delivery, Sink
from live_postfix.stage import Stage, attached
from support.notice_factories import content, incident, notice
from undisclosed.notices import send

SENDMAIL = Path("/usr/sbin/sendmail")


@pytest.fixture(scope="module")
def stage(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Stage]:
    """The gateway of this file's tests."""
    with attached(installed_postfix, outside) as stage:
        yield stage


def delivered(stage: Stage, message: EmailMessage, sender: str) -> Delivery:
    """The one message at the sink after a notice was sent."""
    stage.policy("reject")
    send(message, sender, SENDMAIL, stage.postfix.config_dir)
    stage.gateway.settle()
    [delivery] = stage.sink.deliveries
    return delivery


@pytest.mark.parametrize("languages", [("en",), ("cy", "en")])
def test_a_notice_reaches_its_sender_as_it_was_written(stage: Stage, languages: tuple[str, ...]) -> None:
    """From the null sender, to the sender only, with every field and both parts unchanged; our milter accepts it."""
    message = notice("held", *languages)
    delivery = delivered(stage, message, "clerk@council.test")
    assert (delivery.sender, delivery.recipients) == ("", ("clerk@council.test",))
    assert stage.held() == []
    received = message_from_bytes(delivery.data, policy=email_policy.default)
    assert isinstance(received, EmailMessage)
    for name, value in message.items():
        assert received.get_all(name) == [value]
    for kind in ("plain", "html"):
        assert content(received, kind).replace("\r\n", "\n") == content(message, kind)
    for name in ("To", "From", "Subject", "Date", "Message-ID", "In-Reply-To", "Auto-Submitted", "Content-Type"):
        assert len(delivery.values(name)) == 1
    [line] = [line for line in stage.gateway.milter.log(event="message") if line["sender"] == ""][-1:]
    assert (line["scope"], line["action"]) == ("internal_only", "accept")


def test_a_notice_about_a_subject_with_a_list_in_it(stage: Stage) -> None:
    """Text of the sender does not become a recipient, a field or a readable address."""
    about = incident(subject="all\r\nBcc: parent1@family.test\r\n\r\nparent2@family.test", message_id=None)
    delivery = delivered(stage, notice("held", about=about), "clerk@council.test")
    assert delivery.recipients == ("clerk@council.test",)
    assert b"family.test" not in delivery.data


@pytest.mark.parametrize("sender", ['"the clerk"@council.test', "siân@council.test"])
def test_unusual_senders_are_reached(stage: Stage, sender: str) -> None:
    """A quoted local part, and an address that needs SMTPUTF8."""
    delivery = delivered(stage, notice("held", about=incident(sender=sender)), sender)
    assert delivery.recipients == (sender,)
    assert delivery.sender == ""
