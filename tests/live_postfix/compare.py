"""Comparing whole messages, without regard to line ends and to fields that Postfix added."""

from __future__ import annotations

from support.casefile import header_lines


def subject(message: bytes) -> bytes:
    """The Subject field."""
    return next(line for line in message.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"Subject:"))


def same(one: bytes, other: bytes) -> bool:
    """Whether two messages are the same, but for line ends."""
    return (header_lines(one, other), body(one)) == (header_lines(other, other), body(other))


def body(message: bytes) -> bytes:
    """The body, with LF line ends."""
    return message.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
