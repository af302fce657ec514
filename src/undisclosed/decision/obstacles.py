"""Reasons why a message must not be rewritten: hiding the recipients would break it, or would be useless.

A signature over an edited field breaks. A calendar invitation, a winmail.dat, protected headers or a trace field name
the recipients a second time, and header edits do not reach those names. A case that cannot be decided is an obstacle
too: after a false obstacle a person has to decide, after a missed one all recipients see each other.

This file has the obstacles of a header, and of a header field of a part; `body_scan.py` finds those of a body.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import unquote

from undisclosed.addresses.crosscheck import candidates, decodings
from undisclosed.decision.message import Message, key_of

Key = tuple[str, str]


class ObstacleKind(StrEnum):
    """The kind of an obstacle decides what its sender can do. Replies and notices choose their words by it."""

    INVITATION = "invitation"
    OUTLOOK = "outlook"
    SIGNED = "signed"
    REPEATED = "repeated"
    OTHER = "other"


class Obstacle(NamedTuple):
    """A reason why a message must not be rewritten."""

    text: str
    """The reason in words, for administrators: log, journal and commands."""
    kind: ObstacleKind = ObstacleKind.OTHER


INVITATION: Final = Obstacle("a calendar invitation lists everyone", ObstacleKind.INVITATION)
TNEF: Final = Obstacle("an attachment for Outlook (winmail.dat) lists everyone", ObstacleKind.OUTLOOK)
PROTECTED: Final = Obstacle("protected headers repeat the recipients", ObstacleKind.SIGNED)
SMIME: Final = Obstacle("signed or encrypted with S/MIME", ObstacleKind.SIGNED)
PGP: Final = Obstacle("signed or encrypted with PGP", ObstacleKind.SIGNED)
SIGNED: Final = Obstacle("signed or encrypted", ObstacleKind.SIGNED)
GOSSIP: Final = Obstacle("Autocrypt-Gossip names the recipients")
FRAGMENT: Final = Obstacle("a fragment of a message")
ENCODED: Final = Obstacle("a part that is encoded as a whole cannot be read")
REPEATED: Final = Obstacle("the text or an attachment repeats the recipients", ObstacleKind.REPEATED)
UUENCODED: Final = Obstacle("an attachment in uuencode cannot be read")
LONG_FIELD: Final = Obstacle("a part has a header field that is too long to be read")

SIGNATURES: Final = {
    "dkim-signature": "signed by DKIM over",
    "domainkey-signature": "signed by DomainKeys over",
    "arc-message-signature": "sealed by ARC over",
}

AUTHORS: Final = ("from", "sender", "resent-from", "resent-sender")
"""Fields that name an author or sender. A recipient who is one of them stays visible there."""

TRACES: Final = frozenset(
    """
    return-path received message-id resent-message-id references in-reply-to
    dkim-signature domainkey-signature arc-seal arc-message-signature arc-authentication-results
    """.split()  # noqa: SIM905  a table of names reads better than a list of quoted ones
)
"""Fields with identifiers and traces: a server on the way may name one recipient there, for whom it took the message.
Only more addresses than a text may show repeat the list."""


REPEATING: Final = {"autocrypt-gossip": GOSSIP, "hp-outer": PROTECTED}
"""Fields that exist only to name the recipients once more (Autocrypt 1.1; RFC 9788)."""


def header_obstacle(
    message: Message, edited: Collection[str], hidden: frozenset[Key], *, may_show: int
) -> Obstacle | None:
    """The obstacle in the header of a message; None if there is none.

    The message is without the signatures that the rewrite deletes. `edited`: the names of the fields that it changes,
    deletes or adds, signatures included. `hidden`: the keys of the addresses
    that it hides. `may_show`: how many of them the trace fields may show together.
    """
    return (
        _content_obstacle(message)
        or _signature_obstacle(message, edited)
        or next(_repetitions(message, edited, hidden, may_show), None)
    )


def _content_obstacle(message: Message) -> Obstacle | None:
    names = ("content-type", "content-transfer-encoding", "content-disposition")
    types, encodings, dispositions = map(message.values, names)
    if len(types) > 1:
        return Obstacle("more than one Content-Type")
    if types and _TYPE.match(types[0]) is None:
        return Obstacle("a Content-Type that cannot be read")
    if types and is_composite(types[0].lower()) and any(is_encoded(value.lower()) for value in encodings):
        return ENCODED
    if any(is_uuencoded(value.lower()) for value in encodings):
        return UUENCODED
    reasons = (reason for name, reason in REPEATING.items() if message.values(name))
    return next(filter(None, (*map(in_content_field, (*types, *dispositions)), *reasons)), None)


_TYPE: Final = re.compile(r"\s*[A-Za-z0-9!#$%&'*+.^_`{|}~-]+\s*/\s*[A-Za-z0-9!#$%&'*+.^_`{|}~-]+\s*(?:[;(]|$)")


def _signature_obstacle(message: Message, edited: Collection[str]) -> Obstacle | None:
    for signature, words in SIGNATURES.items():
        for value in message.values(signature):
            if broken := broken_by(value, edited):
                return Obstacle(f"{words} {', '.join(broken)}", ObstacleKind.SIGNED)
    return None


def broken_by(signature: str, edited: Iterable[str]) -> list[str]:
    """The edited fields that a signature covers."""
    covered = _covered(signature)
    return [name for name in edited if covered is None or name.casefold() in covered]


def _covered(signature: str) -> frozenset[str] | None:
    """The fields in the h= tag of a signature (RFC 6376, 3.5). None if there is no such tag: it may cover any field."""
    for tag in signature.split(";"):
        name, equals, value = tag.partition("=")
        if equals and name.strip().lower() == "h":
            return frozenset("".join(value.split()).lower().split(":"))
    return None


def _repetitions(
    message: Message, edited: Collection[str], hidden: frozenset[Key], may_show: int
) -> Iterator[Obstacle]:
    """The other fields that show an address that the rewrite hides; of the trace fields, those that show a list."""
    skip = {*AUTHORS, *(name.casefold() for name in edited)} - TRACES
    traced: set[Key] = set()
    for name, value in message.fields:
        key = key_of(name)
        if not ("@" in value or "=?" in value or "%40" in value) or key in skip:
            continue
        seen = {address.key for address in message.addresses(value)}
        seen.update((local.rpartition("=")[2], domain) for local, domain in candidates(value))  # addr=a@x, rcpt=a@x
        seen &= hidden
        if key in TRACES:
            traced |= seen
            seen = traced if len(traced) > may_show else set()
        if seen:
            yield Obstacle(f"{name.strip()} repeats the recipients")


def is_composite(content_type: str) -> bool:
    """Whether a Content-Type, in lower case, is that of a text with parts, or of a message."""
    return content_type.lstrip(" \t\n\"'").startswith(("multipart", "message"))


def is_encoded(encoding: str) -> bool:
    """Whether a Content-Transfer-Encoding, in lower case, changes the text."""
    return "base64" in encoding or "quoted" in encoding or "uu" in encoding


def is_uuencoded(encoding: str) -> bool:
    """Whether a Content-Transfer-Encoding, in lower case, is uuencode, which is not decoded here."""
    return "uu" in encoding


_SIGNS: Final = (
    (
        re.compile(
            r"(?:text|application)\s*/\s*(?:x-)?v?calendar|application\s*/\s*(?:x-)?ics"
            r"|\.(?:ics|vcs|ifb|ical|icalendar)(?!\.?[\w-])"
        ),
        INVITATION,
    ),
    (re.compile(r"ms-tnef|\bwin(?:mail)?\.dat\b"), TNEF),
    (re.compile(r";\s*hp\s*(?:\*\s*)?=|protected-headers"), PROTECTED),  # RFC 9788; its forerunner
    (re.compile(r"pkcs7-(?:mime|signature)|\bsmime\.p7[ms]\b|smime-type"), SMIME),
    (re.compile(r"multipart\s*/\s*encrypted|application\s*/\s*pgp-(?:encrypted|signature)"), PGP),
    (re.compile(r"multipart\s*/\s*signed"), SIGNED),
    (re.compile(r"message\s*/\s*partial"), FRAGMENT),
)

_SECTION: Final = re.compile(r"""name\s*\*\s*(\d{1,4})\s*(?:\*\s*)?=\s*("[^"]*"?|[^;\s]*)""", re.IGNORECASE)


def in_content_field(value: str) -> Obstacle | None:
    """The obstacle in the Content-Type or Content-Disposition of a part, in any notation."""
    texts = decodings(value)
    # A file name in sections (RFC 2231, section 3): `filename*0="invi"; filename*1="te.ics"`.
    texts |= {"".join(part.strip('"') for _, part in sorted(_sections(text))) for text in texts if "*" in text}
    texts |= {unquote(text) for text in texts if "%" in text}
    shown = "\n".join(texts).lower().replace('"', "")
    return next((reason for sign, reason in _SIGNS if sign.search(shown)), None)


def _sections(value: str) -> Iterator[tuple[int, str]]:
    for section in _SECTION.finditer(value):
        yield int(section[1]), section[2]
