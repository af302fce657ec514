"""Text in printable ASCII, as an SMTP reply must be (RFC 5321, section 4.2): letters of other scripts are spelled."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

from anyascii import anyascii

_SPELLINGS: Final = {"de": str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})}
"""Transliterations of a language that differ from the plain letter: München is Muenchen. Welsh letters lose their
circumflex (Llŷn is Llyn, tŷ is ty), as in Welsh web and mail addresses."""


@functools.lru_cache(maxsize=256)
def plain(text: str, languages: tuple[str, ...] = ()) -> str:
    """The text in printable ASCII and single blanks, without a full stop at its end; empty if nothing readable is left.

    Scripts whose transliteration few of their readers would recognise are left out (Han, which is read as Chinese
    whatever the language; Hebrew and Arabic, which are written without vowels), and so are symbols.
    """
    composed = unicodedata.normalize("NFC", text)
    for language in languages:
        composed = composed.translate(_SPELLINGS.get(language, {}))
    kept = "".join(map(_spell, composed))
    if not re.search("[A-Za-z0-9]", kept) or (
        not re.search("[A-Za-z]", kept) and any(char.isalpha() for char in composed)
    ):
        return ""  # "3" is not a name if the words around it were left out
    return " ".join(kept.split()).rstrip(" .,;:")


def _spell(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() else " "
    if char.isspace():
        return " "
    if unicodedata.category(char) in ("So", "Cf", "Cs", "Co", "Cn", "Cc"):
        return ""
    if unicodedata.bidirectional(char) in ("R", "AL") or unicodedata.name(char, "").startswith("CJK "):
        return ""
    try:
        return anyascii(char)
    except OSError:  # its tables are files, read at first use: a shorter name is better than no reply at all
        return ""
