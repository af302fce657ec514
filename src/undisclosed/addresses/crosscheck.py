"""The second reader of a header value, independent of `reader.py`: every at sign with the text around it.

A rewrite is accepted only if both readers find nothing. This one has no grammar: broken syntax cannot mislead it, and
it may find an address where there is none, which costs a display name.
"""

from __future__ import annotations

import binascii
import contextlib
import itertools
import re
import unicodedata
from collections.abc import Iterator
from encodings.aliases import aliases
from typing import Final, NamedTuple

from undisclosed.addresses.domains import to_ascii

_ENCODED_WORD: Final = re.compile(r"=\?([^?*\s]*+)[^?]*+\?([bq])\?([^?]*)\?=", re.IGNORECASE)
_BETWEEN_ENCODED_WORDS: Final = re.compile(r"\?=\s+(?==\?)")
_COMMENT: Final = re.compile(r"\([^()]*\)")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)

_CODECS: Final = frozenset(aliases.values())
"""Character sets that are decoded. Python would look up a name outside its own table in the file system and keep the
result forever; and two codecs outside it (punycode, idna) take quadratic time."""

_DELIMITERS: Final = r"""\s<>()\[\]\\,;:"'@\u2018-\u201f\xab\xbb"""
_WORD: Final = rf"[^{_DELIMITERS}?=/&|!]++"
_DOMAIN: Final = re.compile(rf"(\s*)(\[[^\]\s]*\]|{_WORD})((?:\s++{_WORD})*)")
_LOCAL_BACKWARDS: Final = re.compile(rf"\s*([^{_DELIMITERS}]*)")


class Candidate(NamedTuple):
    """The text around one at sign, which may be an address."""

    local: str
    """Case-folded; empty if it is quoted or missing."""
    domain: str
    """As `domains.to_ascii` spells it."""


def candidates(value: str) -> set[Candidate]:
    """The candidates in one header value: raw, decoded by RFC 2047, and without comments.

    The cost is linear. Never raises.
    """
    return {candidate for text in decodings(value) for candidate in _around_at_signs(text)}


def decodings(value: str) -> set[str]:
    """The texts that clients may show for a header value: some decode where RFC 2047 forbids it."""
    texts = {value}
    if "=?" in value:
        joined = _BETWEEN_ENCODED_WORDS.sub("?=", value)
        texts |= {_ENCODED_WORD.sub(shown, joined) for shown in (_decoded, _undecoded)}
        # Some clients decode the letters of an encoded word that is cut off or contains blanks.
        texts.add(value.replace("=40", "@").replace("=2E", ".").replace("=2e", "."))
    if "%40" in value:
        texts.add(value.replace("%40", "@"))
    if "(" in value:
        texts |= {_COMMENT.sub("", text) for text in texts}
    if "\\" in value:
        texts |= {_ESCAPED.sub(r"\1", text) for text in texts}
    return {text if text.isascii() else unicodedata.normalize("NFKC", text) for text in texts}


def _decoded(word: re.Match[str]) -> str:
    name = word[1].lower().replace("-", "_")
    codec = aliases.get(name, name)
    with contextlib.suppress(UnicodeError, LookupError):  # a codec that is not for text, or without "replace"
        return _bytes(word).decode(codec if codec in _CODECS else "latin-1", "replace")
    return ""


def _undecoded(word: re.Match[str]) -> str:
    """The text shown by a client that does not know the character set."""
    return _bytes(word).decode("latin-1")


def _bytes(word: re.Match[str]) -> bytes:
    text = word[3].encode("utf-8", "surrogateescape")
    if word[2] in "qQ":
        return binascii.a2b_qp(text, header=True)
    with contextlib.suppress(binascii.Error):
        return binascii.a2b_base64(text + b"===")
    return text


def _around_at_signs(text: str) -> Iterator[Candidate]:
    pieces = text.split("@")
    for left, right in itertools.pairwise(pieces):
        domain = _DOMAIN.match(right)
        if domain is None or (domain[1] and "." not in domain[2]):  # "Team @ Council" is no address
            continue
        local = _LOCAL_BACKWARDS.match(left[::-1])
        name = local[1][::-1].casefold() if local else ""
        yield Candidate(name, to_ascii(domain[2]).strip("."))
        if domain[3]:  # email.utils and others ignore blanks in a domain, and read the words behind it as well
            yield Candidate(name, to_ascii("".join((domain[2] + domain[3]).split())).strip("."))
