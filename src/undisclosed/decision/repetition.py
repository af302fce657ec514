"""The search of a body for the addresses that are hidden in its header.

A body comes in pieces of any size. Text is kept up to the next blank, so no address is cut. Each text is read as it is
and in the ways in which mail programs would show it: without quoted-printable, encoded words, HTML's entities and tags,
invisible characters, the NULs of UTF-16. So it makes no difference how a part is labelled. The cost is linear.
"""

from __future__ import annotations

import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from undisclosed.addresses.domains import MAX_NAME, to_ascii
from undisclosed.addresses.encoded_words import decoded
from undisclosed.decision.obstacles import Key

OVERLAP: Final = 2048
"""Bytes of a text without blanks that are searched twice: longer than any address, also if each of its characters is
written as an entity or in quoted-printable."""

STEP: Final = 16_384
"""Bytes that are searched together: some readings take forty times as much memory."""

MAX_LOCAL: Final = 256
"""Bytes before an at sign that are looked at. A local part has at most 64 (RFC 5321, section 4.5.3.1)."""

_LABEL: Final = rb"[0-9A-Za-z\x80-\xff_-]++"
_AT: Final = re.compile(rb"@(%b(?:\.%b)++\.?|\[[0-9A-Za-z.:]++\])" % (_LABEL, _LABEL))
_AT_ANY: Final = re.compile(rb"@(%b(?:\.%b)*+\.?|\[[0-9A-Za-z.:]++\])" % (_LABEL, _LABEL))
"""The same with domains of one label. Attachments are full of them, so they are read only if one is hidden."""

_DOMAIN: Final = re.compile(r"[\w.-]+")
_ASCII_DOMAIN: Final = re.compile(r"[0-9a-z.-]+")
_LOCAL_BACKWARDS: Final = re.compile(r"""[^\s<>()\[\]\\,;:"@\u2018-\u201f\xab\xbb]*""")
_MARK: Final = re.compile(r"[^0-9a-z.+-]")
"""A character that may be before an address: `'a@x'`, `*a@x*`, `_a@x_`, `?to=a@x`, a word of another script."""

_QUOTED_PRINTABLE: Final = re.compile(rb"=(?:[0-9A-Fa-f]{2}|[ \t]*\n)")
_SOFT_BREAK: Final = re.compile(rb"=[ \t]*\n")
_AT_ENTITY: Final = re.compile(rb"&(?:#0*+64|#[xX]0*+40|commat)")
_PERCENT: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_BREAK: Final = re.compile(
    rb"(?i)</?(?:address|article|blockquote|body|br|center|d[dlt]|div|h[1-6r]|li|[ou]l|option|p|pre|section"
    rb"|t(?:able|body|[dhr]))\b[^<>]*>"
)
"""A tag of HTML that separates words; the others may be within a word."""
_TAG: Final = re.compile(rb"<[^<>]*>")
_INVISIBLE: Final = re.compile(rb"\xc2\xad|\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf")
"""Soft hyphen, blanks without width, marks of direction. They keep a mail program from making a link of an address."""
_ESCAPE: Final = re.compile(rb"\x1b[$(]{1,2}[@-Z]")
_ENCODED_WORD: Final = re.compile(rb"=\?[^?\s]++\?[bBqQ]\?")


def _shows_at(text: bytes) -> bool:
    return b"@" in text or _AT_ENTITY.search(text) is not None


def _without_entities(text: bytes) -> bytes:
    return _INVISIBLE.sub(b"", html.unescape(text.decode("utf-8", "replace")).encode("utf-8", "replace"))


def _without_tags(text: bytes) -> bytes:
    return _without_entities(_TAG.sub(b"", _BREAK.sub(b" ", text)))


def _without_encoded_words(text: bytes) -> bytes:
    return decoded(text.decode("latin-1")).encode("utf-8", "replace")


_CONTROLS: Final = bytes({*range(1, 32), 127} - set(b"\t\n\r\f\x1b"))


def _is_text(text: bytes) -> bool:
    """Whether it may be a text: of compressed data, a tenth is control characters."""
    sample = text[::16]
    return len(sample) - len(sample.translate(None, _CONTROLS)) <= len(sample) // 32


_READINGS: Final[tuple[tuple[Callable[[bytes], object], Callable[[bytes], bytes]], ...]] = (
    (lambda text: b"&" in text and _shows_at(text), _without_entities),  # o&#39;neil@x.test, a&#64;x.test
    (lambda text: b"<" in text and _shows_at(text), _without_tags),  # a@<span>x</span>.test
    (_PERCENT.search, unquote_to_bytes),  # in links: o%27neil@x.test, a%40x.test
    (_ENCODED_WORD.search, _without_encoded_words),  # in the header of a forwarded message
    (_ESCAPE.search, lambda text: _ESCAPE.sub(b" ", text)),  # ISO-2022, between its escape sequences
    (_INVISIBLE.search, lambda text: _INVISIBLE.sub(b"", text)),
    (lambda text: b"\xef\xbc\xa0" in text, lambda text: text.replace(b"\xef\xbc\xa0", b"@")),  # the full-width at sign
)
"""How else a text can be read: whether it makes a difference, and the reading. Attachments of other kinds have none."""


