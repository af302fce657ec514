"""Saved messages, read as Postfix passes messages to the milter.

The rules are those of `mime_state.c`, `smtpd.c` and `milter8.c`, checked against the events that a milter got from
Postfix 3.7: which lines are header fields, what ends the header, what is cut, and which fields no milter gets. Other
rules would explain another message than the one that is sent.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from undisclosed.addresses import addresses, mailboxes
from undisclosed.decision import header_bytes
from undisclosed.decision.header_bytes import as_field
from undisclosed.decision.message import Client, Field, Message, key_of
from undisclosed.decision.queue_file import QueueFileError
from undisclosed.decision.saved_queue_file import SavedQueueFile, is_printed, saved

PIECE: Final = 2 * 1024 * 1024
"""Bytes of a file that are read at once. The first piece has room for a header as long as one that is decided on."""

FIELD_LIMIT: Final = 60_000
"""Bytes of one header field, name and folds included: Postfix cuts off the rest if it has milters."""

DROPPED: Final = frozenset({"bcc", "content-length", "resent-bcc", "return-path"})
"""Fields that Postfix removes before any milter gets them (the default of message_drop_headers, postconf(5))."""

STDIN: Final = "-"

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""Written by an editor before the first field; no part of the message."""


class SavedMessageError(Exception):
    """A file that is no saved message or cannot be read, with the problem and its fix."""

    def __init__(self, file: str, problem: str, fix: str) -> None:
        super().__init__(f"{file}: {problem}; {fix}")
        self.file = file
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Envelope:
    """The envelope, as far as the command line gives it.

    A value of None is taken from the queue file if `postcat` printed one, else it is guessed: the sender from
    Return-Path or From, the recipients from To, Cc and Bcc, the client as this host without a login.
    """

    sender: str | None = None
    """Without angle brackets; empty for the null sender."""
    recipients: tuple[str, ...] | None = None
    client: str | None = None
    """A numeric address."""
    login: str | None = None
    """The login name of an authenticated client; empty for another client."""


@dataclass(frozen=True, slots=True)
class SavedMessage:
    """A saved message as the milter would get it."""

    file: str
    message: Message
    body: Iterable[bytes]
    """The body in pieces, which can be read once."""
    remarks: tuple[str, ...] = ()
    """The differences between the message as sent and the message as saved, in words."""


def content(file: str, stdin: BinaryIO) -> tuple[bytes, Iterator[bytes]]:
    """The first piece of a file, or of standard input for `-`, and the others. Reading raises SavedMessageError."""
    pieces = _pieces(file, stdin)
    return next(pieces, b""), pieces


