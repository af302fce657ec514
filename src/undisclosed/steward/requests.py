"""Carries out the requests in the journal: classifies each one, acts on the copies that it means, answers it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from undisclosed.incidents.records import (
    OPEN,
    STEWARD,
    Incident,
    NoticeKind,
    QueueCopy,
    Request,
    State,
    Verb,
    is_complete,
)
from undisclosed.journal.journal import Journal
from undisclosed.steward import authorize
from undisclosed.steward.comparison import SOON
from undisclosed.steward.context import Context
from undisclosed.steward.due_notices import DueNotices
from undisclosed.steward.put_back import PutBack, Released
from undisclosed.steward.release import RELEASABLE, Job, JobResult, JobRunner

RETRY: Final = timedelta(seconds=60)
"""The time to the second attempt at a rule's release; to each further one it is twice as long."""

LONGEST_RETRY: Final = timedelta(hours=1)

ATTEMPTS: Final = 6
"""Attempts at a rule's release, in half an hour. Then it waits for a person, and its sender is told."""

MANY: Final = 20
"""From this number of requests on, all open incidents are read with one query."""

CLOSED_STATES: Final[dict[Verb, State]] = {"release": State.RELEASED, "delete": State.DELETED}


@dataclass(frozen=True, slots=True)
class RefuseRequest:
    """The request must not be carried out."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The request is classified again at this time."""

    until: datetime


@dataclass(frozen=True, slots=True)
class CarryOut:
    """The request is carried out on its copy."""

    copy: QueueCopy


@dataclass(frozen=True, slots=True)
class Answered:
    """The copy is dealt with already: the request only has to be answered."""

    copy: QueueCopy


@dataclass(frozen=True, slots=True)
class RoundState:
    """The state of a round: it decides which requests wait."""

    now: datetime
    retry_at: Mapping[int, datetime] = field(default_factory=dict)
    """Requests by id whose last attempt failed, with the time of the next one."""
    missing: Collection[int] = ()
    """The ids of copies that the last listing lacked: their state is unknown."""
    cleared: Collection[int] = ()
    """The ids of copies that the steward may release by itself."""


def classify(
    context: Context, request: Request, incident: Incident, state: RoundState
) -> RefuseRequest | Wait | CarryOut | Answered:
    """The next step for a request."""
    if why := authorize.why_refused(context.policy, request, incident):
        return RefuseRequest(why)
    [copy] = (copy for copy in incident.copies if copy.id == request.copy_id)
    now = state.now
    retry_at = state.retry_at.get(request.id)
    if retry_at is not None and retry_at > now + LONGEST_RETRY:
        retry_at = None  # the clock was set back since
    times = (authorize.not_before(context.policy, request, copy), retry_at)
    earliest = max(filter(None, times), default=now)
    if earliest > now:
        return Wait(earliest)
    if copy.state is State.PENDING or copy.id in state.missing:
        return Wait(now + SOON)
    if request.actor == STEWARD and copy.state is State.HELD and copy.id not in state.cleared:
        return Wait(now + SOON)
    return CarryOut(copy) if copy.state in RELEASABLE else Answered(copy)


