"""The bytes of a message -> its header fields and its body, by Postfix's rules (`mime_state.c`).

A header line is a name (RFC 5322, section 3.6.8), blanks, as was once allowed, and a colon; lines that begin with a
blank belong to the field before. The first other line ends the header, with or without an empty line before it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from undisclosed.decision.message import Field

_NAME: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")


class RawField(NamedTuple):
    """One header field as bytes."""

    name: str
    value: bytes
    """All that follows the colon, folds included, without the last line feed."""
    line: bytes
    """The whole field, its last line feed included."""


class RawMessage(NamedTuple):
    """A message in its parts."""

    fields: tuple[RawField, ...]
    rest: bytes
    """All that follows the header, the empty line included."""


def split(content: bytes) -> RawMessage:
    """The fields of a message and what follows them. Its cost is linear."""
    fields: list[RawField] = []
    start = 0
    while name := _NAME.match(content, start):
        end = content.find(b"\n", name.end())
        while end >= 0 and content[end + 1 : end + 2] in (b" ", b"\t"):
            end = content.find(b"\n", end + 1)
        end = len(content) if end < 0 else end
        fields.append(RawField(name[1].decode("ascii"), content[name.end() : end], content[start : end + 1]))
        start = end + 1
    return RawMessage(tuple(fields), content[start:])


def as_field(name: str, value: bytes) -> Field:
    """A field as libmilter hands it over: without one blank after the colon."""
    return Field(name, value.removeprefix(b" ").decode("utf-8", "surrogateescape"))
