"""The obstacles in a body, which comes in pieces of any size: a milter gets it in chunks, and keeps only one of them.

Header lines of parts count at the start of any line, and boundaries are ignored: a reader that uses another boundary
sees other parts. Only base64 needs them: it is decoded from the end of a header that announces it to the next boundary.
All kinds of line ends count. The cost is linear.

The body is cut into windows, the same for any pieces: so the answer does not depend on them. A window ends behind an
empty line or before a line that does not continue a field, and what follows waits for the next one.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from undisclosed.decision.obstacles import (
    ENCODED,
    GOSSIP,
    INVITATION,
    LONG_FIELD,
    PROTECTED,
    REPEATED,
    TNEF,
    UUENCODED,
    Key,
    Obstacle,
    in_content_field,
    is_composite,
    is_encoded,
    is_uuencoded,
)
from undisclosed.decision.repetition import HiddenAddresses, TextStream

WINDOW: Final = 65_536
"""Bytes that are looked at together, and the most that waits for the next window. A milter's chunk has one less."""

_TRIES: Final = 100
"""Line ends that are looked at for the end of a window, from its last one on. Hostile lines must not cost more."""

_PART_LINE: Final = re.compile(
    # Directly below a boundary some readers take an indented line for a header line.
    rb"\n(?:--[^\n]*\n[ \t]+)?content-(type|disposition|transfer-encoding)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)"
)
_END_OF_HEADER: Final = re.compile(rb"\n(?:[ \t]*\n|--)")

_SIGNS: Final = re.compile(
    rb"""\n(?=[ \tBbQ7exAaHh])(?:  # of the first letters: most lines have none of them
        # A calendar in a part with another label: plain, or in base64 (with or without a byte order mark), or uuencode
        (?P<invitation> [ \t]*(?i:BEGIN:VCALENDAR) | (?:77u/)?QkVHSU46VkNBTEVOREFS
            | (?i:begin(?:-base64)?[ ][0-7]{3,4}[ ][^\n]*\.(?:ics|vcs)[ \t]*\n))
        # TNEF's signature 0x223e9f78 ([MS-OXTNEF]), in base64 or as it is; the file in uuencode
        | (?P<tnef> eJ8\+I | x\x9f>\" | (?i:begin(?:-base64)?[ ][0-7]{3,4}[ ][^\n]*win(?:mail)?\.dat))
        | (?P<gossip> (?i:autocrypt-gossip[ \t]*:))
        | (?P<protected> (?i:hp-outer[ \t]*:))
        | (?P<uuencoded> (?i:begin(?:-base64)?[ ][0-7]{3,4}[ ][^\n]*\.[a-z0-9]{1,8}[ \t]*\n))
    )""",
    re.VERBOSE,
)
_SIGNIFIED: Final = {
    "invitation": INVITATION,
    "tnef": TNEF,
    "gossip": GOSSIP,
    "protected": PROTECTED,
    "uuencoded": UUENCODED,
}

_LETTERS: Final = re.compile(rb"[^=]+")
_NOT_BASE64: Final = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))


@dataclass(frozen=True, slots=True)
class BodySearch:
    """The addresses to search for in the body of a message, and the facts of its header about the body."""

    hidden: frozenset[Key]
    """The outside addresses that its recipients must not see."""
    may_show: int
    """How many of them it may show: with more it repeats the list."""
    has_parts: bool
    is_base64: bool

    def begin(self) -> BodyScan:
        """A new scan."""
        return BodyScan(self)

    def obstacle(self, pieces: Iterable[bytes]) -> Obstacle | None:
        """The obstacle in a body that is at hand."""
        scan = self.begin()
        for piece in pieces:
            scan.feed(piece)
            if scan.obstacle is not None:
                break
        return scan.end()


