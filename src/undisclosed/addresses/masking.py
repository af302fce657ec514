"""Text of other programs -> the same without addresses: Postfix's answers name the recipients of a message."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "…"

_WORD: Final = re.compile(
    r"""
    <[^<>]*>?                                        # in angle brackets, also where the end is cut off
    | \A[^\s<>]*+>                                   # where the beginning is cut off
    | (?:"(?:[^"\\]|\\.){0,200}+" | [^\s<])++        # a word; a local part in quotation marks may have blanks
    """,
    re.VERBOSE,
)
_AT_SIGNS: Final = ("@", "\uff20", "\ufe6b")


def without_addresses(text: str) -> str:
    """The text with a mask for all that stands in angle brackets, and for each word with an at sign."""
    return _WORD.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    word = found[0]
    if word.startswith("<") or (found.start() == 0 and word.endswith(">") and len(word) > 1):
        return MASK
    if any(sign in word for sign in _AT_SIGNS):
        return MASK + word[len(word.rstrip(".,:;")) :]
    return word
