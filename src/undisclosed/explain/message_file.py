"""Saved messages, read as Postfix would hand them to the milter.

The rules are Postfix's, read in `mime_state.c`, `smtpd.c` and `milter8.c` and seen in what a milter was given by
Postfix 3.7: which lines are header fields, what ends the header, what is cut, and which fields no milter ever sees. A
reader with rules of its own would explain another message than the one that is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeVar

from undisclosed.addresses import addresses, mailboxes
from undisclosed.decision.message import Client, Field, Message
from undisclosed.decision.obstacles import BODY_LIMIT

READ_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a file that are read: more than Postfix takes in its default configuration (message_size_limit)."""

FIELD_LIMIT: Final = 60_000
"""Bytes of one header field, name and folds included: with milters in use Postfix cuts off the rest."""

DROPPED: Final = frozenset({"bcc", "content-length", "resent-bcc", "return-path"})
"""Fields that Postfix takes out before any milter sees them (message_drop_headers in postconf(5), its default)."""

STDIN: Final = "-"

T = TypeVar("T")


class SavedMessageError(Exception):
    """A file that is no saved message, or cannot be read: which one, what is wrong, and what to do."""

    def __init__(self, file: str, problem: str, fix: str) -> None:
        super().__init__(f"{file}: {problem}; {fix}")
        self.file = file
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a saved message does not tell, as far as the person who asks does.

    What is None is taken from the records of the queue file where `postcat` printed it, else guessed: the sender from
    Return-Path or From, the recipients from To, Cc and Bcc; the client is then this host, without a login.
    """

    sender: str | None = None
    """Without angle brackets; empty for the null sender."""
    recipients: tuple[str, ...] | None = None
    client: str | None = None
    """A numeric address."""
    login: str | None = None
    """The name under which the client is authenticated; empty where it is not."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved message as the milter would get it."""

    file: str
    message: Message
    body: bytes
    """Its body's beginning, at most BODY_LIMIT bytes, with CRLF as line ends."""
    complete: bool
    """Whether that is the whole body."""
    remarks: tuple[str, ...] = ()
    """Where the message as sent is not the message as saved, in words."""


