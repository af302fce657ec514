"""The records of a queue file (rec_type.h of Postfix), as `postcat -v` prints them.

RECORDS has every type that Postfix writes into a queue file. docs/install.md says what becomes of each at a release; a
test compares the two. `named_attribute` and the times are printed in another form than the one they are stored in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

MESSAGE_SIZE: Final = "message_size"
ARRIVAL_TIME: Final = "message_arrival_time"
POINTER: Final = "pointer_record"

RECIPIENTS: Final = frozenset({"recipient", "done_recipient", "canceled_recipient"})
"""The records that `message_size` counts: to be delivered, delivered, and taken out by a milter."""

RECIPIENT_ATTRIBUTES: Final = ("notify_flags", "dsn_orig_rcpt", "original_recipient")
"""Records about the recipient that follows. cleanup writes them in this order, with nothing in between
(cleanup_out_recipient.c)."""


class Place(NamedTuple):
    """The places of one type of record."""

    envelope: bool
    """Whether it may stand before the message."""
    extracted: bool
    """Whether it may stand after the message, below HEADER EXTRACTED."""
    once: bool = False


RECORDS: Final[Mapping[str, Place]] = {
    MESSAGE_SIZE: Place(envelope=True, extracted=False, once=True),
    ARRIVAL_TIME: Place(envelope=True, extracted=False, once=True),
    "queue_file_create_time": Place(envelope=True, extracted=False),
    "create_time": Place(envelope=True, extracted=False),
    "sender": Place(envelope=True, extracted=False, once=True),
    "sender_fullname": Place(envelope=True, extracted=True),
    "warning_message_time": Place(envelope=True, extracted=False, once=True),
    "verp_delimiters": Place(envelope=True, extracted=False, once=True),
    # Before the message that of main.cf, after it those of access tables and header_checks. The last one counts.
    "content_filter": Place(envelope=True, extracted=True),
    "content_inspector": Place(envelope=True, extracted=True),
    "redirect_to": Place(envelope=False, extracted=True),
    "named_attribute": Place(envelope=True, extracted=True),
    "original_recipient": Place(envelope=True, extracted=True),
    "recipient": Place(envelope=True, extracted=True),
    "done_recipient": Place(envelope=True, extracted=True),
    "canceled_recipient": Place(envelope=True, extracted=True),
    "return_receipt": Place(envelope=False, extracted=True),
    "errors_to": Place(envelope=False, extracted=True),
    "priority": Place(envelope=False, extracted=True),
    "killed_record": Place(envelope=True, extracted=True),
    POINTER: Place(envelope=True, extracted=True),
    "padding": Place(envelope=True, extracted=True),
}

ATTRIBUTE: Final = "named_attribute"

APPENDED: Final = frozenset({"sender", ATTRIBUTE, "original_recipient", *RECIPIENTS, "padding"})
"""The records before the message that a milter's edit appends to the file (cleanup_milter.c)."""

_LAST_COUNTS: Final = frozenset(
    {"content_filter", "content_inspector", "redirect_to", "encoding", "envelope_id", "ret_flags"}
)
"""A later one replaces the one before (qmgr_message.c). Of all others the first counts."""

_STORED_LENGTHS: Final = {
    ARRIVAL_TIME: (12, 17),  # seconds, a blank, microseconds without leading zeros
    "create_time": (22, 22),  # create_time= and the seconds
    "warning_message_time": (15, 15),
}
"""The lengths in the file of what postcat prints as a date (rec_type.h; ten digits of seconds until 2286)."""


class Record(NamedTuple):
    """One record of an envelope."""

    type: str
    """A key of RECORDS, if it is known."""
    name: str
    """The name of a named attribute; of all others the type."""
    value: str
    """Bytes that are no UTF-8 are lone surrogates."""
    stored: tuple[int, int]
    """The least and the largest number of bytes that it takes in the file."""


def record(line: bytes) -> Record:
    """The record that one line shows. A line without a value gets an empty one."""
    text = line.decode("utf-8", "surrogateescape")
    kind, _, value = text.partition(": ")
    length = len(line) - len(kind.encode("utf-8", "surrogateescape")) - len(": ")
    least, most = _STORED_LENGTHS.get(kind, (length, length))
    stored = (_in_file(least), _in_file(most))
    if kind != ATTRIBUTE:
        return Record(kind, kind, value, stored)
    name, _, value = value.partition("=")
    return Record(kind, name, value, stored)


def replaces(name: str) -> bool:
    """Whether a later record of this name replaces an earlier one."""
    return name in _LAST_COUNTS


def _in_file(length: int) -> int:
    """The bytes of a record with so many bytes of text: a type, the length in units of seven bits, the text."""
    return 1 + max(1, (length.bit_length() + 6) // 7) + length