class BodyScan:
    """The search of one body."""

    def __init__(self, search: BodySearch) -> None:
        self.obstacle: Obstacle | None = None
        """The first obstacle that was found: the rest of the body changes nothing."""
        self._has_parts = search.has_parts
        self._hidden = HiddenAddresses(search.hidden, search.may_show)
        self._text = TextStream(self._hidden.search)
        self._base64 = _Base64(self._take_decoded)
        self._decoded_begins_line = True
        self._place = _Place.DATA if search.is_base64 and not search.has_parts else _Place.TEXT
        self._incoming = bytearray()
        self._rest = b""
        self._begins_line = True
        self._is_composite = self._is_encoded = False
        """The facts read so far in the header of the part under way."""

    def feed(self, piece: bytes) -> None:
        """The next piece of the body."""
        for start in range(0, len(piece), WINDOW):
            if self.obstacle is not None:
                return
            self._incoming += piece[start : start + WINDOW]
            if len(self._incoming) >= WINDOW:
                window = bytes(self._incoming[:WINDOW])
                del self._incoming[:WINDOW]
                self._examine_next(window)

    def end(self) -> Obstacle | None:
        """The body is complete: the obstacle in it; None if there is none."""
        if self.obstacle is None:
            self._examine_next(bytes(self._incoming), is_last=True)
        self._incoming.clear()
        return self.obstacle

    def _examine_next(self, window: bytes, *, is_last: bool = False) -> None:
        text = self._rest + window
        if text.endswith(b"\r") and not is_last:  # a line feed may follow
            text, held_back = text[:-1], b"\r"
        else:
            held_back = b""
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = len(text) if is_last else _end_of_window(text)
        is_cut = end is None  # within a line that is longer than a window
        if end is None:
            end = len(text)
        self._rest = text[end:] + held_back
        self._examine(text[:end], is_cut=is_cut, is_last=is_last)

    def _examine(self, text: bytes, *, is_cut: bool, is_last: bool) -> None:
        """Look at one window."""
        lines = b"\n" + text if self._begins_line else text
        self._begins_line = text.endswith(b"\n") if is_cut else True
        self._text.feed(text)
        announced = self._examine_parts(lines, is_cut=is_cut) if self._has_parts else []
        self._decode(lines, announced)
        if is_last:
            self._base64.end()
            self._text.end()
        self._found(_sign(lines) or (REPEATED if self._hidden.are_listed else None))

    def _found(self, obstacle: Obstacle | None) -> None:
        self.obstacle = self.obstacle or obstacle

    def _examine_parts(self, lines: bytes, *, is_cut: bool) -> list[int]:
        """Look at the header lines of parts; returns the ends of those that announce base64."""
        lower = lines.lower()
        announced: list[int] = []
        end = 0
        for line in _PART_LINE.finditer(lower):
            if lower.startswith(b"\n--", line.start()) or _END_OF_HEADER.search(lower, end, line.start() + 1):
                self._is_composite = self._is_encoded = False
            end = line.end()
            if is_cut and end == len(lines):
                self._found(LONG_FIELD)
                return announced
            name, value = line[1], lines[line.start(2) : line.end(2)].decode("latin-1")
            if name == b"transfer-encoding":
                self._is_encoded |= is_encoded(value.lower())
                if is_uuencoded(value.lower()):
                    self._found(UUENCODED)
                if "base64" in value.lower():
                    announced.append(end)
            else:
                self._is_composite |= name == b"type" and is_composite(value.lower())
                self._found(in_content_field(value))
            if self._is_composite and self._is_encoded:
                self._found(ENCODED)
        if (self._is_composite or self._is_encoded) and _END_OF_HEADER.search(lower, end):
            self._is_composite = self._is_encoded = False
        return announced

    def _decode(self, lines: bytes, announced: list[int]) -> None:
        """Decode the parts in base64. `announced`: the ends of the header lines that announce one."""
        position = 0
        waiting = iter(announced)
        while True:
            if self._place is _Place.TEXT:
                header = next((end for end in waiting if end >= position), None)
                if header is None:
                    return
                position, self._place = header, _Place.HEADER
            elif self._place is _Place.HEADER:
                ended = _END_OF_HEADER.search(lines, position)
                if ended is None:
                    return
                position = ended.end()
                self._place = _Place.TEXT if ended[0].endswith(b"--") else _Place.DATA
            else:
                boundary = lines.find(b"\n--", max(0, position - 1)) if self._has_parts else -1
                self._base64.feed(lines[position : boundary if boundary >= 0 else None])
                if boundary < 0:
                    return
                self._base64.end()
                position, self._place = boundary, _Place.TEXT

    def _take_decoded(self, piece: bytes) -> None:
        self._found(_sign(b"\n" + piece if self._decoded_begins_line else piece))
        self._decoded_begins_line = piece.endswith(b"\n")
        self._hidden.search(piece)


def _sign(lines: bytes) -> Obstacle | None:
    """The obstacle that a line shows, whatever its part is labelled as."""
    sign = _SIGNS.search(lines)
    return _SIGNIFIED[sign.lastgroup] if sign is not None and sign.lastgroup is not None else None


def _end_of_window(text: bytes) -> int | None:
    """The place where a window may end; None if there is none near its end."""
    nearest = max(0, len(text) - WINDOW)
    empty_line = text.rfind(b"\n\n", nearest)
    if empty_line >= 0:
        return empty_line + 2
    line_end = len(text)
    for _ in range(_TRIES):
        line_end = text.rfind(b"\n", nearest, line_end)
        if line_end < 0:
            return None
        if text[line_end + 1 : line_end + 2] not in (b"", b" ", b"\t"):
            return line_end + 1
    return None


class _Place(Enum):
    """The place in the body, as far as base64 is concerned."""

    TEXT = 1
    HEADER = 2
    """In a header that announces base64."""
    DATA = 3


class _Base64:
    """A text in base64 that comes in pieces, decoded as mail programs do it: without all that is no letter of it."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._decoded = TextStream(take)
        self._letters = b""

    def feed(self, text: bytes) -> None:
        """The next piece."""
        letters = self._letters + text.translate(None, _NOT_BASE64)
        padded = letters.rfind(b"=") + 1
        data = bytearray()
        if padded:  # the end of the part, or of one of several texts
            for ended in _LETTERS.finditer(letters, 0, padded):
                data += _decoded_end(ended[0])
        whole = padded + ((len(letters) - padded) & ~3)
        data += binascii.a2b_base64(letters[padded:whole])
        self._letters = letters[whole:]
        self._decoded.feed(bytes(data))

    def end(self) -> None:
        """The part is complete."""
        self._decoded.feed(_decoded_end(self._letters))
        self._letters = b""
        self._decoded.end()


def _decoded_end(letters: bytes) -> bytes:
    # A single surplus letter holds no whole byte, and binascii would refuse all letters because of it.
    return binascii.a2b_base64(letters[: -1 if len(letters) % 4 == 1 else None] + b"==") if letters else b""
