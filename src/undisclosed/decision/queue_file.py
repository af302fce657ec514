"""The output of postcat(1) -> the envelope and the message of a queue file, byte by byte.

`parse` reads the form of `postcat -v`, in which each line begins with the type of its record. Without that, a line of
the message that looks like one of postcat's own could end it early, or begin another.

postcat prints a line end within a record as it is, and smtpd decodes `ORCPT=rfc822;a+0Ax` and stores the line end
(3.7). The rest of such a record then looks like further records, with recipients and a message that its sender chose.
So three things must agree: each mark comes once and in order; recipients are as many as `message_size` counts; and the
records before the message fill exactly the bytes that `message_size` gives them. A forged line always fails the third:
its real record contains the name that postcat would print, and a record of that type does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from undisclosed.addresses.masking import without_addresses
from undisclosed.decision.message import Client
from undisclosed.decision.queue_records import (
    APPENDED,
    ARRIVAL_TIME,
    MESSAGE_SIZE,
    POINTER,
    RECIPIENT_ATTRIBUTES,
    RECIPIENTS,
    RECORDS,
    Record,
    record,
    replaces,
)

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
    """The output of postcat is not complete, has an unknown record, or contradicts itself. The text says which."""

    def __init__(self, text: str) -> None:
        super().__init__(without_addresses(text))  # it is recorded and logged, and a record may hold an address


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
    content: bytes | memoryview
    """Header and body, each line ended by a line feed. A range of a file, for a message that can be large."""
    smtputf8: bool = False
    eight_bit: bool = False
    """Whether the client said BODY=8BITMIME."""
    ret: str | None = None
    """FULL or HDRS, if the sender gave it (RFC 3461, section 4.3)."""
    envelope_id: str | None = None
    """Decoded."""
    client: Client = BY_SENDMAIL
    """The client that sent it to Postfix."""
    redirect_to: str | None = None
    """The one address to which Postfix delivers it in place of all recipients (REDIRECT)."""
    content_filter: str | None = None
    """The transport and next hop to which Postfix gives it (content_filter, FILTER)."""
    content_inspector: str | None = None
    verp_delimiters: str | None = None
    """Each recipient gets it from an envelope sender of their own (VERP)."""
    send_options: int = 0
    """The sixth number of `message_size`: bits of sendopts.h, in older versions of smtputf8.h."""
    trace_flags: int = 0
    """Bits of deliver_request.h, for `sendmail -v` and `-bv`."""


_MARK: Final = re.compile(
    rb"^\*\*\* (ENVELOPE RECORDS|MESSAGE CONTENTS|HEADER EXTRACTED|MESSAGE FILE END) (.*) \*\*\*$"
)
_ENVELOPE, _CONTENTS, _EXTRACTED, _END = (
    b"ENVELOPE RECORDS",
    b"MESSAGE CONTENTS",
    b"HEADER EXTRACTED",
    b"MESSAGE FILE END",
)
_NEXT: Final = {_ENVELOPE: _CONTENTS, _CONTENTS: _EXTRACTED, _EXTRACTED: _END}
"""The mark that must follow each mark."""

_MARK_SIZE: Final = 2
"""The bytes of the record that is printed as a mark: its type, and a length of zero."""

_NO_TEXT: Final = (b"pointer_record: ", b"padding: ")
"""Records without text, from edits of a milter; postcat follows the pointers itself."""


class Text(Protocol):
    """Takes the text of a message line by line, and gives it back."""

    def write(self, data: bytes, /) -> None:
        """Add a line, or a part of one."""

    def content(self) -> bytes | memoryview:
        """The whole text. Called once, at its end."""

    def close(self) -> None:
        """Drop a text of which no more is needed. `content` may have been called before."""


class TextInMemory:
    """The text of a message that is small, or in memory already."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def write(self, data: bytes, /) -> None:
        """Add bytes."""
        self._lines.append(data)

    def content(self) -> bytes:
        """All bytes that were added."""
        return b"".join(self._lines)

    def close(self) -> None:
        """Drop the bytes."""
        self._lines.clear()


def lines(printed: bytes) -> Iterator[bytes]:
    """The lines of a print that is in memory, with their line feeds."""
    return (found[0] for found in re.finditer(rb"[^\n]*\n|[^\n]+", printed))


