"""Whether a queued message is the one that the journal recorded: Postfix's short queue ids are used again."""

from __future__ import annotations

from undisclosed.decision.queue_file import QueuedMessage
from undisclosed.incidents.records import QueueCopy, clean, is_same_file
from undisclosed.steward.hold_queue import QueueEntry


def why_other_message(copy: QueueCopy, found: QueueEntry | QueuedMessage) -> str | None:
    """The reason why a message with the copy's queue id is not the recorded one (size, arrival time); None if it is."""
    if copy.size is not None and copy.size != found.size:
        return f"the message that has this queue id now has {found.size} bytes, and not {copy.size}"
    if not is_same_file(copy.arrived, found.arrived):
        return f"the message that has this queue id now arrived at {found.arrived:%Y-%m-%d %H:%M:%S}"
    return None


def why_other_content(copy: QueueCopy, queued: QueuedMessage, message_id: str | None) -> str | None:
    """The same, by the Message-ID of the queued message too.

    The journal has a Message-ID as `clean` leaves it: without raw bytes, and shortened. The file has it whole.
    """
    if copy.message_id and copy.message_id != clean(message_id or ""):
        return "the message that has this queue id now has another Message-ID"
    return why_other_message(copy, queued)
