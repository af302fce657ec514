"""Reasons why a message must not be rewritten: hiding the recipients would break it, or would be useless.

A signature over an edited field breaks. A calendar invitation, a winmail.dat, protected headers or a trace field name
the recipients a second time, and header edits do not reach those names. A case that cannot be decided is an obstacle
too: after a false obstacle a person has to decide, after a missed one all recipients see each other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import unquote

from undisclosed.addresses.crosscheck import candidates, decodings
from undisclosed.decision.message import Message, key_of

BODY_LIMIT: Final = 1024 * 1024
"""Bytes of the body that are read."""


class ObstacleKind(StrEnum):
    """The kind of an obstacle decides what its sender can do. Replies and notices choose their words by it."""

    INVITATION = "invitation"
    OUTLOOK = "outlook"
    SIGNED = "signed"
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
TOO_LARGE: Final = Obstacle("the body is larger than 1 MiB, and only the first 1 MiB was read")

SIGNATURES: Final = {
    "dkim-signature": "signed by DKIM over",
    "domainkey-signature": "signed by DomainKeys over",
    "arc-message-signature": "sealed by ARC over",
}

NOT_A_REPETITION: Final = frozenset(
    """
    from sender resent-from resent-sender return-path received message-id resent-message-id references in-reply-to
    dkim-signature domainkey-signature arc-seal arc-message-signature arc-authentication-results
    """.split()  # noqa: SIM905  a table of names reads better than a list of quoted ones
)
"""Fields with the author, or with identifiers and traces that look like addresses: they are not searched."""


REPEATING: Final = {"autocrypt-gossip": GOSSIP, "hp-outer": PROTECTED}
"""Fields that exist only to name the recipients once more (Autocrypt 1.1; RFC 9788)."""


def header_obstacle(message: Message, edited: Collection[str], hidden: frozenset[tuple[str, str]]) -> Obstacle | None:
    """The obstacle in the header of a message; None if there is none.

    `edited`: the names of the fields that the rewrite changes, deletes or adds. `hidden`: the keys of the addresses
    that it hides.
    """
    return (
        _content_obstacle(message)
        or _signature_obstacle(message, edited)
        or next(_repetitions(message, edited, hidden), None)
    )


def needs_body(message: Message) -> bool:
    """Whether the body can hold an obstacle that the header does not show: it has parts, or is a message itself.

    The header has the type of a message without parts. Without Content-Type it is plain text (RFC 2045, 5.2).
    """
    return any(_is_composite(value.lower()) for value in message.values("content-type"))


def body_obstacle(body: bytes, complete: bool) -> Obstacle | None:
    """The obstacle in the first BODY_LIMIT bytes of a body; None if there is none. `complete`: this is all of the body.

    It searches for header lines of parts at the start of any line, and ignores boundaries: a reader that uses another
    boundary sees other parts. All kinds of line ends count. The cost is linear.
    """
    text = body[:BODY_LIMIT].decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")
    obstacle = _in_raw_text(text) or next(_part_obstacles(text), None)
    if obstacle is None and not (complete and len(body) <= BODY_LIMIT):
        return TOO_LARGE
    return obstacle


def _content_obstacle(message: Message) -> Obstacle | None:
    names = ("content-type", "content-transfer-encoding", "content-disposition")
    types, encodings, dispositions = map(message.values, names)
    if len(types) > 1:
        return Obstacle("more than one Content-Type")
    if types and _TYPE.match(types[0]) is None:
        return Obstacle("a Content-Type that cannot be read")
    if types and _is_composite(types[0].lower()) and any(_is_encoded(value.lower()) for value in encodings):
        return ENCODED
    reasons = (reason for name, reason in REPEATING.items() if message.values(name))
    return next(filter(None, (*map(_in_content_field, (*types, *dispositions)), *reasons)), None)


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


def _repetitions(message: Message, edited: Collection[str], hidden: frozenset[tuple[str, str]]) -> Iterator[Obstacle]:
    """The other fields that show an address that the rewrite hides."""
    skip = NOT_A_REPETITION.union(name.casefold() for name in edited)
    for name, value in message.fields:
        if not ("@" in value or "=?" in value or "%40" in value) or key_of(name) in skip:
            continue
        seen = {address.key for address in message.addresses(value)}
        seen.update((local.rpartition("=")[2], domain) for local, domain in candidates(value))  # addr=a@x, rcpt=a@x
        if not seen.isdisjoint(hidden):
            yield Obstacle(f"{name.strip()} repeats the recipients")


def _is_composite(content_type: str) -> bool:
    return content_type.lstrip(" \t\n\"'").startswith(("multipart", "message"))


def _is_encoded(encoding: str) -> bool:
    return "base64" in encoding or "quoted" in encoding or "uu" in encoding


_PART_LINE: Final = re.compile(
    # Directly below a boundary some readers take an indented line for a header line.
    r"\n(?:--[^\n]*\n[ \t]+)?content-(type|disposition|transfer-encoding)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)"
)
_END_OF_HEADER: Final = re.compile(r"\n(?:[ \t]*\n|--)")

_RAW_SIGNS: Final = (
    # A calendar in a part that is labelled as something else, plain or in base64 (with or without a byte order mark).
    (re.compile(r"\n(?:[ \t]*(?i:BEGIN:VCALENDAR)|(?:77u/)?QkVHSU46VkNBTEVOREFS)"), INVITATION),
    # TNEF's signature 0x223e9f78 ([MS-OXTNEF]), in base64 or as it is.
    (re.compile(r"\n(?:eJ8\+I|x\x9f>\")"), TNEF),
    (re.compile(r"\n(?i:begin(?:-base64)? [0-7]{3,4} [^\n]*\.(?:ics|vcs)[ \t]*\n)"), INVITATION),
    (re.compile(r"\n(?i:begin(?:-base64)? [0-7]{3,4} [^\n]*win(?:mail)?\.dat)"), TNEF),
    (re.compile(r"\n(?i:autocrypt-gossip[ \t]*:)"), GOSSIP),
    (re.compile(r"\n(?i:hp-outer[ \t]*:)"), PROTECTED),
)

_SIGNS: Final = (
    (
        re.compile(
            r"(?:text|application)\s*/\s*(?:x-)?v?calendar|application\s*/\s*(?:x-)?ics"
            r"|\.(?:ics|vcs|ifb|ical|icalendar)(?!\.?[\w-])"
        ),
        INVITATION,
    ),
    (re.compile(r"ms-tnef|\bwin(?:mail)?\.dat\b"), TNEF),
    (re.compile(r";\s*hp\s*\*?\s*=|protected-headers"), PROTECTED),  # RFC 9788; its forerunner
    (re.compile(r"pkcs7-(?:mime|signature)|\bsmime\.p7[ms]\b|smime-type"), SMIME),
    (re.compile(r"multipart\s*/\s*encrypted|application\s*/\s*pgp-(?:encrypted|signature)"), PGP),
    (re.compile(r"multipart\s*/\s*signed"), SIGNED),
    (re.compile(r"message\s*/\s*partial"), FRAGMENT),
)

_SECTION: Final = re.compile(r"""name\s*\*\s*(\d{1,4})\s*\*?\s*=\s*("[^"]*"?|[^;\s]*)""", re.IGNORECASE)


def _in_raw_text(text: str) -> Obstacle | None:
    text = "\n" + text
    return next((reason for sign, reason in _RAW_SIGNS if sign.search(text)), None)


def _part_obstacles(text: str) -> Iterator[Obstacle]:
    """The obstacles in the header lines of parts."""
    text = "\n" + text
    lower = text.lower()  # as long as the text itself: it is Latin-1
    composite = encoded = False
    end = 0
    for line in _PART_LINE.finditer(lower):
        if lower.startswith("\n--", line.start()) or _END_OF_HEADER.search(lower, end, line.start() + 1):
            composite = encoded = False
        end = line.end()
        name, value = line[1], text[line.start(2) : line.end(2)]
        composite |= name == "type" and _is_composite(value.lower())
        encoded |= name == "transfer-encoding" and _is_encoded(value.lower())
        if composite and encoded:
            yield ENCODED
        if name != "transfer-encoding" and (reason := _in_content_field(value)):
            yield reason


def _in_content_field(value: str) -> Obstacle | None:
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
