"""Encoded words (RFC 2047) in a header field -> the text that a mail client shows in their place.

More forgiving than the RFC, as clients are: a word may stand in a quoted string or in the middle of an atom, hold
blanks, lack its end, name an unknown charset or be broken base64. What cannot be decoded stays readable as it was
written, and where clients disagree about a word both readings are given: what any recipient can read has to be in the
answer.
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Iterator
from encodings.aliases import aliases
from typing import Final

# Bounded, so that each `=?` of a hostile field costs the same however long the field is.
_START: Final = re.compile(r"=\?([^?\s]{0,60})\?([bq])\?", re.IGNORECASE)
_UNENDED: Final = re.compile(r'[^\s<>",;()]*+')
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/=\s]")
_HEX: Final = re.compile(r"(?:=[0-9A-Fa-f]{2})+")
_AT_SIGN: Final = re.compile("[@\uff20\ufe6b]")

_MORE_CHARSETS: Final = {
    # Names that senders use and Python does not know, and subsets whose supersets senders really mean.
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x_gbk": "gb18030",
    "x_sjis": "cp932",
    "shift_jis": "cp932",
    "ks_c_5601_1987": "cp949",
    "x_big5": "big5hkscs",
    "iso_8859_8_i": "iso8859_8",
    "windows_874": "cp874",
    "koi8_u": "koi8_u",
    "iso_8859_1": "cp1252",
    "latin1": "cp1252",
    "us_ascii": "cp1252",
    "unicode_1_1_utf_7": "utf_7",
}
_UNLIKE_ASCII: Final = re.compile(r"utf_(?:7|16|32)|cp(?:037|273|424|500|875|1026|1140)")
"""Charsets that many clients refuse (UTF-7) or do not know (EBCDIC); they show the bytes as if they were ASCII."""


def decoded(text: str) -> str:
    """Return `text` with every encoded word replaced by what it stands for; neighbours are joined without the blank.

    Never raises; the cost is linear in the length of `text`.
    """
    if "=?" not in text:
        return text
    shown: list[str] = []
    run, codec, done = bytearray(), "", 0
    for begin, end, word_codec, word, rest in _words(text):
        between = text[done:begin]
        # Bytes of neighbouring words are joined before they are decoded: encoders split inside a character.
        if run and (word_codec != codec or not (between == "" or between.isspace())):
            shown.append(_text(run, codec))
            run.clear()
        if not done or not between.isspace():
            shown.append(between)
        codec, done = word_codec, end
        run += word
        if rest:
            shown += [_text(run, codec), rest]
            run.clear()
    if run:
        shown.append(_text(run, codec))
    shown.append(text[done:])
    return "".join(shown)


def _words(text: str) -> Iterator[tuple[int, int, str, bytes, str]]:
    """Yield each encoded word: begin, end, codec, its bytes, and text to show besides (another reading of it)."""
    starts = list(_START.finditer(text))
    end_mark = 0
    for number, start in enumerate(starts):
        if end_mark != -1 and end_mark < start.end():
            end_mark = text.find("?=", start.end())
        limit = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        if start.end() <= end_mark <= limit:
            payload, end = text[start.end() : end_mark], end_mark + 2
        else:  # cut off, or its end is missing: up to what can only be the address behind the name
            unended = _UNENDED.match(text, start.end(), limit)
            assert unended is not None
            payload, end = unended[0], unended.end()
        codec = _codec(start[1])
        word, rest = _base64(payload) if start[2] in "bB" else _quoted_printable(payload, codec)
        if _UNLIKE_ASCII.match(codec) and b"@" in word:
            rest += " " + word.decode("latin-1")
        yield start.start(), end, codec, word, rest


def _base64(payload: str) -> tuple[bytes, str]:
    letters = _NOT_BASE64.sub("", payload).rstrip("=")
    other = (
        "" if letters == payload.rstrip("=") else f" {payload} "
    )  # no base64 after all: some clients show it as it is
    try:
        # One letter too many holds no whole byte, and binascii refuses the whole word for it.
        return binascii.a2b_base64(letters[: -1 if len(letters) % 4 == 1 else None] + "=="), other
    except binascii.Error:
        return b"", f" {payload} "


def _quoted_printable(payload: str, codec: str) -> tuple[bytes, str]:
    if not payload.isascii():  # raw letters between the encoded ones keep their own meaning
        shown = _HEX.sub(lambda run: _text(bytes.fromhex(run[0].replace("=", "")), codec), payload)
        return b"", shown.replace("_", " ") + (f" {shown}" if "_" in shown else "")
    one_line = payload.replace("\r", " ").replace("\n", " ")  # else `=` before a line end would swallow what follows
    other = ""
    if "@" in payload and "_" in payload:
        # An encoder that leaves the at sign as it is may leave `first_last` too: as blanks, a_x@h and b_x@h are one.
        other = f" {_text(binascii.a2b_qp(one_line), codec)} "
    return binascii.a2b_qp(one_line, header=True), other


@functools.lru_cache(maxsize=256)
def _codec(charset: str) -> str:
    """Return the Python codec of a charset, "" for an unknown one.

    Only codecs of Python's table of aliases: a name that is not there Python looks up in the file system and remembers
    forever, and two codecs that are not there (punycode, idna) are quadratic on what a hostile sender writes.
    """
    name = charset.partition("*")[0].lower().replace("-", "_")  # a language may follow: RFC 2231, section 5
    return _MORE_CHARSETS.get(name) or aliases.get(name) or (name if name in aliases.values() else "")


def _text(data: bytes | bytearray, codec: str) -> str:
    if codec:
        try:
            return data.decode(codec, "replace")
        except (UnicodeError, LookupError):  # a codec that is not for text (base64, rot13), or that knows no "replace"
            pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
