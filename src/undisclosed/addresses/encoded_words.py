"""Encoded words (RFC 2047) in a header field -> the text that a mail client shows in their place.

It is as tolerant as clients are: a word may be in a quoted string or in the middle of an atom, contain blanks, lack its
end, have an unknown charset or broken base64. A word that cannot be decoded stays as it was written. If clients
disagree about a word, the result has both readings, the less likely one at the end: it must contain every text that
some recipient can read.
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
_NOT_LETTERS: Final = re.compile(r"[^A-Za-z0-9+/=]")
_HEX: Final = re.compile(r"(?:=[0-9A-Fa-f]{2})+")
_DOTTED: Final = re.compile(r"@[\w-]++\.\w")

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
_CODECS: Final = frozenset(aliases.values())
_SURROGATES: Final = "surrogates"
"""In place of a codec: UTF-8 with raw bytes as lone surrogates."""
_UNLIKE_ASCII: Final = re.compile(r"utf_(?:7|16|32)|cp(?:037|273|424|500|875|1026|1140)")
"""Charsets that many clients refuse (UTF-7) or do not know (EBCDIC); they show the bytes as if they were ASCII."""


def decoded(text: str) -> str:
    """Return `text` with every encoded word decoded; neighbours are joined without the blank between them.

    Second readings follow at the end. Never raises; the cost is linear in the length of the text.
    """
    if "=?" not in text:
        return text
    shown: list[str] = []
    others: list[str] = []
    run, codec, done = bytearray(), "", 0
    for begin, end, word_codec, word, other in _words(text):
        between = text[done:begin]
        apart = not done or (between != "" and not between.isspace())
        # Bytes of neighbouring words are joined before they are decoded: encoders split inside a character.
        if apart or word_codec != codec:
            shown.append(_text(run, codec))
            others.append(_as_ascii(run, codec))
            run.clear()
        if apart:
            shown.append(between)
        others.append(other)
        run += word
        codec, done = word_codec, end
    others.append(_as_ascii(run, codec))
    return " ".join(["".join([*shown, _text(run, codec), text[done:]]), *filter(None, others)])


def _words(text: str) -> Iterator[tuple[int, int, str, bytes, str]]:
    """Yield each encoded word: where it begins and ends, its codec, its bytes, and a second reading or ""."""
    starts = list(_START.finditer(text))
    end_mark = 0
    for number, start in enumerate(starts):
        if end_mark != -1 and end_mark < start.end():
            end_mark = text.find("?=", start.end())
        limit = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        if start.end() <= end_mark <= limit:
            payload, end = text[start.end() : end_mark], end_mark + 2
        else:  # its end is missing: it ends before the first character that belongs to the address
            unended = _UNENDED.match(text, start.end(), limit)
            assert unended is not None
            payload, end = unended[0], unended.end()
        codec = _codec(start[1])
        if start[2] in "bB":
            yield start.start(), end, *_base64(payload, codec)
        elif payload.isascii():
            yield start.start(), end, codec, *_quoted_printable(payload, codec)
        else:
            yield start.start(), end, _SURROGATES, *_mixed(payload, codec)


def _base64(payload: str, codec: str) -> tuple[str, bytes, str]:
    # Padding in the middle: an encoder joined the letters of two words.
    data = b"".join(map(_bytes, _NOT_LETTERS.sub("", payload).split("=")))
    if _NOT_BASE64.search(payload):  # most clients show such a word undecoded
        return _SURROGATES, payload.encode("utf-8", "surrogatepass"), _text(data, codec)
    return codec, data, ""


def _bytes(letters: str) -> bytes:
    # A single surplus letter holds no whole byte, and binascii would refuse all letters because of it.
    return binascii.a2b_base64(letters[: -1 if len(letters) % 4 == 1 else None] + "==")


def _quoted_printable(payload: str, codec: str) -> tuple[bytes, str]:
    one_line = payload.replace("\r", " ").replace("\n", " ")  # `=` before a line end would remove the line end
    word, other = binascii.a2b_qp(one_line, header=True), ""
    if "@" in payload and "_" in payload:
        # An encoder that does not encode the at sign may not encode `first_last` either: with blanks in their place,
        # a_x@h and b_x@h would be one address.
        other = _text(binascii.a2b_qp(one_line), codec)
    if _DOTTED.search(payload) and _text(word, codec).count("@") < payload.count("@"):
        other += " " + payload  # ISO-2022 decodes two ASCII letters to one; clients that do not decode show both
    return word, other


def _mixed(payload: str, codec: str) -> tuple[bytes, str]:
    """Decode a word that contains letters beyond ASCII, which keep their meaning."""
    text = _HEX.sub(lambda letters: _text(bytes.fromhex(letters[0].replace("=", "")), codec), payload)
    return text.replace("_", " ").encode("utf-8", "surrogatepass"), text if "_" in text else ""


def _as_ascii(data: bytearray, codec: str) -> str:
    """The text shown by a client that does not know the charset, if it may contain an address, else ""."""
    return data.decode("latin-1") if b"@" in data and _UNLIKE_ASCII.match(codec) else ""


@functools.lru_cache(maxsize=256)
def _codec(charset: str) -> str:
    """Return the Python codec of a charset, "" for an unknown one.

    Only codecs in Python's table of aliases: Python looks up other names in the file system and keeps the result
    forever, and two codecs that are not in the table (punycode, idna) take quadratic time.
    """
    name = charset.partition("*")[0].lower().replace("-", "_")  # a language may follow: RFC 2231, section 5
    return _MORE_CHARSETS.get(name) or aliases.get(name) or (name if name in _CODECS else "")


def _text(data: bytes | bytearray, codec: str) -> str:
    if codec == _SURROGATES:
        return data.decode("utf-8", "surrogatepass")
    if codec:
        try:
            return data.decode(codec, "replace")
        except (UnicodeError, LookupError):  # a codec that is not for text (base64, rot13), or that knows no "replace"
            pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
