"""Records held messages that have no record in the journal: the milter could not write it, or a person held them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import structlog

from undisclosed.decision import rules
from undisclosed.decision.exposure import expose
from undisclosed.decision.queue_file import QueuedMessage, QueueFileError
from undisclosed.decision.reference import identity, recipients_hash, reference
from undisclosed.incidents.automatic import automatic
from undisclosed.incidents.records import ADOPTED, JournalError, QueueCopy, UnrecordedMail
from undisclosed.incidents.transaction import author_of, subject_of, transaction_of
from undisclosed.journal.journal import Journal
from undisclosed.policy import Mode
from undisclosed.steward.batches import batches
from undisclosed.steward.context import Context
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, QueueEntry, RootHalfGoneError
from undisclosed.steward.release_parts import HeldMessage, chunks


class Adoption:
    """Reads such messages and records them. Remembers the queue files that cannot be read, to report each once."""

    def __init__(self, journal: Journal, queue: HoldQueue, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._queue = queue
        self._log = log
        self._unreadable: set[str] = set()

    def record_all(self, context: Context, entries: Iterable[QueueEntry]) -> Iterator[tuple[QueueCopy, QueueEntry]]:
        """Record these messages; yields each copy as it is in the journal then, with its entry."""
        readable = [entry for entry in entries if entry.queue_id not in self._unreadable]
        for batch in batches(readable, lambda entry: entry.size):
            by_id = {entry.queue_id: entry for entry in batch}
            for queued in self._read(list(by_id)):
                entry = by_id[queued.queue_id]
                if (copy := self._recorded(context, queued, entry.size)) is not None:
                    yield copy, entry

    def _read(self, queue_ids: list[str]) -> Iterable[QueuedMessage]:
        try:
            return self._queue.read(queue_ids).values()
        except RootHalfGoneError:
            raise
        except (HoldQueueError, QueueFileError) as error:
            if len(queue_ids) > 1:
                return [queued for queue_id in queue_ids for queued in self._read([queue_id])]
            if isinstance(error, QueueFileError):  # HoldQueueError: it was removed meanwhile
                self._unreadable.add(queue_ids[0])
                self._log.warning("queue_file_unreadable", queue_id=queue_ids[0], reason=str(error))
            return []

    def _recorded(self, context: Context, queued: QueuedMessage, size: int) -> QueueCopy | None:
        """Record one message; None after an error that nobody foresaw, which must not stop the others."""
        try:
            return self._record(context, queued, size)
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - a message of anybody's would stop all releases, round after round
            self._unreadable.add(queued.queue_id)
            reason = f"{type(error).__name__}: {error}"
            self._log.error("adoption_failed", queue_id=queued.queue_id, reason=reason, exc_info=error)
            return None

    def _record(self, context: Context, queued: QueuedMessage, size: int) -> QueueCopy:
        """Record a message as the milter would have, if the policy holds it; otherwise as adopted mail."""
        policy, held = context.policy, HeldMessage.read(queued)
        message = held.message
        decision = rules.judge(policy, message, chunks(held.body))
        is_ours = decision.action.effect.holds and policy.mode is Mode.ENFORCE
        exposure = decision.exposure if is_ours else expose(policy, message.fields, message.addresses)
        known_as = identity(context.key, message, exposure)
        if is_ours:
            transaction = transaction_of(
                policy,
                message,
                decision,
                identity=known_as,
                key=context.key,
                gateway=context.gateway,
                at=queued.arrived,
            )
            copy = self._journal.filing.record_found(transaction, waits=ADOPTED)
        else:
            mail = UnrecordedMail(
                reference=reference(known_as),
                identity=known_as,
                gateway=context.gateway,
                queue_id=queued.queue_id,
                message_id=message.message_id,
                sender=queued.sender,
                author=author_of(policy, message),
                recipients=len(queued.recipients),
                recipients_hash=recipients_hash(context.key, message.recipients),
                arrived=queued.arrived,
                size=size,
                subject=subject_of(message),
                automatic=automatic(message),
            )
            copy = self._journal.filing.adopt(mail)
        self._log.info(
            "copy_adopted",
            queue_id=queued.queue_id,
            reference=reference(known_as),
            rule=decision.rule if is_ours else None,
        )
        return copy
