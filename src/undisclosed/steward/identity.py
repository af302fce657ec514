"""Whether a queued message is the one that the journal recorded: Postfix's short queue ids are used again."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from undisclosed.decision.queue_file import QueuedMessage
from undisclosed.incidents.records import QueueCopy, clean
from undisclosed.steward.hold_queue import QueueEntry

MAX_TRANSFER: Final = timedelta(hours=1)
"""The time that a client may take to send a message: Postfix's arrival time can be that much before the record."""

CLOCK_ERROR: Final = timedelta(seconds=5)
"""The time that the record may be before Postfix's arrival time: they are rounded differently."""


def why_other_message(copy: QueueCopy, found: QueueEntry | QueuedMessage) -> str | None:
    """The reason why a message with the copy's queue id is not the recorded one (size, arrival time); None if it is."""
    if copy.size is not None and copy.size != found.size:
        return f"the message that has this queue id now has {found.size} bytes, and not {copy.size}"
    if not -CLOCK_ERROR <= copy.arrived - found.arrived <= MAX_TRANSFER:
        return f"the message that has this queue id now arrived at {found.arrived:%Y-%m-%d %H:%M:%S}"
    return None


def why_other_content(copy: QueueCopy, queued: QueuedMessage, message_id: str | None) -> str | None:
    """The same, by the Message-ID of the queued message too.

    The journal has a Message-ID as `clean` leaves it: without raw bytes, and shortened. The file has it whole.
    """
    if copy.message_id is not None and (message_id is None or copy.message_id != clean(message_id)):
        return "the message that has this queue id now has another Message-ID"
    return why_other_message(copy, queued)
