"""Mailboxes -> the text of a header field: ASCII, folded, and without anything that shows another address."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from email.charset import Charset
from typing import Final

from undisclosed.addresses import Address, Mailbox

MAX_NAME: Final = 200
"""Characters of a display name that is kept; a longer one is not the name of a person."""

MAX_ADDRESS: Final = 320
"""Characters: 64 of a local part, the at-sign, 255 of a domain (RFC 5321, section 4.5.3.1)."""

MAX_LINE: Final = 77
"""Characters of a line, if it can be folded: less than 78 (RFC 5322, section 2.1.1)."""

MAX_ENCODED_WORD: Final = 75  # RFC 2047, section 2

_ADDR_SPEC: Final = re.compile(
    r"""(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+ | "(?: [ !#-\[\]-~] | \\[ -~] )*" )
        @ (?: [A-Za-z0-9._-]+ | \[[A-Za-z0-9.:-]+\] )""",
    re.VERBOSE,
)
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_TO_ESCAPE: Final = re.compile(r'["\\]')
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # controls; raw bytes, which are lone surrogates
_UTF8: Final = Charset("utf-8")

_HIDES_AN_AT_SIGN: Final = ("=?", "=40", "%40")
"""Sequences that may become an at sign if they are decoded once more."""


def value(field: str, boxes: Iterable[Mailbox]) -> str:
    """The value of a field with this name for these mailboxes, all of them writable; "" for none.

    A display name with an address in it, or with characters that a header cannot have, is left out. No line reaches
    998 bytes.
    """
    return _folded(", ".join(map(_entry, boxes)), MAX_LINE - len(f"{field}: "))


def is_writable(address: Address) -> bool:
    """Whether an address can be written as it is: valid, in ASCII, and without another address in its local part."""
    text = address.text
    return (
        len(text) <= MAX_ADDRESS
        and _ADDR_SPEC.fullmatch(text) is not None
        and text.count("@") == 1
        and not any(sign in text for sign in _HIDES_AN_AT_SIGN)
    )


def _entry(box: Mailbox) -> str:
    name = _name(box.name)
    return f"{_phrase(name)} <{box.address.text}>" if name else box.address.text


def _name(name: str) -> str:
    words = " ".join(name.split())
    compatible = unicodedata.normalize("NFKC", words)  # maps a full-width at sign to @
    shows_an_address = any(sign in compatible for sign in ("@", *_HIDES_AN_AT_SIGN))
    return "" if len(words) > MAX_NAME or shows_an_address or _UNFIT.search(words) else words


def _phrase(name: str) -> str:
    """A display name as a phrase (RFC 5322, section 3.2.5; RFC 2047, section 5)."""
    if not name.isascii():
        return " ".join(_encoded_words(name))
    if _ATOMS.fullmatch(name):
        return name
    return '"' + _TO_ESCAPE.sub(r"\\\g<0>", name) + '"'


def _encoded_words(text: str) -> Iterator[str]:
    word = _UTF8.header_encode(text)
    if len(word) <= MAX_ENCODED_WORD:
        yield word
    else:
        half = len(text) // 2
        yield from _encoded_words(text[:half])
        yield from _encoded_words(text[half:])


def _folded(text: str, room: int) -> str:
    """The text folded at blanks into lines of less than 78 characters, if it can be; `room` is for the first line."""
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        if len(lines[-1]) + len(" ") + len(word) > room:
            lines.append(word)
            room = MAX_LINE - len(" ")
        else:
            lines[-1] += " " + word
    return "\n ".join(lines)
