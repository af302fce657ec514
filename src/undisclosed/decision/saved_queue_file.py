"""A queue file as a person prints it for `undisclosed explain`, with `postcat -q`.

Its envelope is read by the reader of `queue_file.parse`: the same types of records in the same places, attributes only
directly before their recipient, as many recipients as `message_size` counts. Four things are read more leniently. That
may explain another message than the one on hold; nothing is released by it.

- The print may end anywhere after the envelope, and `message_size` may be missing: people save a part of a print. Then
  recipients are not counted.
- The length of the envelope is not compared: without -v, postcat prints neither pointers nor padding, and people
  replace addresses before they show a print to others.
- Without -v, lines of the message have no prefix: the message ends at the last mark with the path of the first.
- A blank at the end of a line may be missing: editors remove it, after `sender: ` for instance.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from undisclosed.decision.message import Client
from undisclosed.decision.queue_file import QueuedMessage, QueueFileError, Records, client_of, lines, parse
from undisclosed.decision.queue_records import MESSAGE_SIZE, record

_VERBOSE: Final = (b"regular_text: ", b"unterminated_text: ", b"pointer_record: ", b"padding: ")
"""The beginnings of the lines of a message in the output of `postcat -v`."""


class SavedQueueFile(NamedTuple):
    """A queue file as a person prints it, with `postcat -q`."""

    content: bytes
    """Header and body."""
    sender: str | None
    """The envelope sender; None if it is missing."""
    recipients: tuple[str, ...]
    """All envelope recipients, also those who have the message already."""
    client: Client


def is_printed(text: bytes) -> bool:
    """Whether a text is the output of `postcat -q` or `postcat -vq`, or its beginning."""
    return text.startswith(b"*** ENVELOPE RECORDS ")


def saved(printed: bytes) -> SavedQueueFile | None:
    """The queue file in the output of `postcat -q` or `postcat -vq`; None if this is no output of postcat.

    The output of `postcat -vq` is read by `parse`. Raises QueueFileError.
    """
    if not is_printed(printed):
        return None
    before, found, rest = printed.partition(b"\n*** MESSAGE CONTENTS ")
    path, _, content = rest.partition(b" ***\n")
    if content.startswith(_VERBOSE):
        queued, served = _only(printed)
        addresses = [recipient.address for recipient in queued.recipients]
        return SavedQueueFile(bytes(queued.content), queued.sender, (*addresses, *served), queued.client)
    first, *records_before = before.removesuffix(b"\n").split(b"\n")
    if first != b"*** ENVELOPE RECORDS " + (path if found else first[21:-4]) + b" ***":
        raise QueueFileError("its marks name two queue files")
    after: list[bytes] = []
    mark = b"\n*** HEADER EXTRACTED " + path + b" ***\n"
    if (end := content.rfind(mark)) >= 0:  # missing where the file was cut off
        after = content[end + len(mark) :].split(b"\n")[:-1]
        content = content[: end + 1]
    records = Records("the queue file")
    for line in records_before:
        records.take(record(line + b" " if line.endswith(b":") else line))
    records.end_section()
    for line in after:
        if not line.startswith(b"*** "):
            records.take(record(line), extracted=True)
    records.end_section()
    if after and MESSAGE_SIZE in records.values:
        records.check_count()
    return SavedQueueFile(
        content,
        records.values.get("sender"),
        (*(recipient.address for recipient in records.recipients), *records.served),
        client_of(records.values),
    )


def _only(printed: bytes) -> tuple[QueuedMessage, list[str]]:
    """The one message in the output of `postcat -vq`, and its recipients who have it already."""
    files = parse(lines(printed))
    if len(files) != 1:
        raise QueueFileError("more than one queue file")
    [queued] = files.values()
    found = (record(line) for line in printed.partition(b"\n*** MESSAGE CONTENTS ")[0].split(b"\n"))
    return queued, [served.value for served in found if served.type == "done_recipient"]
