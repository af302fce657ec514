"""The contents of a bounce (RFC 3464)."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from typing import NamedTuple

from lab.sink import Delivery


class Failure(NamedTuple):
    """The failure of one recipient."""

    recipient: str
    status: str
    """The enhanced status code (RFC 3463)."""
    reason: str
    """The text of the refusal, on one line."""


def failures(bounce: Delivery) -> list[Failure]:
    """Every recipient that a bounce reports on."""
    found = []
    for part in message_from_bytes(bounce.data).walk():
        if part.get_content_type() == "message/delivery-status":
            blocks = part.get_payload()
            assert isinstance(blocks, list)
            found += [_failure(block) for block in blocks if isinstance(block, Message) and "Final-Recipient" in block]
    return found


def readable(bounce: Delivery) -> str:
    """The text for a person: the first part, its lines joined."""
    first = next(part for part in message_from_bytes(bounce.data).walk() if part.get_content_type() == "text/plain")
    text = first.get_payload()
    assert isinstance(text, str)
    return " ".join(text.split())


def _failure(block: Message) -> Failure:
    recipient, reason = (str(block[name]).partition(";")[2].split() for name in ("Final-Recipient", "Diagnostic-Code"))
    return Failure(" ".join(recipient), str(block["Status"]), " ".join(reason))