def content(file: str, stdin: BinaryIO) -> bytes:
    """The bytes of a file, or of standard input for `-`: at most READ_LIMIT + 1. Raises SavedMessageError."""
    if file == STDIN:
        return stdin.read(READ_LIMIT + 1)
    try:
        with Path(file).open("rb") as stream:
            return stream.read(READ_LIMIT + 1)
    except IsADirectoryError as error:
        raise SavedMessageError(file, "a directory", "name the files in it, one message each") from error
    except FileNotFoundError as error:
        raise SavedMessageError(file, "no such file", "check its name") from error
    except PermissionError as error:
        raise SavedMessageError(file, "may not be read by you", "ask for permission, or copy it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SavedMessageError(file, f"cannot be read ({error})", "copy it to a disk that can be read") from error


def read(file: str, raw: bytes, envelope: Envelope = Envelope()) -> Saved:
    """Read a saved message: `.eml`, one message of an mbox, or what `postcat -q` prints of a queue file.

    `file` only names it. Raises SavedMessageError for what is no message, or more than one.
    """
    if not raw.strip():
        raise SavedMessageError(file, "empty", "save the message once more, with its header")
    text, records = _queue_file(raw)
    header = _header(text.removeprefix(b"\xef\xbb\xbf"))  # a byte order mark comes from an editor, not with the mail
    if not any(name != _MAILBOX_LINE for name, _ in header.fields):
        raise SavedMessageError(file, *_no_message(raw))
    if text.startswith(b"From ") and _NEXT_MESSAGE.search(header.body):
        raise SavedMessageError(file, "a mailbox of several messages", "save each message to a file of its own")
    whole = [_field(name, value) for name, value in header.fields]
    body = re.sub(rb"\r?\n", b"\r\n", header.body[: BODY_LIMIT + 1])
    return Saved(
        file=file,
        message=_message([field for field in whole if field.name.casefold() not in DROPPED], whole, envelope, records),
        body=body[:BODY_LIMIT],
        complete=len(body) <= BODY_LIMIT and len(raw) <= READ_LIMIT,
        remarks=tuple(_remarks(header)),
    )


class _Header(NamedTuple):
    """A message in its parts. Values begin after the colon; their lines are joined by a line feed, and not yet cut."""

    fields: list[tuple[str, bytes]]
    body: bytes
    stray: int | None
    """The number of the line that is no header field and so ended the header, though no empty line stood before it."""


_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:", re.DOTALL)
"""A field's name (RFC 5322, section 3.6.8) and, as was once allowed, blanks before the colon."""

_FROM_LINE: Final = re.compile(rb">*From ")
_MAILBOX_LINE: Final = "X-Mailbox-Line"
"""What Postfix makes of the `From ` lines of mailbox files at the top of a message."""

_NEXT_MESSAGE: Final = re.compile(rb"\n\r?\nFrom [^\n]{0,200}\d:\d\d[^\n]{0,200}\n[!-9;-~]{1,200}[ \t]*:")


def _header(text: bytes) -> _Header:
    fields: list[tuple[str, list[bytes]]] = []
    place = number = 0
    while place < len(text):
        end = text.find(b"\n", place)
        end = len(text) if end < 0 else end
        line = text[place:end].removesuffix(b"\r")
        number += 1
        if line[:1] in (b" ", b"\t") and fields and fields[-1][0] != _MAILBOX_LINE:
            fields[-1][1].append(_readable(line))
        elif _FROM_LINE.match(line) and all(name == _MAILBOX_LINE for name, _ in fields):
            fields.append((_MAILBOX_LINE, [b" " + _readable(line)]))
        elif match := _FIELD.match(line):
            fields.append((match[1].decode("ascii"), [_readable(line[match.end() :])]))
        else:
            stray = number if line else None
            return _Header(_joined(fields), text[place if line else end + 1 :], stray)
        place = end + 1
    return _Header(_joined(fields), b"", None)


def _readable(line: bytes) -> bytes:
    """A line as Postfix keeps it: nothing from a NUL on, and a lone carriage return is a blank."""
    return line.partition(b"\0")[0].replace(b"\r", b" ")


def _joined(fields: Iterable[tuple[str, list[bytes]]]) -> list[tuple[str, bytes]]:
    return [(name, b"\n".join(lines)) for name, lines in fields]


def _field(name: str, value: bytes) -> Field:
    """A field as a milter gets it: cut where Postfix cuts it, and without one blank after the colon."""
    kept = value[: _room(name)].removeprefix(b" ")
    return Field(name, kept.decode("utf-8", "surrogateescape"))


def _room(name: str) -> int:
    return FIELD_LIMIT - len(name) - len(":")


def _remarks(header: _Header) -> Iterable[str]:
    names = {name.casefold() for name, _ in header.fields}
    for name in ("Bcc", "Resent-Bcc"):
        if name.casefold() in names:
            yield f"{name} is left out, as Postfix does it (message_drop_headers): no recipient sees it"
    for name, value in header.fields:
        if len(value) > _room(name):
            yield f"{name} is cut off after {FIELD_LIMIT} bytes, as Postfix does it"
    if header.stray is not None:
        yield f"line {header.stray} is no header field: Postfix takes it, and all that follows, for the body"


class _Records(NamedTuple):
    """What a queue file says of the envelope; None where there was no queue file, or it does not say."""

    sender: str | None = None
    recipients: tuple[str, ...] | None = None
    client: Client = Client("127.0.0.1")


def _queue_file(raw: bytes) -> tuple[bytes, _Records]:
    """The message in postcat's output, and its envelope; anything else is the message itself."""
    if not raw.startswith(b"*** ENVELOPE RECORDS "):
        return raw, _Records()
    envelope, _, rest = raw.partition(b"\n*** MESSAGE CONTENTS ")
    text = rest.partition(b"\n")[2]
    if (end := text.rfind(b"\n*** HEADER EXTRACTED ")) >= 0:  # a longer file than is read has lost it
        text = text[: end + 1]
    records: dict[str, list[str]] = {}
    for line in envelope.decode("utf-8", "surrogateescape").split("\n"):
        key, _, value = line.removeprefix("named_attribute: ").partition("=" if line.startswith("named_") else ": ")
        records.setdefault(key, []).append(value.strip())
    port = records.get("client_port", ["0"])[0]
    return text, _Records(
        sender=records.get("sender", [None])[0],
        recipients=tuple(records.get("recipient", []) + records.get("done_recipient", [])) or None,
        client=Client(
            # mail through sendmail(1) has no client on record; the milter is shown 127.0.0.1 and port 0 for it
            records.get("client_address", ["127.0.0.1"])[0],
            int(port) if port.isdecimal() else None,
            records.get("sasl_username", [""])[0],
        ),
    )


def _message(fields: list[Field], whole: list[Field], envelope: Envelope, records: _Records) -> Message:
    guess = Message("", (), tuple(whole))
    client = records.client
    if envelope.client is not None:
        client = Client(envelope.client, None, client.login)
    if envelope.login is not None:
        client = Client(client.address, client.port, envelope.login)
    return Message(
        sender=_first(envelope.sender, records.sender, lambda: _guess_sender(guess)),
        recipients=_first(envelope.recipients, records.recipients, lambda: _guess_recipients(guess)),
        fields=tuple(fields),
        client=client,
    )


def _first(asked: T | None, recorded: T | None, guess: Callable[[], T]) -> T:
    if asked is not None:
        return asked
    return recorded if recorded is not None else guess()


def _guess_sender(message: Message) -> str:
    for value in message.values("return-path"):
        if found := addresses(value):
            return found[0].text
        if "<>" in value:
            return ""
    return next((box.address.text for value in message.values("from") for box in mailboxes(value)), "")


def _guess_recipients(message: Message) -> tuple[str, ...]:
    found = {
        address.key: address.text
        for name in ("to", "cc", "bcc")
        for value in message.values(name)
        for address in addresses(value)
    }
    return tuple(found.values())


_FOREIGN: Final = {
    b"\xd0\xcf\x11\xe0": ("in Outlook's own format (.msg)", "save it as text or .eml instead"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it first"),
    b"\xff\xfe": ("text in UTF-16", "save it in UTF-8 or as it was sent"),
    b"\xfe\xff": ("text in UTF-16", "save it in UTF-8 or as it was sent"),
}
"""What people save instead of a message, by the first bytes."""


def _no_message(raw: bytes) -> tuple[str, str]:
    for start, answer in _FOREIGN.items():
        if raw.startswith(start):
            return answer
    return "does not begin with a header field", "save the whole message with its header, as .eml or its source"