def parse(printed: Iterable[bytes], new_text: Callable[[], Text] = TextInMemory) -> dict[str, QueuedMessage]:
    """The queue files in the lines of `postcat -vq ID…`, by queue id. Raises QueueFileError."""
    files: dict[str, QueuedMessage] = {}
    reader: _Reader | None = None
    try:
        for whole_line in printed:
            line = whole_line.removesuffix(b"\n")
            if len(line) == len(whole_line):
                raise QueueFileError("the output of postcat was cut off")
            mark = _MARK.match(line) if line.startswith(b"*** ") else None
            if reader is None:
                if mark is None or mark[1] != _ENVELOPE:
                    raise QueueFileError("a record that belongs to no queue file")
                reader = _Reader(mark[2], new_text())
            elif mark is None:
                reader.take(line)
            elif reader.advance(mark[1], mark[2]):
                if reader.queue_id in files:
                    raise QueueFileError(f"{reader.queue_id} is there twice")
                files[reader.queue_id] = reader.message()
                reader = None
        if reader is not None:
            raise QueueFileError(f"{reader.queue_id} is not complete")
        return files
    finally:
        if reader is not None:  # a file that cannot be read: its text would stay open until the error is dropped
            reader.text.close()


class Records:
    """The records before and after the message."""

    def __init__(self, queue_id: str) -> None:
        self._queue_id = queue_id
        self.values: dict[str, str] = {}
        self.recipients: list[Recipient] = []
        self.served: list[str] = []
        """The recipients who have the message already."""
        self._counted = 0
        self._pending: dict[str, str] = {}
        """The attributes of the next recipient."""
        self._once: set[str] = set()

    def take(self, found: Record, *, extracted: bool = False) -> None:
        """Take the next record. Raises QueueFileError if it cannot be at this place."""
        place = RECORDS.get(found.type)
        if place is None or not (place.extracted if extracted else place.envelope):
            raise self._error("a record that is not known, or a line end within a record")
        if place.once:
            if found.type in self._once:
                raise self._error(f"two records {found.type}")
            self._once.add(found.type)
        if found.type in RECIPIENTS:
            self._take_recipient(found, extracted)
        elif found.name in RECIPIENT_ATTRIBUTES:
            earlier = RECIPIENT_ATTRIBUTES[: RECIPIENT_ATTRIBUTES.index(found.name)]
            if not set(self._pending) <= set(earlier):
                raise self._error(f"{found.name} out of order")
            self._pending[found.name] = found.value
        elif self._pending:
            raise self._error(f"{found.type} between a recipient and what is said of it")
        elif replaces(found.name):
            self.values[found.name] = found.value
        elif not extracted:
            self.values.setdefault(found.name, found.value)

    def end_section(self) -> None:
        """No more records before, or after, the message. Raises QueueFileError."""
        if self._pending:
            raise self._error("attributes of a recipient that does not come")

    def check_count(self) -> None:
        """Raises QueueFileError if `message_size` counts another number of recipients."""
        numbers = self.values[MESSAGE_SIZE].split()
        if len(numbers) not in (5, 6) or _number(numbers[2]) != self._counted:
            raise self._error(f"{self._counted} recipients, and a size record for another number")

    def _take_recipient(self, found: Record, extracted: bool) -> None:
        pending, self._pending = self._pending, {}
        self._counted += 1
        if found.type == "done_recipient":
            self.served.append(found.value)
        if found.type != "recipient":
            return
        original = pending.get("dsn_orig_rcpt") or None
        notify = _number(pending.get("notify_flags", "0"))
        # always_bcc and its like are added behind the content, with NOTIFY=NEVER (cleanup_extracted.c)
        automatic = extracted and notify == NEVER and original is None
        self.recipients.append(Recipient(found.value, original, notify, automatic))

    def _error(self, problem: str) -> QueueFileError:
        return QueueFileError(f"{self._queue_id} has {problem}")


