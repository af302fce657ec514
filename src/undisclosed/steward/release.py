"""Releases and deletes held messages, in an order in which a crash at any point loses no message.

For each message: record RELEASING; for each part, send it and record it as accepted; delete the held file; record
RELEASED. After a crash the message is still held, or the journal has all of its parts as accepted. A part is sent twice
only if the crash came between its 250 and its record, or if Postfix's answer did not come; an event then says so.
Messages are read and deleted in batches: starting one of Postfix's tools takes longer than all other steps
(tests/bench/release.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, assert_never

from undisclosed.decision.queue_file import QueuedMessage, QueueFileError
from undisclosed.decision.rewrite import Unsafe
from undisclosed.incidents.records import (
    REDIRECTED,
    STEWARD,
    AcceptedPart,
    QueueCopy,
    ReleaseMode,
    State,
    Verb,
)
from undisclosed.journal.journal import Journal
from undisclosed.policy import Policy
from undisclosed.steward import release_parts
from undisclosed.steward.batches import batches
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, RootHalfGoneError
from undisclosed.steward.identity import why_other_content, why_other_message
from undisclosed.steward.reinject import ReinjectError, Reinjector, UnansweredError
from undisclosed.steward.release_check import ReleaseCheck
from undisclosed.steward.repeats import text_hash

RELEASABLE: Final = frozenset({State.HELD, State.RELEASING})
"""The states in which a copy can be released or deleted."""

_GONE: Final = HoldQueueError("it is not queued any more")

SAME_FILE: Final = "another request for the same held file is being carried out"

DELETING: Final = "deleting"
"""The event before a deletion. Its detail `state` is the state of the copy after it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A release or deletion of one copy."""

    copy: QueueCopy
    verb: Verb
    mode: ReleaseMode | None
    """None for a deletion."""
    actor: str
    reason: str
    closed_state: State
    """The state of the copy afterwards."""
    request_id: int = 0
    """The request that it carries out; 0 for an expiry."""
    remark: str = ""
    """The addition to the answer."""


class JobResult(NamedTuple):
    """The result of a job."""

    state: Literal["done", "refused", "failed", "waits"]
    """waits: it is to be tried again soon."""
    why: str
    listener_filter: str = ""
    """The content filter that a released message was given to; empty for none."""


class JobRunner:
    """Runs jobs. Remembers the parts that Postfix accepted and that could not be recorded."""

    def __init__(self, journal: Journal, queue: HoldQueue, key: bytes, beat: Callable[[], None]) -> None:
        """`key` is that of references and hashes; `beat` is called after each step of a long round."""
        self._journal = journal
        self._queue = queue
        self._key = key
        self._beat = beat
        self._unrecorded: dict[int, set[AcceptedPart]] = {}
        self._check = ReleaseCheck()
        self._listener_filter = ""

    def run(self, policy: Policy, jobs: Sequence[Job]) -> Generator[tuple[Job, JobResult]]:
        """Yield each job with its result as soon as it is done. Raises JournalError and RootHalfGoneError.

        Closing the generator ends its SMTP session.
        """
        self._check.forget()
        jobs, twice = _one_for_each_file(jobs)
        yield from ((job, JobResult("refused", SAME_FILE)) for job in twice)
        if any(job.verb == "release" for job in jobs):
            self._listener_filter = self._check.listener_filter(policy) or ""
        with Reinjector(self._queue.inject) as reinjector:
            for batch in batches(jobs, lambda job: job.copy.size or 0):
                yield from self._run_batch(policy, batch, reinjector)

    def _run_batch(self, policy: Policy, batch: list[Job], reinjector: Reinjector) -> Generator[tuple[Job, JobResult]]:
        files = self._read([job.copy.queue_id for job in batch])
        deletable = []
        for job in batch:
            queued = files.get(job.copy.queue_id, _GONE)
            if isinstance(queued, QueuedMessage):
                prepared = self._prepare(policy, job, queued, reinjector)
            else:
                prepared = self._prepare_unreadable(job, queued)
            if isinstance(prepared, JobResult):
                yield job, prepared
            else:
                deletable.append(prepared)
        if not deletable:
            return
        try:
            removed = self._queue.delete([job.copy.queue_id for job in deletable])
        except RootHalfGoneError:
            raise
        except HoldQueueError as error:
            yield from ((job, JobResult("failed", f"it could not be deleted ({error})")) for job in deletable)
            return
        for job in deletable:
            yield job, self._close(job, job.copy.queue_id in removed)

    def _read(self, queue_ids: Sequence[str]) -> dict[str, QueuedMessage | HoldQueueError | QueueFileError]:
        """The messages by their queue ids, or the error about one that cannot be read."""
        try:
            return dict(self._queue.read(queue_ids))
        except RootHalfGoneError:
            raise
        except (HoldQueueError, QueueFileError) as error:
            if len(queue_ids) == 1:
                return {queue_ids[0]: error}
        # One unreadable message must not stop the others: read them one by one.
        return {queue_id: result for single in queue_ids for queue_id, result in self._read([single]).items()}

    def _prepare(self, policy: Policy, job: Job, queued: QueuedMessage, reinjector: Reinjector) -> JobResult | Job:
        """Do everything that must precede the deletion of the held file; the job, if that may be deleted now."""
        copy = job.copy
        held = release_parts.HeldMessage.read(queued)
        if why := why_other_content(copy, queued, held.message.message_id):
            return JobResult("refused", why)
        if job.verb == "delete":
            self._note_deletion(job)
            return job
        assert job.mode is not None
        if why := self._check.why_not_released(policy, queued):
            return JobResult("refused", why)
        accepted = self._accepted_parts(copy) if copy.state is State.RELEASING else set()
        try:
            parts = release_parts.parts(policy, held, job.mode, accepted, rule=copy.rule)
        except Unsafe as unsafe:
            why = (
                f"it must not be rewritten ({unsafe}): delete it, and ask its sender to write it again;"
                " a release as unchanged shows its list to all recipients"
            )
            return JobResult("refused", why)
        if copy.state is State.HELD:
            begun = self._begin(job, held)
            if not isinstance(begun, Job):
                return begun
            if begun.verb == "delete":
                return begun
            job = begun
        return self._send_parts(copy, queued, parts, reinjector, any_accepted=bool(accepted)) or job

    def _begin(self, job: Job, held: release_parts.HeldMessage) -> JobResult | Job:
        """Begin a release; the job, or in its place the deletion of a repeat whose recipients have the message."""
        begun = self._journal.repeats.begin_release(
            job.copy, text_hash(self._key, held), actor=job.actor, why=_as_mode(job)
        )
        other = "" if begun.other is None else f"the copy of {begun.other.arrived.astimezone():%H:%M:%S}"
        match begun.outcome:
            case "begun":
                return replace(job, remark=f"its text differs from {other}, which was sent too") if other else job
            case "served":
                deletion = replace(
                    job,
                    verb="delete",
                    mode=None,
                    closed_state=State.DELETED,
                    reason=f"it repeats {other}, whose recipients have all been served",
                )
                self._note_deletion(deletion)
                return deletion
            case "under way":
                return JobResult("waits", f"it repeats {other}, which is being released")
            case "interrupted":
                why = f"it repeats {other}, whose release was interrupted: ask for the release of that one again"
                return JobResult("failed", why)
            case "not held":
                return JobResult("refused", "it is not held any more, or it waits for a person")
            case _:
                assert_never(begun.outcome)

    def _prepare_unreadable(self, job: Job, error: HoldQueueError | QueueFileError) -> JobResult | Job:
        """The result for a message that cannot be read; the job, if it may be deleted.

        Its sender may have forged records, so it is sent in no mode. It can be deleted, by size and arrival time in the
        queue's listing: otherwise it would be on hold for ever.
        """
        if isinstance(error, HoldQueueError):
            return JobResult("failed", f"it cannot be read ({error})")
        if job.verb != "delete":
            return JobResult("refused", f"it cannot be read ({error}): it can only be deleted")
        entry = self._queue.list().held.get(job.copy.queue_id)
        if entry is None:
            return JobResult("failed", f"it cannot be read ({_GONE})")
        if why := why_other_message(job.copy, entry):
            return JobResult("refused", why)
        self._note_deletion(job)
        return job

    def _note_deletion(self, job: Job) -> None:
        """If the steward crashes between deletion and record, the next one learns from this event who deleted it."""
        copy, state = job.copy, job.closed_state.value
        self._journal.held.add_event(copy.incident_id, copy.id, job.actor, DELETING, job.reason, state=state)

    def _accepted_parts(self, copy: QueueCopy) -> set[AcceptedPart]:
        """The parts of a copy that Postfix accepted; those that could not be recorded before are recorded now."""
        accepted = self._journal.held.accepted_parts(copy.id)
        unrecorded = self._unrecorded.get(copy.id, set()) - accepted
        if unrecorded:
            self._journal.held.record_accepted(copy.id, unrecorded)
        self._unrecorded.pop(copy.id, None)
        return accepted | unrecorded

    def _send_parts(
        self,
        copy: QueueCopy,
        queued: QueuedMessage,
        parts: Iterator[release_parts.ReleasePart],
        reinjector: Reinjector,
        *,
        any_accepted: bool,
    ) -> JobResult | None:
        is_resumed = copy.state is State.RELEASING
        part = None
        if queued.redirect_to is not None and not any_accepted:  # the sender's notice must not say that it was sent
            why = "Postfix redirects it to another address than its recipients'"
            self._journal.held.add_event(copy.incident_id, copy.id, STEWARD, REDIRECTED, why)
        try:
            for part in parts:
                if is_resumed:
                    self._note_doubt(copy, part, "resumed after an interruption")
                    is_resumed = False
                reinjector.send(queued, part.recipients, part.pieces())
                self._unrecorded.setdefault(copy.id, set()).update(part.records)
                self._journal.held.record_accepted(copy.id, part.records)
                self._unrecorded.pop(copy.id)
                any_accepted = True
                self._beat()
        except RootHalfGoneError:
            raise
        except (ReinjectError, HoldQueueError) as error:
            if isinstance(error, UnansweredError) and part is not None:
                self._note_doubt(copy, part, "no answer")
            why = _with_remedy(error)
            if not any_accepted:  # otherwise it stays RELEASING, so that the accepted parts are not sent again
                self._journal.held.set_state(copy.id, State.HELD, why=why, expected=State.RELEASING)
            return JobResult("failed", why)
        return None

    def _note_doubt(self, copy: QueueCopy, part: release_parts.ReleasePart, what: str) -> None:
        """Add an event that a part may be sent twice."""
        text = ", ".join(map(str, part.records))
        why = f"Postfix may have accepted {text} already: then its recipients get it a second time"
        self._journal.held.add_event(copy.incident_id, copy.id, "steward", what, why, part=text)

    def _close(self, job: Job, was_there: bool) -> JobResult:
        why = job.reason if job.mode is None else _as_mode(job)
        if not was_there:
            why += " (the held message was gone already)"
        why = "; ".join(filter(None, (why.strip(), job.remark)))
        self._journal.held.set_state(job.copy.id, job.closed_state, actor=job.actor, why=why, expected=RELEASABLE)
        return JobResult("done", why, self._listener_filter if job.verb == "release" else "")


def _one_for_each_file(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """The first job for each queue file, and the others: both would send its message."""
    first: dict[str, Job] = {}
    twice = [job for job in jobs if first.setdefault(job.copy.queue_id, job) is not job]
    return list(first.values()), twice


def _as_mode(job: Job) -> str:
    return f"as {job.mode}" + (f": {job.reason}" if job.reason else "")


def _with_remedy(error: Exception) -> str:
    if isinstance(error, HoldQueueError):
        return f"the private listener cannot be reached ({error}): run `undisclosed postfix attach`, and reload Postfix"
    return str(error)
