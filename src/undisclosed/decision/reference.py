"""The reference of an incident, such as `K7QF-3M2D`."""

from __future__ import annotations

import hashlib
import hmac

from undisclosed.decision.exposure import Exposure
from undisclosed.decision.message import Message

REFERENCE_LETTERS = "23456789BCDFGHJKMNPQRSTVWXYZ"
"""Letters that are not mistaken for each other over a telephone: no vowels (no words), no 0, 1, I, L or O."""


def reference(key: bytes, message: Message, exposure: Exposure) -> str:
    """The incident's name, such as `K7QF-3M2D`: a keyed hash of sender, Message-ID and visible set.

    Every transaction of one message gives the same one. A message without a Message-ID is an incident of its own, told
    apart by its queue id.
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
