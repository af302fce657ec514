"""Carries out the requests in the journal: classifies each one, acts on the copies that it means, answers it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from undisclosed.incidents.records import OPEN, Incident, NoticeKind, QueueCopy, Request, State, Verb
from undisclosed.journal.journal import Journal
from undisclosed.steward import authorize
from undisclosed.steward.context import Context
from undisclosed.steward.due_notices import DueNotices
from undisclosed.steward.reconcile import SOON
from undisclosed.steward.release import RELEASABLE, Job, JobResult, JobRunner

RETRY: Final = timedelta(seconds=60)
"""The time to the next attempt at a rule's release that failed."""

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
    """The request is carried out on these copies. Without copies, it only has to be answered."""

    copies: tuple[QueueCopy, ...]


@dataclass(frozen=True, slots=True)
class RoundState:
    """The state of a round: it decides which requests wait."""

    now: datetime
    retry_at: Mapping[int, datetime] = field(default_factory=dict)
    """Requests by id whose last attempt failed, with the time of the next one."""
    missing: Collection[int] = ()
    """The ids of copies that the last listing lacked: their state is unknown."""
    busy: Collection[int] = ()
    """The ids of copies that another request is carried out on in this round."""


def classify(
    context: Context, request: Request, incident: Incident, state: RoundState
) -> RefuseRequest | Wait | CarryOut:
    """The next step for a request."""
    copies = [copy for copy in _meant_copies(request, incident) if copy.gateway == context.gateway]
    reasons = (authorize.why_refused(context.policy, request, incident), *map(authorize.why_copy_refused, copies))
    if why := next(filter(None, reasons), None):
        return RefuseRequest(why)
    now = state.now
    times = (authorize.not_before(context.policy, request, incident), state.retry_at.get(request.id))
    earliest = max(filter(None, times), default=now)
    if earliest > now:
        return Wait(earliest)
    if any(copy.state is State.PENDING or copy.id in state.missing for copy in copies):
        return Wait(now + SOON)
    if any(copy.id in state.busy for copy in copies):
        return Wait(now)  # the next round classifies it by what the other request has done
    return CarryOut(tuple(copy for copy in copies if copy.state in RELEASABLE))


def _meant_copies(request: Request, incident: Incident) -> list[QueueCopy]:
    """The copies that a request means, on all gateways."""
    return [copy for copy in incident.copies if request.copy_id in (None, copy.id)]


@dataclass(slots=True)
class _Running:
    """A request that is being carried out."""

    request: Request
    incident: Incident
    left: set[int]
    """The ids of the copies that have no result yet."""
    results: list[JobResult] = field(default_factory=list)


class Requests:
    """Carries out the requests that concern one gateway. Remembers when failed releases are tried again."""

    def __init__(self, journal: Journal, jobs: JobRunner, due_notices: DueNotices, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._jobs = jobs
        self._due_notices = due_notices
        self._log = log
        self._retry_at: dict[int, datetime] = {}

    def carry_out(self, context: Context, now: datetime, missing: Collection[int]) -> datetime | None:
        """Carry out all requests that can be; returns the time at which the next one has to be looked at."""
        running: dict[int, _Running] = {}
        jobs: list[Job] = []
        times: list[datetime] = []
        requests = list(self._open_requests(context))
        state = RoundState(now, self._retry_at, missing, running)
        for request, incident in requests:
            step = classify(context, request, incident, state)
            match step:
                case RefuseRequest(why):
                    self._answer(request, incident, JobResult("refused", why))
                case Wait(until):
                    times.append(until)
                case CarryOut(copies):
                    started = _Running(request, incident, {copy.id for copy in copies})
                    running |= dict.fromkeys(started.left, started)
                    jobs += [_job(request, copy) for copy in copies]
                    if not copies:
                        self._conclude(context, started, now)
                case _:
                    assert_never(step)
        with closing(self._jobs.run(context.policy, jobs)) as results:
            for job, result in results:
                finished = running[job.copy.id]
                finished.results.append(result)
                finished.left.discard(job.copy.id)
                if not finished.left:
                    self._conclude(context, finished, now)
        return min((*times, *(at for at in self._retry_at.values() if at > now)), default=None)

    def _open_requests(self, context: Context) -> Iterator[tuple[Request, Incident]]:
        requests = self._journal.held.requests(gateway=context.gateway)
        is_open = {request.id for request in requests}
        self._retry_at = {request_id: at for request_id, at in self._retry_at.items() if request_id in is_open}
        incidents = self._journal.incidents
        known = {found.id: found for found in incidents.search(states=OPEN)} if len(requests) > MANY else {}
        for request in requests:
            yield request, known.get(request.incident_id) or incidents.get(request.incident_id)

    def _conclude(self, context: Context, finished: _Running, now: datetime) -> None:
        """Answer a request, unless it is tried again, or another gateway still has copies that it means."""
        request, incident, results = finished.request, finished.incident, finished.results
        failure = next((result for result in results if result.state != "done"), None)
        if failure is not None:
            if failure.state == "failed" and request.actor == authorize.STEWARD:
                self._try_again(request, incident, failure, now)
            else:
                self._answer(request, incident, failure)
        elif self._is_open_elsewhere(context, request, incident):
            return
        elif results or any(copy.state is CLOSED_STATES[request.verb] for copy in incident.copies):
            # The notice before the answer: an interrupted request comes again, an answered one does not.
            self._add_notice(context, request, incident, now)
            self._answer(request, incident, results[-1] if results else JobResult("done", ""))
        else:
            self._answer(request, incident, JobResult("refused", "no copy of the message is held any more"))

    def _try_again(self, request: Request, incident: Incident, failure: JobResult, now: datetime) -> None:
        self._retry_at[request.id] = now + RETRY
        seconds = RETRY.total_seconds()
        self._log.warning("release_failed", reference=incident.reference, reason=failure.why, retry_in=seconds)

    def _is_open_elsewhere(self, context: Context, request: Request, incident: Incident) -> bool:
        """Whether another gateway still has open copies that a request means: the last gateway answers."""

        def is_open(now: Incident) -> bool:
            copies = _meant_copies(request, now)
            return any(copy.state in OPEN and copy.gateway != context.gateway for copy in copies)

        # Re-read: another gateway may have finished since.
        return is_open(incident) and is_open(self._journal.incidents.get(incident.id))

    def _answer(self, request: Request, incident: Incident, result: JobResult) -> None:
        self._retry_at.pop(request.id, None)
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

    def _add_notice(self, context: Context, request: Request, incident: Incident, now: datetime) -> None:
        kind: NoticeKind | None
        if request.actor == authorize.STEWARD:
            kind = incident.action.effect.notice_when("released")
        else:
            kind = "released" if request.verb == "release" else "deleted"
        if kind is not None:
            self._due_notices.add(context.policy, incident, kind, now)


def _job(request: Request, copy: QueueCopy) -> Job:
    return Job(copy, request.verb, request.mode, request.actor, request.reason, CLOSED_STATES[request.verb])
