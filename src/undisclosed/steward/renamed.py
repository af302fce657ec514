"""Finds held messages whose queue file has another name now.

Postfix renames queue files when enable_long_queue_ids was changed (`postfix detach`), and requeues with `postsuper -r`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

import structlog

from undisclosed.decision.exposure import expose
from undisclosed.decision.message import Message
from undisclosed.decision.queue_file import QueueFileError
from undisclosed.decision.reference import identity, recipients_hash
from undisclosed.incidents.records import CLOCK_ERROR, QueueCopy, State, clean, is_same_file
from undisclosed.journal.journal import Journal
from undisclosed.postfix.log_events import LogEvents, What
from undisclosed.steward.context import Context
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, Listing, QueueEntry, RootHalfGoneError
from undisclosed.steward.identity import why_other_message
from undisclosed.steward.release_parts import HeldMessage

HEADER: Final = 1024 * 1024
"""Bytes that are read of a message for its Message-ID: the milter takes no longer header."""


class Renamed:
    """Follows copies to the new names of their queue files."""

    def __init__(self, journal: Journal, queue: HoldQueue, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._queue = queue
        self._log = log

    def follow(
        self, context: Context, listing: Listing, copies: Iterable[QueueCopy], events: LogEvents, now: datetime
    ) -> bool:
        """Look for copies that are not in the queue under their queue ids; True if one was found under another."""
        copies = list(copies)
        known = {copy.queue_id for copy in copies}
        free = {queue_id: entry for queue_id, entry in listing.held.items() if queue_id not in known}
        lost = [copy for copy in copies if copy.queue_id not in listing.held.keys() | listing.elsewhere]
        is_any = False
        for copy in lost if free else ():
            entry = self._found(context, copy, free, events)
            if entry is not None:
                del free[entry.queue_id]
                why = f"its queue file has the name {entry.queue_id} now"
                self._journal.queue_facts.follow(copy, entry.queue_id, entry.size, why, now=now)
                reference = self._journal.incidents.get(copy.incident_id).reference
                self._log.info("copy_renamed", queue_id=entry.queue_id, former=copy.queue_id, reference=reference)
                is_any = True
        return is_any

    def _found(
        self, context: Context, copy: QueueCopy, free: Mapping[str, QueueEntry], events: LogEvents
    ) -> QueueEntry | None:
        fate = events.fate(copy.queue_id, was_held=False)
        if fate is not None and fate.kind is not What.REQUEUED:
            return None  # it was deleted or sent, and a file like it is another message, such as a repeat
        found = None
        for entry in _candidates(copy, free, fate.new_id if fate is not None else None):
            message = self._message(entry)
            if message is None or not self._is_of(context, copy, message):
                continue
            if recipients_hash(context.key, message.recipients) == copy.recipients_hash:
                return entry
            found = found or entry
        # Postfix may have rewritten the recipients. A release that has begun goes on by their places in the file: there
        # it must be the same file.
        return found if copy.state is not State.RELEASING else None

    def _is_of(self, context: Context, copy: QueueCopy, message: Message) -> bool:
        """Whether this is the copy's message. Without a Message-ID another one may have its size and second."""
        if clean(message.message_id or "") != copy.message_id:
            return False
        if copy.message_id:
            return True
        exposure = expose(context.policy, message.fields, message.addresses)
        known_as = identity(context.key, message, exposure)
        return known_as == self._journal.incidents.get(copy.incident_id).identity

    def _message(self, entry: QueueEntry) -> Message | None:
        """A held message without its body; None if it cannot be read."""
        try:
            [queued] = self._queue.read_beginnings([entry.queue_id], HEADER).values()
            return HeldMessage.read(queued).message
        except RootHalfGoneError:
            raise
        except (HoldQueueError, QueueFileError):
            return None


def _candidates(copy: QueueCopy, free: Mapping[str, QueueEntry], new_id: str | None) -> Iterator[QueueEntry]:
    """Held messages that may be the copy's: the one that the log names, and those with its size and arrival time."""
    requeued = free.get(new_id) if new_id is not None else None
    if requeued is not None and is_same_file(copy.arrived, requeued.arrived):
        yield requeued  # it has grown by a Received field
    for entry in free.values():
        is_near = bool(copy.message_id) or abs(copy.arrived - entry.arrived) <= CLOCK_ERROR
        if copy.size is not None and why_other_message(copy, entry) is None and is_near:
            yield entry