class _Offset:
    """The place in the file of the next record before the message. It has two bounds: a time has no fixed length."""

    def __init__(self, data: int, extracted: int) -> None:
        """`data`: the place of the message; `extracted`: the place of the first record after it."""
        self._start = data - _MARK_SIZE
        self._extracted = extracted
        self._least = self._most = 0
        self._appended: set[str] | None = None
        """The types of the records since a pointer to the end of the file; None: not there."""

    def take(self, found: Record) -> None:
        """Pass a record. Raises QueueFileError for a pointer that no milter's edit makes."""
        least, most = found.stored
        self._least += least
        self._most += most
        if found.type == POINTER and (target := _number(found.value.strip())):
            self._follow(target)
        elif self._appended is not None:
            self._appended.add(found.type)

    def _follow(self, target: int) -> None:
        """A milter's edit is appended to the file; a pointer leads there, and another one back (cleanup_milter.c).

        Only two edits concern the records before the message: another sender, and more recipients, which come last.
        """
        if target >= self._extracted:
            self._appended = self._appended or set()
        else:
            new_sender = self._appended is not None and "sender" in self._appended
            if self._appended is None or not self._appended <= APPENDED or not (new_sender or target == self._start):
                raise QueueFileError("a pointer record that no milter's edit makes")
            self._appended = None
        self._least = self._most = target

    @property
    def is_at_data(self) -> bool:
        """Whether the message begins here, after the record that is printed as a mark."""
        return self._appended is None and self._least <= self._start <= self._most


class _Reader:
    """The reader of one queue file, line by line."""

    def __init__(self, path: bytes, text: Text) -> None:
        self.queue_id = path.decode("ascii", "replace").rpartition("/")[2]
        self._path = path
        self._section = _ENVELOPE
        self.text = text
        self._records = Records(self.queue_id)
        self._size: list[int] = []
        self._offset = _Offset(0, 0)

    def take(self, line: bytes) -> None:
        """Take the next line that is no mark. Raises QueueFileError."""
        if self._section == _CONTENTS:
            self._take_text(line)
            return
        found = record(line)
        if not self._size:
            self._begin(found)
        if self._section == _ENVELOPE:
            self._offset.take(found)
        self._records.take(found, extracted=self._section == _EXTRACTED)

    def advance(self, mark: bytes, path: bytes) -> bool:
        """Take the next mark; returns whether it is the last. Raises QueueFileError if another one must come."""
        if mark != _NEXT[self._section] or path != self._path:
            raise QueueFileError(f"{self.queue_id} has {mark.decode('ascii')} in the wrong place")
        if self._section == _ENVELOPE and not self._offset.is_at_data:
            raise QueueFileError(f"{self.queue_id} has a line end within a record, or lacks one")
        if self._section != _CONTENTS:
            self._records.end_section()
        self._section = mark
        return mark == _END

    def _begin(self, found: Record) -> None:
        """cleanup writes `message_size` first."""
        numbers = found.value.split()
        if found.type != MESSAGE_SIZE or len(numbers) not in (5, 6):
            raise QueueFileError(f"{self.queue_id} does not begin with a size record")
        self._size = [_number(number) for number in numbers]
        size, data, *_ = self._size
        self._offset = _Offset(data, data + size)

    def _take_text(self, line: bytes) -> None:
        if line.startswith(b"regular_text: "):
            self.text.write(line[14:] + b"\n")
        elif line.startswith(b"unterminated_text: "):
            self.text.write(line[19:])
        elif not line.startswith(_NO_TEXT):
            raise QueueFileError(f"{self.queue_id} has a record in its text that is not known")

    def message(self) -> QueuedMessage:
        """The whole message. Raises QueueFileError if something is missing."""
        values = self._records.values
        if "sender" not in values or ARRIVAL_TIME not in values:
            raise QueueFileError(f"{self.queue_id} is not complete")
        self._records.check_count()
        size, *_ = self._size
        options = self._size[5] if len(self._size) > 5 else 0
        return QueuedMessage(
            queue_id=self.queue_id,
            arrived=_time(values[ARRIVAL_TIME]),
            size=size,
            sender=values["sender"],
            recipients=tuple(self._records.recipients),
            content=self.text.content(),
            smtputf8=bool(options & SMTPUTF8_REQUESTED),
            eight_bit=values.get("encoding") == "8bit",
            ret=RETURN.get(values.get("ret_flags", "")),
            envelope_id=values.get("envelope_id"),
            client=client_of(values),
            redirect_to=values.get("redirect_to"),
            content_filter=values.get("content_filter"),
            content_inspector=values.get("content_inspector"),
            verp_delimiters=values.get("verp_delimiters"),
            send_options=options,
            trace_flags=_number(values.get("trace_flags", "0")),
        )


def client_of(values: Mapping[str, str]) -> Client:
    """The client that the attributes of a queue file name."""
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
