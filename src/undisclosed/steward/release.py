"""Carries out what was asked of held mail: hands it over and deletes it, in an order in which nothing can be lost.

Of each message: state RELEASING; hand over a part, remember it, the next part; delete the original; state RELEASED. A
steward that is killed anywhere finds the message still held, and in the journal the parts that Postfix has taken. Only
a part whose 250 came, or was on its way, when the end came is handed over again, and an event says so. Many messages
are read, and deleted, with one call of Postfix's tools: to start one costs more than all else (see the benchmark).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from undisclosed.decision import queue_file
from undisclosed.decision.queue_file import QueuedMessage, QueueFileError
from undisclosed.decision.rewrite import Unsafe
from undisclosed.incidents.records import AcceptedPart, QueueCopy, ReleaseMode, State, Verb
from undisclosed.journal.journal import Journal
from undisclosed.policy import Policy
from undisclosed.steward import release_parts
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, RootHalfGoneError
from undisclosed.steward.privileged import MAX_QUEUE_IDS
from undisclosed.steward.reconcile import stands_against
from undisclosed.steward.reinject import ReinjectError, Reinjector, UnansweredError

BATCH_BYTES: Final = 16 * 1024 * 1024
"""Bytes of messages that are in memory at once, but for a single one that is larger."""

CAN_BE_RELEASED: Final = frozenset({State.HELD, State.RELEASING})

DELETING: Final = "deleting"
"""The event before a message is deleted; its detail has the state that the copy is to have then."""

Step = Callable[[str], None]
"""Told the name of each step once it is done, so that a test can end the process there."""


@dataclass(frozen=True, slots=True)
class Job:
    """One copy, and what is to become of it."""

    copy: QueueCopy
    wanted: Verb
    way: ReleaseMode | None
    actor: str
    reason: str
    closed: State
    """The state that the copy then has."""


class Result(NamedTuple):
    """What became of a job."""

    state: Literal["done", "refused", "failed"]
    why: str


class Releases:
    """Carries out jobs on one hold queue. A context manager: it may keep an SMTP session open."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        queue: HoldQueue,
        step: Step = lambda _: None,
        unwritten: dict[int, set[AcceptedPart]] | None = None,
    ) -> None:
        """`unwritten` outlives this: parts by their copies that Postfix took and the journal was not told of."""
        self._policy = policy
        self._unwritten = {} if unwritten is None else unwritten
        self._journal = journal
        self._queue = queue
        self._step = step
        self._stack = ExitStack()
        self._reinjector = self._stack.enter_context(Reinjector(queue.inject))

    def __enter__(self) -> Releases:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def carry_out(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Result]]:
        """Each job with what became of it, as it is done. Raises JournalError and RootHalfGoneError."""
        batch: list[Job] = []
        size = 0
        for job in jobs:
            if batch and (len(batch) == MAX_QUEUE_IDS or size + (job.copy.size or 0) > BATCH_BYTES):
                yield from self._carry_out(batch)
                batch, size = [], 0
            batch.append(job)
            size += job.copy.size or 0
        if batch:
            yield from self._carry_out(batch)

    def _carry_out(self, batch: list[Job]) -> Iterator[tuple[Job, Result]]:
        files = self._read([job.copy.queue_id for job in batch])
        self._step("read")
        ready = []
        for job in batch:
            found = files.get(job.copy.queue_id, "it is not queued any more")
            result = Result("failed", found) if isinstance(found, str) else self._prepare(job, found)
            if result is None:
                ready.append(job)
            else:
                yield job, result
        if not ready:
            return
        try:
            removed = self._queue.delete([job.copy.queue_id for job in ready])
        except RootHalfGoneError:
            raise
        except HoldQueueError as error:
            yield from ((job, Result("failed", f"it could not be deleted ({error})")) for job in ready)
            return
        self._step("deleted")
        for job in ready:
            yield job, self._close(job, job.copy.queue_id in removed)

    def _read(self, queue_ids: Sequence[str]) -> dict[str, QueuedMessage | str]:
        """The messages by their queue ids, or why one cannot be read."""
        if not queue_ids:
            return {}
        try:
            return dict(queue_file.parse(self._queue.read(queue_ids)))
        except RootHalfGoneError:
            raise
        except (HoldQueueError, QueueFileError) as error:
            if len(queue_ids) == 1:
                return {queue_ids[0]: f"it cannot be read ({error})"}
        return {queue_id: found for one in queue_ids for queue_id, found in self._read([one]).items()}

    def _prepare(self, job: Job, held: QueuedMessage) -> Result | None:
        """Do all that comes before the original may be deleted; None once that is so."""
        copy = job.copy
        if why := stands_against(copy, held) or _other_message(copy, held):
            return Result("refused", why)
        if job.wanted == "delete":
            # Else a steward that ends before it says so leaves a message of which nobody knows who deleted it.
            self._journal.held.add_event(
                copy.incident_id, copy.id, job.actor, DELETING, job.reason, state=job.closed.value
            )
            self._step("deleting")
            return None
        assert job.way is not None
        taken = self._taken(copy) if copy.state is State.RELEASING else set()
        try:
            parts = release_parts.parts(self._policy, held, job.way, taken)
        except Unsafe as unsafe:
            why = f"it must not be rewritten ({unsafe}): release it unchanged, or delete it"
            return Result("refused", why)
        if copy.state is State.HELD:
            why = f"as {job.way}" + (f": {job.reason}" if job.reason else "")
            if not self._journal.held.set_state(
                copy.id, State.RELEASING, actor=job.actor, why=why, expected=CAN_BE_RELEASED
            ):
                return Result("refused", "it is not held any more")
            self._step("releasing")
        return self._hand_over(job, held, parts, bool(taken))

    def _taken(self, copy: QueueCopy) -> set[AcceptedPart]:
        """The parts of a copy that Postfix has; what the journal could not be told before is written now."""
        taken = self._journal.held.accepted_parts(copy.id)
        if unwritten := self._unwritten.get(copy.id):
            self._journal.held.record_accepted(copy.id, unwritten)
            taken |= unwritten
        self._unwritten.pop(copy.id, None)
        return taken

    def _hand_over(
        self, job: Job, held: QueuedMessage, parts: Iterator[release_parts.Part], any_taken: bool
    ) -> Result | None:
        copy = job.copy
        interrupted = copy.state is State.RELEASING
        part = None
        try:
            for part in parts:
                if interrupted:
                    self._doubt(copy, part, "taken up again after an interruption")
                    interrupted = False
                self._reinjector.send(held, part.recipients, part.content)
                self._unwritten.setdefault(copy.id, set()).update(part.parts)
                self._step("handed over")
                self._journal.held.record_accepted(copy.id, part.parts)
                self._unwritten.pop(copy.id)
                any_taken = True
                self._step("taken")
        except RootHalfGoneError:
            raise
        except (ReinjectError, HoldQueueError, QueueFileError) as error:
            if isinstance(error, UnansweredError) and part is not None:
                self._doubt(copy, part, "no answer")
            why = _with_remedy(error)
            if not any_taken:  # else it stays in release, so that what was taken is looked up
                self._journal.held.set_state(copy.id, State.HELD, why=why, expected=State.RELEASING)
            return Result("failed", why)
        return None

    def _doubt(self, copy: QueueCopy, part: release_parts.Part, what: str) -> None:
        parts = ", ".join(map(str, part.parts))
        why = f"Postfix may have {parts} already: then its recipients get it a second time"
        self._journal.held.add_event(copy.incident_id, copy.id, "steward", what, why, part=parts)

    def _close(self, job: Job, was_there: bool) -> Result:
        why = job.reason if job.way is None else f"as {job.way}" + (f": {job.reason}" if job.reason else "")
        if not was_there:
            why += " (the held message was gone already)"
        self._journal.held.set_state(
            job.copy.id, job.closed, actor=job.actor, why=why.strip(), expected=CAN_BE_RELEASED
        )
        self._step("closed")
        return Result("done", why.strip())


def _other_message(copy: QueueCopy, held: QueuedMessage) -> str | None:
    """Why a queued message is not the recorded one, going by what it calls itself."""
    if copy.message_id is not None and copy.message_id != release_parts.message(held).message_id:
        return "the message that has this queue id now has another Message-ID"
    return None


def _with_remedy(error: Exception) -> str:
    if isinstance(error, HoldQueueError):
        return f"the private listener cannot be reached ({error}): run `undisclosed postfix attach`, and reload Postfix"
    return str(error)
