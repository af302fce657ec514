"""The output of postcat(1) -> the envelope and the message of a queue file, byte by byte.

`parse` reads the form of `postcat -v`, in which each line begins with the type of its record. Without that, a line of
the message that looks like one of postcat's own could end it early, or begin another. Types: rec_type.h of Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from undisclosed.decision.message import Client

NEVER: Final = 1
NOTIFY: Final = {NEVER: "NEVER", 2: "SUCCESS", 4: "FAILURE", 8: "DELAY"}
"""The bits of `notify_flags` (dsn_mask.h)."""

RETURN: Final = {"1": "FULL", "2": "HDRS"}
"""The values of `ret_flags` (dsn_mask.h)."""

SMTPUTF8_REQUESTED: Final = 1
"""The bit of the sixth number of `message_size` for a client's request (smtputf8.h); the others are guesses."""

BY_SENDMAIL: Final = Client("127.0.0.1", 0)
"""The client that a milter is told for mail through sendmail(1), which has none."""


class QueueFileError(Exception):
    """The output of postcat is not complete, or has an unknown record. The text says which."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One envelope recipient to whom the message has not been delivered."""

    address: str
    """Without quotes, as Postfix stores it. Bytes that are no UTF-8 are lone surrogates, in all texts here."""
    original: str | None = None
    """The original recipient of DSN, `type;address`, decoded (RFC 3461, section 4.2)."""
    notify: int = 0
    """Bits of NOTIFY; 0: not given."""
    automatic: bool = False
    """Whether Postfix added it (always_bcc and the like): the sender did not write to it."""


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A queued message: its envelope and its bytes."""

    queue_id: str
    arrived: datetime
    """UTC, to the second."""
    size: int
    """As postqueue(1) reports it."""
    sender: str
    """Empty for the null sender."""
    recipients: tuple[Recipient, ...]
    content: bytes
    """Header and body, each line ended by a line feed."""
    smtputf8: bool = False
    eight_bit: bool = False
    """Whether the client said BODY=8BITMIME."""
    ret: str | None = None
    """FULL or HDRS, if the sender gave it (RFC 3461, section 4.3)."""
    envelope_id: str | None = None
    """Decoded."""
    client: Client = BY_SENDMAIL
    """The client that sent it to Postfix."""


_MARK: Final = re.compile(
    rb"^\*\*\* (ENVELOPE RECORDS|MESSAGE CONTENTS|HEADER EXTRACTED|MESSAGE FILE END) (.*) \*\*\*$"
)
_NO_TEXT: Final = (b"pointer_record:", b"padding:")
"""Records without text, from edits of a milter; postcat follows the pointers itself."""


def parse(printed: bytes) -> dict[str, QueuedMessage]:
    """The queue files in the output of `postcat -vq ID…`, by queue id. Raises QueueFileError."""
    files: dict[str, QueuedMessage] = {}
    reader: _Reader | None = None
    for line in printed.split(b"\n")[:-1]:
        mark = _MARK.match(line) if line.startswith(b"*** ") else None
        if mark is None:
            if reader is None:
                raise QueueFileError("a record that belongs to no queue file")
            reader.take(line)
        elif mark[1] == b"ENVELOPE RECORDS":
            if reader is not None:
                raise QueueFileError("a queue file within a queue file")
            reader = _Reader(mark[2].decode("ascii", "replace").rpartition("/")[2])
        elif reader is None:
            raise QueueFileError("the rest of a queue file without its beginning")
        elif mark[1] == b"MESSAGE FILE END":
            files[reader.queue_id] = reader.message()
            reader = None
        else:
            reader.section = mark[1]
    if reader is not None:
        raise QueueFileError(f"{reader.queue_id} is not complete")
    return files


class SavedQueueFile(NamedTuple):
    """A queue file as a person prints it, with `postcat -q`."""

    content: bytes
    """Header and body."""
    sender: str | None
    """The envelope sender; None if it is missing."""
    recipients: tuple[str, ...]
    """All envelope recipients, also those who have the message already."""
    client: Client


def saved(printed: bytes) -> SavedQueueFile | None:
    """The queue file in the output of `postcat -q`, even if it was cut off; None if this is no output of postcat.

    A line of the message that looks like one of postcat's own may end it early: this is good enough to explain a
    decision, and not for a release.
    """
    if not printed.startswith(b"*** ENVELOPE RECORDS "):
        return None
    envelope, _, rest = printed.partition(b"\n*** MESSAGE CONTENTS ")
    content = rest.partition(b"\n")[2]
    if (end := content.rfind(b"\n*** HEADER EXTRACTED ")) >= 0:  # missing where the file was cut off
        content = content[: end + 1]
    values: dict[str, list[str]] = {}
    for key, value in map(_record, envelope.split(b"\n")):
        values.setdefault(key, []).append((value or "").strip())
    first = {key: found[0] for key, found in values.items()}
    recipients = values.get("recipient", []) + values.get("done_recipient", [])
    return SavedQueueFile(content, first.get("sender"), tuple(recipients), _client(first))


class _Reader:
    """The reader of one queue file, line by line."""

    def __init__(self, queue_id: str) -> None:
        self.queue_id = queue_id
        self.section = b"ENVELOPE RECORDS"
        self._text: list[bytes] = []
        self._values: dict[str, str] = {}
        self._recipients: list[Recipient] = []
        self._original: str | None = None
        self._notify = 0

    def take(self, line: bytes) -> None:
        if self.section == b"MESSAGE CONTENTS":
            self._take_text(line)
            return
        key, value = _record(line)
        if key == "recipient" and value is not None:
            # always_bcc and its like are added behind the content, with NOTIFY=NEVER (cleanup_extracted.c)
            automatic = self.section == b"HEADER EXTRACTED" and self._notify == NEVER and self._original is None
            self._recipients.append(Recipient(value, self._original, self._notify, automatic))
        if key in ("recipient", "done_recipient", "canceled_recipient"):
            self._original, self._notify = None, 0
        elif key == "dsn_orig_rcpt":
            self._original = value or None
        elif key == "notify_flags":
            self._notify = _number(value or "")
        elif value is not None:
            self._values.setdefault(key, value)

    def _take_text(self, line: bytes) -> None:
        if line.startswith(b"regular_text: "):
            self._text.append(line[14:] + b"\n")
        elif line.startswith(b"unterminated_text: "):
            self._text.append(line[19:])
        elif not line.startswith(_NO_TEXT):
            raise QueueFileError(f"{self.queue_id} has a record in its text that is not known")

    def message(self) -> QueuedMessage:
        """The whole message. Raises QueueFileError if something is missing."""
        numbers = self._values.get("message_size", "").split()
        if self.section != b"HEADER EXTRACTED" or len(numbers) < 5 or "sender" not in self._values:
            raise QueueFileError(f"{self.queue_id} is not complete")
        utf8 = _number(numbers[5]) if len(numbers) > 5 else 0
        return QueuedMessage(
            queue_id=self.queue_id,
            arrived=_time(self._values.get("message_arrival_time", "")),
            size=_number(numbers[0]),
            sender=self._values["sender"],
            recipients=tuple(self._recipients),
            content=b"".join(self._text),
            smtputf8=bool(utf8 & SMTPUTF8_REQUESTED),
            eight_bit=self._values.get("encoding") == "8bit",
            ret=RETURN.get(self._values.get("ret_flags", "")),
            envelope_id=self._values.get("envelope_id"),
            client=_client(self._values),
        )


def _record(line: bytes) -> tuple[str, str | None]:
    """The name and the value of one record of an envelope; None where the line has no value."""
    text, separator = line.decode("utf-8", "surrogateescape"), ": "
    if text.startswith("named_attribute: "):
        text, separator = text.removeprefix("named_attribute: "), "="
    key, found, value = text.partition(separator)
    return key, value if found else None


def _client(values: Mapping[str, str]) -> Client:
    """The client, by the first value of each record."""
    if "client_address" not in values:
        return BY_SENDMAIL
    address, port = values["client_address"], values.get("client_port", "")
    return Client(
        address if address != "unknown" else None,
        int(port) if re.fullmatch("[0-9]{1,5}", port) else None,
        values.get("sasl_username", ""),
    )


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise QueueFileError(f"{text!r} is no number")
    return int(text)


def _time(text: str) -> datetime:
    """A time as asctime(3) prints it, in UTC."""
    try:
        return datetime.strptime(text, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    except ValueError as error:
        raise QueueFileError(f"{text!r} is no time") from error