class Requests:
    """Carries out the requests for the copies of one gateway. Remembers when failed releases are tried again."""

    def __init__(self, journal: Journal, jobs: JobRunner, due_notices: DueNotices, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._jobs = jobs
        self._due_notices = due_notices
        self._log = log
        self._retry_at: dict[int, datetime] = {}
        self._attempts: dict[int, int] = {}
        """The attempts at each rule's release that failed so far."""
        self._put_back = PutBack(journal)

    def carry_out(
        self, context: Context, now: datetime, missing: Collection[int], cleared: Collection[int]
    ) -> datetime | None:
        """Carry out all requests that can be; returns the time at which the next one has to be looked at."""
        ready: dict[int, tuple[Request, Incident, QueueCopy]] = {}
        times: list[datetime] = []
        state = RoundState(now, self._retry_at, missing, cleared)
        self._look_for_released(context, now)
        for request, incident in list(self._open_requests(context)):
            if self._put_back.waits(request.id):
                continue
            step = classify(context, request, incident, state)
            match step:
                case RefuseRequest(why):
                    self._answer(request, incident, JobResult("refused", why))
                case Wait(until):
                    times.append(until)
                case Answered(copy):
                    self._conclude(request, incident, copy, _result_of(request, copy), now)
                case CarryOut(copy):
                    ready[request.id] = request, incident, copy
                case _:
                    assert_never(step)
        # Before the work: from here on nobody withdraws them, and no other steward carries them out.
        taken = self._journal.held.take(ready, gateway=context.gateway) if ready else set()
        jobs = [_job(request, copy) for request, _, copy in ready.values() if request.id in taken]
        with closing(self._jobs.run(context.policy, jobs)) as results:
            for job, result in results:
                self._conclude(*ready[job.request_id], result, now)
        if self._put_back.any_waits:
            times.append(now + SOON)
        return min((*times, *(at for at in self._retry_at.values() if at > now)), default=None)

    def _open_requests(self, context: Context) -> Iterator[tuple[Request, Incident]]:
        requests = self._journal.held.requests(gateway=context.gateway)
        is_open = {request.id for request in requests}
        self._retry_at = {request_id: at for request_id, at in self._retry_at.items() if request_id in is_open}
        self._attempts = {request_id: count for request_id, count in self._attempts.items() if request_id in is_open}
        incidents = self._journal.incidents
        known = {found.id: found for found in incidents.search(states=OPEN)} if len(requests) > MANY else {}
        for request in requests:
            yield request, known.get(request.incident_id) or incidents.get(request.incident_id)

    def _conclude(
        self, request: Request, incident: Incident, copy: QueueCopy, result: JobResult, now: datetime
    ) -> None:
        """Answer a request, unless it is tried again."""
        if result.state == "waits":
            self._retry_at[request.id] = now + SOON
            self._journal.held.put_back(request.id)
            return
        if request.actor == STEWARD and result.state != "done" and self._goes_on(request, incident, copy, result, now):
            return
        if result.state == "done" and request.verb == "release":
            # A rule's own release has no person who waits for the answer.
            released = Released(request, incident, copy, now, result.listener_filter, result.why)
            waits = bool(result.listener_filter) and request.actor != STEWARD
            self._put_back.watch(released, answer_waits=waits)
            if waits:
                return
        self._finish(request, incident, copy, result, now)

    def _finish(self, request: Request, incident: Incident, copy: QueueCopy, result: JobResult, now: datetime) -> None:
        if result.state == "done":
            # The notice before the answer: an interrupted request comes again, an answered one does not.
            self._add_notice(request, copy, now)
        elif result.state == "failed" and request.verb == "delete" and copy.action.effect.release_mode is not None:
            self._journal.held.wait_for_person(copy, result.why, now=now)  # nobody wants the rule's release any more
        self._answer(request, incident, result)

    def _look_for_released(self, context: Context, now: datetime) -> None:
        """Say which released copies are on hold again, and answer the requests that waited for that."""
        for released, again in self._put_back.found(context, now):
            why, reference = released.why_again(again), released.incident.reference
            self._log.warning("released_copy_held_again", queue_id=again.queue_id, reference=reference, reason=why)
            if self._put_back.waits(released.request.id):
                self._finish(released.request, released.incident, released.copy, JobResult("failed", why), now)
        for released in self._put_back.due(now):
            result = JobResult("done", released.why)
            self._finish(released.request, released.incident, released.copy, result, now)

    def _goes_on(self, request: Request, incident: Incident, copy: QueueCopy, result: JobResult, now: datetime) -> bool:
        """Whether a rule's release that was not carried out is tried again; else its copy waits for a person."""
        attempts = self._attempts[request.id] = self._attempts.get(request.id, 0) + 1
        # If all recipients have the message, a person has nothing to decide: only its file has to be deleted.
        is_served = is_complete(self._journal.held.accepted_parts(copy.id))
        if not is_served and (result.state == "refused" or attempts >= ATTEMPTS):
            # Before the answer: an interrupted request comes again, an answered one does not.
            if self._journal.held.wait_for_person(copy, result.why, now=now):
                log = self._log.bind(queue_id=copy.queue_id, reference=incident.reference)
                log.error("copy_not_releasable", reason=result.why)
                return False
            if result.state == "refused":
                return False
        pause = min(RETRY * 2 ** (attempts - 1), LONGEST_RETRY)
        self._retry_at[request.id] = now + pause
        self._journal.held.put_back(request.id)
        seconds = pause.total_seconds()
        self._log.warning("release_failed", reference=incident.reference, reason=result.why, retry_in=seconds)
        return True

    def _answer(self, request: Request, incident: Incident, result: JobResult) -> None:
        assert result.state != "waits"
        self._retry_at.pop(request.id, None)
        self._attempts.pop(request.id, None)
        self._put_back.answered(request.id)
        self._journal.held.answer(request.id, result.state, result.why)
        log = self._log.bind(
            reference=incident.reference, verb=request.verb, release_mode=request.mode, actor=request.actor
        )
        match result.state:
            case "done":
                log.info("request_done", reason=result.why)
            case "refused":
                log.warning("request_refused", reason=result.why)
            case "failed":
                log.warning("request_failed", reason=result.why)

    def _add_notice(self, request: Request, copy: QueueCopy, now: datetime) -> None:
        if request.actor == STEWARD and (copy.action.effect.first_notice == "split" or self._is_told(copy)):
            return  # its first notice tells of the release
        kind: NoticeKind = "released" if request.verb == "release" else "deleted"
        self._due_notices.add(copy, kind, now)

    def _is_told(self, copy: QueueCopy) -> bool:
        """Whether anybody was told of a copy. A first notice that is still due now says what is not true any more."""
        notices = self._journal.notices.of(copy.incident_id)
        return any(notice.state == "sent" and copy.id in notice.copies for notice in notices)


def _result_of(request: Request, copy: QueueCopy) -> JobResult:
    """The answer to a request whose copy is dealt with already: another request, or a person, was faster."""
    if copy.state is CLOSED_STATES[request.verb]:
        return JobResult("done", "")
    return JobResult("refused", f"it is not held any more: {copy.state}")


def _job(request: Request, copy: QueueCopy) -> Job:
    closed = CLOSED_STATES[request.verb]
    return Job(copy, request.verb, request.mode, request.actor, request.reason, closed, request_id=request.id)
