"""Queue files as cleanup(8) writes them, and what `postcat -v` prints of them.

Written after record.c, cleanup_final.c and postcat.c of Postfix, and compared with the output of a real one in
tests/live_postfix/test_queue_records.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from undisclosed.decision.queue_file import QueuedMessage, lines, parse

QUEUE_ID: Final = "4jXkbq5QPvzJ9sp"
DATE: Final = b"Sun Nov 22 22:42:31 2026"
SECONDS: Final = b"1795473751"

Stored = tuple[str, bytes]
"""One record: its type as postcat names it, and its bytes in the file."""


def attribute(name: str, value: bytes) -> Stored:
    """A named attribute."""
    return "named_attribute", name.encode() + b"=" + value


def recipient(address: bytes, *, kind: str = "recipient", original: bytes = b"", notify: int = 0) -> list[Stored]:
    """The records of one recipient, in the order of cleanup_out_recipient.c."""
    return [
        *([attribute("notify_flags", str(notify).encode())] if notify else []),
        *([attribute("dsn_orig_rcpt", original)] if original else []),
        ("original_recipient", address),
        (kind, address),
    ]


@dataclass(frozen=True)
class QueueFile:
    """The records of a queue file, without those that cleanup adds itself."""

    envelope: Sequence[Stored] = ()
    text: Sequence[bytes] = (b"From: clerk@council.test", b"", b"Dear all,")
    extracted: Sequence[Stored] = ()
    microseconds: bytes = b"123456"
    options: int = 0
    queue_id: str = QUEUE_ID
    queue: str = "hold"
    date: bytes = DATE
    """The time of arrival, as asctime(3) writes it."""
    counted: int | None = None
    """The number of recipients in the size record; None: the right one."""
    before: Sequence[Stored] = field(default=(), kw_only=True)
    """Records between the times and the rest."""

    def printed(self) -> bytes:
        """The print of `postcat -v`."""
        times: list[Stored] = [
            ("message_arrival_time", SECONDS + b" " + self.microseconds),
            ("create_time", b"create_time=" + SECONDS),
        ]
        records = [*times, *self.before, *self.envelope]
        data = _length(b" " * 95) + sum(_length(value) for _, value in records) + 2
        size = size_of(self.text)
        people = [kind for kind, _ in (*self.envelope, *self.extracted) if kind.endswith("recipient")]
        count = len([kind for kind in people if kind != "original_recipient"]) if self.counted is None else self.counted
        numbers = " ".join(f"{number:15d}" for number in (size, data, count, 0, size, self.options))
        path = f" {self.queue}/{self.queue_id} ***\n".encode()
        return b"".join(
            (
                b"*** ENVELOPE RECORDS" + path,
                b"message_size: " + numbers.encode() + b"\n",
                *map(self._line, records),
                b"*** MESSAGE CONTENTS" + path,
                *(b"regular_text: " + line + b"\n" for line in self.text),
                b"*** HEADER EXTRACTED" + path,
                *map(self._line, self.extracted),
                b"*** MESSAGE FILE END" + path,
            )
        )

    def _line(self, stored: Stored) -> bytes:
        kind, value = stored
        if kind in ("message_arrival_time", "create_time", "warning_message_time"):
            value = self.date
        return kind.encode() + b": " + value + b"\n"


def parsed(printed: bytes) -> dict[str, QueuedMessage]:
    """The queue files in a print that is in memory."""
    return parse(lines(printed))


def size_of(text: Iterable[bytes]) -> int:
    """The size of a message of these lines, as postqueue(1) has it: the bytes of its records."""
    return sum(map(_length, text))


def _length(value: bytes) -> int:
    """The bytes of a record in the file: a type, the length in units of seven bits, the text (rec_put in record.c)."""
    length, units = len(value), 1
    while length >= 128:
        length >>= 7
        units += 1
    return 1 + units + len(value)
