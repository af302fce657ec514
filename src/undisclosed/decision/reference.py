"""The identity of a message, its reference, such as `K7QF-3M2D`, and the hash of its recipients.

All are keyed hashes: they tell whether two transactions are of one message, and nothing else about it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from undisclosed.decision.exposure import Exposure
from undisclosed.decision.message import Message

REFERENCE_LETTERS = "23456789BCDFGHJKMNPQRSTVWXYZ"
"""Letters that are not mistaken for each other over a telephone: no vowels (no words), no 0, 1, I, L or O."""

IDENTIFYING_FIELDS = ("from", "date", "subject", "message-id")
"""Programs send different messages with one Message-ID: the other fields tell these apart."""


def identity(key: bytes, message: Message, exposure: Exposure) -> str:
    """The identity: a keyed hash of the envelope sender, of what its author wrote into the header, and of the list.

    All transactions of one message have the same one. Without a Message-ID the queue id takes its place: each
    transaction is then a message of its own.
    """
    written = [" ".join((message.first(name) or "").split()) for name in IDENTIFYING_FIELDS]
    if not written[-1]:
        written[-1] = f"queue id {message.queue_id}"
    seen = sorted(
        f"{address.local}@{address.domain}"
        for addresses_ in (exposure.external, exposure.partner, exposure.internal)
        for address in addresses_
    )
    return _hash(key, "identity", [message.sender.casefold(), *written, *seen])


def reference(identity: str) -> str:
    """The reference of a message with this identity, for replies, log and telephone."""
    number = int(identity[:16], 16)
    letters = []
    for _ in range(8):
        number, place = divmod(number, len(REFERENCE_LETTERS))
        letters.append(REFERENCE_LETTERS[place])
    return "".join(letters[:4]) + "-" + "".join(letters[4:])


def recipients_hash(key: bytes, recipients: Iterable[str]) -> str:
    """A keyed hash of envelope recipients: a client that repeats a transaction repeats all of them."""
    return _hash(key, "recipients", sorted(recipients))


def _hash(key: bytes, purpose: str, texts: Iterable[str]) -> str:
    text = "\0".join([purpose, *texts])
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()[:32]
