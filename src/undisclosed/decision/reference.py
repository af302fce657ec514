"""The reference of an incident, such as `K7QF-3M2D`."""

from __future__ import annotations

import hashlib
import hmac

from undisclosed.decision.exposure import Exposure
from undisclosed.decision.message import Message

REFERENCE_LETTERS = "23456789BCDFGHJKMNPQRSTVWXYZ"
"""Letters that are not mistaken for each other over a telephone: no vowels (no words), no 0, 1, I, L or O."""


def reference(key: bytes, message: Message, exposure: Exposure) -> str:
    """The reference: a keyed hash of envelope sender, Message-ID and visible addresses.

    All transactions of one message have the same one. Without a Message-ID the queue id takes its place: each
    transaction is then an incident of its own.
    """
    identity = message.message_id or f"queue id {message.queue_id}"
    seen = sorted(
        f"{address.local}@{address.domain}"
        for addresses_ in (exposure.external, exposure.partner, exposure.internal)
        for address in addresses_
    )
    text = "\0".join([message.sender.casefold(), identity, *seen])
    number = int.from_bytes(hmac.digest(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256)[:8])
    letters = []
    for _ in range(8):
        number, place = divmod(number, len(REFERENCE_LETTERS))
        letters.append(REFERENCE_LETTERS[place])
    return "".join(letters[:4]) + "-" + "".join(letters[4:])