def _pieces(file: str, stdin: BinaryIO) -> Iterator[bytes]:
    try:
        with nullcontext(stdin) if file == STDIN else Path(file).open("rb") as stream:
            while piece := stream.read(PIECE):
                yield piece
    except IsADirectoryError as error:
        raise SavedMessageError(file, "a directory", "name the files in it, one message each") from error
    except FileNotFoundError as error:
        raise SavedMessageError(file, "no such file", "check its name") from error
    except PermissionError as error:
        raise SavedMessageError(file, "may not be read by you", "ask for permission, or copy it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SavedMessageError(file, f"cannot be read ({error})", "copy it to a disk that can be read") from error


def read(file: str, raw: bytes, envelope: Envelope = Envelope(), rest: Iterable[bytes] = ()) -> SavedMessage:
    """Read a saved message: `.eml`, one message of an mbox, or the output of `postcat -q`.

    `file` is its name, `raw` its first piece, `rest` the others: they are read with the body. Raises SavedMessageError
    if it is no message, or more than one.
    """
    if not raw.strip():
        raise SavedMessageError(file, "empty", "save the message once more, with its header")
    if is_printed(raw):  # its envelope goes on behind the message
        raw, rest = b"".join([raw, *rest]), ()
    try:
        queue_file = saved(raw)
    except QueueFileError as error:
        fix = "print it again with `postcat -q`, and change nothing but addresses"
        raise SavedMessageError(file, f"no output of postcat as Postfix writes it ({error})", fix) from error
    text = (queue_file.content if queue_file else raw).removeprefix(BYTE_ORDER_MARK)
    header = _header(text)
    if all(name == _MAILBOX_LINE for name, _ in header.fields):
        raise SavedMessageError(file, *_no_message(raw))
    if text.startswith(b"From ") and _NEXT_MESSAGE.search(header.body):
        raise SavedMessageError(file, "a mailbox of several messages", "save each message to a file of its own")
    fields = [as_field(name, value[: _room(name)]) for name, value in header.fields]
    return SavedMessage(
        file=file,
        message=_message(fields, envelope, queue_file),
        body=itertools.chain((header.body,), rest),
        remarks=tuple(_remarks(header)),
    )


class _Header(NamedTuple):
    """A message in its parts. Values begin after the colon, and are not cut yet."""

    fields: list[tuple[str, bytes]]
    body: bytes
    stray: int | None
    """The number of the line that ended the header although it is not empty."""


_FROM_LINE: Final = re.compile(rb">*From [^\n]*\n?")
_MAILBOX_LINE: Final = "X-Mailbox-Line"
"""The field that Postfix makes of a `From ` line of a mailbox file at the top of a message."""

_NEXT_MESSAGE: Final = re.compile(rb"\n\r?\nFrom [^\n]{0,200}\d:\d\d[^\n]{0,200}\n[!-9;-~]{1,200}[ \t]*:")


_EMPTY_LINE: Final = re.compile(rb"\r?(?:\n|\Z)")


def _header(text: bytes) -> _Header:
    fields: list[tuple[str, bytes]] = []
    start = 0
    while line := _FROM_LINE.match(text, start):
        fields.append((_MAILBOX_LINE, b" " + _as_kept(line[0].removesuffix(b"\n"))))
        start = line.end()
    message = header_bytes.split(text[start:])
    fields += [(name, _as_kept(value)) for name, value, _ in message.fields]
    if empty := _EMPTY_LINE.match(message.rest):
        return _Header(fields, message.rest[empty.end() :], None)
    return _Header(fields, message.rest, text.count(b"\n", 0, len(text) - len(message.rest)) + 1)


def _as_kept(value: bytes) -> bytes:
    """The lines of a field as Postfix keeps them: nothing from a NUL on, and a lone carriage return is a blank."""
    lines = (line.removesuffix(b"\r").partition(b"\0")[0].replace(b"\r", b" ") for line in value.split(b"\n"))
    return b"\n".join(lines)


def _room(name: str) -> int:
    return FIELD_LIMIT - len(name) - len(":")


def _remarks(header: _Header) -> Iterator[str]:
    names = {key_of(name) for name, _ in header.fields}
    for name in ("Bcc", "Resent-Bcc"):
        if key_of(name) in names:
            yield f"{name} is left out, as Postfix does it (message_drop_headers): no recipient sees it"
    for name, value in header.fields:
        if len(value) > _room(name):
            yield f"{name} is cut off after {FIELD_LIMIT} bytes, as Postfix does it"
    if header.stray is not None:
        yield f"line {header.stray} is no header field: Postfix takes it, and all that follows, for the body"


def _message(fields: Sequence[Field], envelope: Envelope, queue_file: SavedQueueFile | None) -> Message:
    """The message with its envelope: from the command line, else from the queue file, else guessed."""
    whole = Message("", (), tuple(fields))
    sender, recipients = envelope.sender, envelope.recipients
    client = queue_file.client if queue_file else Client("127.0.0.1")
    if queue_file is not None:
        sender = queue_file.sender if sender is None else sender
        recipients = queue_file.recipients or None if recipients is None else recipients
    if envelope.client is not None:
        client = Client(envelope.client, None, client.login)
    if envelope.login is not None:
        client = replace(client, login=envelope.login)
    return Message(
        sender=_guess_sender(whole) if sender is None else sender,
        recipients=_guess_recipients(whole) if recipients is None else recipients,
        fields=tuple(field for field in fields if key_of(field.name) not in DROPPED),
        client=client,
    )


def _guess_sender(message: Message) -> str:
    for value in message.values("return-path"):
        if named := addresses(value):
            return named[0].text
        if "<>" in value:
            return ""
    return next((box.address.text for value in message.values("from") for box in mailboxes(value)), "")


def _guess_recipients(message: Message) -> tuple[str, ...]:
    by_key = {
        address.key: address.text
        for name in ("to", "cc", "bcc")
        for value in message.values(name)
        for address in addresses(value)
    }
    return tuple(by_key.values())


_FOREIGN: Final = {
    b"\xd0\xcf\x11\xe0": ("in Outlook's own format (.msg)", "save it as text or .eml instead"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it first"),
    b"\xff\xfe": ("text in UTF-16", "save it in UTF-8 or as it was sent"),
    b"\xfe\xff": ("text in UTF-16", "save it in UTF-8 or as it was sent"),
}
"""Files that people save in place of a message, by their first bytes."""


def _no_message(raw: bytes) -> tuple[str, str]:
    for start, answer in _FOREIGN.items():
        if raw.startswith(start):
            return answer
    return "does not begin with a header field", "save the whole message with its header, as .eml or its source"