class HiddenAddresses:
    """The addresses that a message hides, and those of them that its body has shown so far."""

    def __init__(self, hidden: frozenset[Key], may_show: int) -> None:
        """`may_show`: how many of them a body may show without repeating the list."""
        self._by_domain: dict[str, set[str]] = {}
        for local, domain in hidden:
            self._by_domain.setdefault(domain, set()).add(local)
        self._found: set[Key] = set()
        self._may_show = may_show
        self._is_searched = len(hidden) > may_show
        self._at = _AT if all("." in domain for domain in self._by_domain) else _AT_ANY

    @property
    def are_listed(self) -> bool:
        """Whether the body repeats the list."""
        return len(self._found) > self._may_show

    def search(self, text: bytes) -> None:
        """Look for them in a text, which may be in quoted-printable, in all its readings."""
        if not self._is_searched:
            return
        self._search_readings(text)
        if b"=" in text and _is_text(text) and _QUOTED_PRINTABLE.search(text):
            self._search_readings(binascii.a2b_qp(_SOFT_BREAK.sub(b"", text)))

    def _search_readings(self, text: bytes) -> None:
        self._search_reading(text)
        if b"\0" in text:  # UTF-16, UTF-32
            text = text.translate(None, b"\0")
            self._search_reading(text)
        if _is_text(text):
            for differs, reading in _READINGS:
                if differs(text):
                    self._search_reading(reading(text))

    def _search_reading(self, text: bytes) -> None:
        if b"@" not in text:
            return
        for at in self._at.finditer(text):
            for domain in _domains(at[1]):
                if locals_there := self._by_domain.get(domain):
                    before = text[max(0, at.start() - MAX_LOCAL) : at.start()].decode("utf-8", "replace")
                    self._found.update((name, domain) for name in _local_parts(before) if name in locals_there)


def _domains(raw: bytes) -> tuple[str, ...]:
    """The domains that may be meant: in a script without blanks the text goes on behind an address."""
    if raw.isascii():
        return (raw.decode("ascii").lower().rstrip(".-_"),)
    raw = raw[: 4 * MAX_NAME]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    starts = (found[0] for found in (_DOMAIN.match(text), _ASCII_DOMAIN.match(text.lower())) if found)
    return tuple(to_ascii(start).rstrip(".-_") for start in starts)


def _local_parts(before: str) -> Iterator[str]:
    """The local parts that a text may end with: also without the marks that may be before an address."""
    if before.endswith('"'):  # "a b"@x.test
        before = before[:-1]
        yield before.rpartition('"')[2].casefold()
    word = _LOCAL_BACKWARDS.match(before[::-1])
    assert word is not None
    name = unicodedata.normalize("NFC", word[0][::-1].casefold())
    yield name
    yield name.lstrip("0123456789.+-")  # of a list: `-a@x`, `1.a@x`
    for mark in _MARK.finditer(name):
        yield name[mark.end() :]


def _last_blank(text: bytes) -> int:
    """The end of the last blank in a text, where no address goes on; 0 if there is none near its end."""
    nearest = max(0, len(text) - OVERLAP)
    end = _blank_before(text, nearest, len(text))
    # Behind a tag of HTML an address may go on.
    while end and (tag := text.rfind(b"<", nearest, end)) > text.rfind(b">", nearest, end):
        end = _blank_before(text, nearest, tag)
    return end


def _blank_before(text: bytes, nearest: int, end: int) -> int:
    """The end of the last blank between two places; 0 if there is none. A soft break of quoted-printable is none."""
    while True:
        blank = max(text.rfind(mark, nearest, end) for mark in (b" ", b"\t", b"\n"))
        word = text[nearest : max(nearest, blank)].rstrip(b" \t")
        if not word.endswith(b"="):
            return blank + 1
        end = nearest + len(word) - 1


class TextStream:
    """A text that comes in pieces, handed on in pieces that end at a blank."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """The next piece."""
        for start in range(0, len(piece), STEP):
            self._feed(piece[start : start + STEP])

    def _feed(self, piece: bytes) -> None:
        text = self._rest + piece
        if end := _last_blank(text):
            self._rest = text[end:]
            self._take(text[:end])
        elif len(text) > 2 * OVERLAP:
            self._rest = text[-OVERLAP:]
            self._take(text)
        else:
            self._rest = text

    def end(self) -> None:
        """The text is complete."""
        text, self._rest = self._rest, b""
        self._take(text)
