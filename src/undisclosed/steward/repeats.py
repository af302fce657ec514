"""Tells repeats of a message from other copies of it: by the text of the held files."""

from __future__ import annotations

import hashlib
import hmac

import structlog

from undisclosed.decision.message import key_of
from undisclosed.decision.queue_file import QueueFileError
from undisclosed.incidents.records import QueueCopy
from undisclosed.journal.journal import Journal
from undisclosed.steward.context import Context
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, RootHalfGoneError
from undisclosed.steward.identity import why_other_content
from undisclosed.steward.release_parts import HeldMessage


def text_hash(key: bytes, held: HeldMessage) -> str:
    """A keyed hash of a held message: its recipients, and all its bytes but the Received fields.

    Those differ between two transactions of one message, also on one host; nothing else does in a repeat.
    """
    digest = hmac.new(key, b"text\0", hashlib.sha256)
    for address in sorted(recipient.address for recipient in held.queued.recipients):
        digest.update(address.encode("utf-8", "surrogateescape") + b"\0")
    for field, line in zip(held.message.fields, held.lines, strict=True):
        if key_of(field.name) != "received":
            digest.update(line)
    digest.update(held.body)
    return digest.hexdigest()[:32]


class RepeatFinder:
    """Reads the held copies whose recipients another copy of their message has, each once."""

    def __init__(self, journal: Journal, queue: HoldQueue, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._queue = queue
        self._log = log
        self._unreadable: set[int] = set()

    def find(self, context: Context) -> None:
        """Record the hash of each such copy: the journal then says which one repeats which."""
        unread = [copy for copy in self._journal.repeats.unread(context.gateway) if copy.id not in self._unreadable]
        for copy in unread:
            self._read(context.key, copy)

    def _read(self, key: bytes, copy: QueueCopy) -> None:
        try:
            queued = self._queue.read([copy.queue_id])[copy.queue_id]
        except RootHalfGoneError:
            raise
        except (HoldQueueError, QueueFileError, LookupError) as error:
            self._unreadable.add(copy.id)
            self._log.warning("queue_file_unreadable", queue_id=copy.queue_id, reason=str(error))
            return
        held = HeldMessage.read(queued)
        if why_other_content(copy, queued, held.message.message_id) is None:
            self._journal.repeats.record_text(copy, text_hash(key, held))
