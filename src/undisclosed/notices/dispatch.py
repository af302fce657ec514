"""Composes and sends the notices that are due, and records each as sent, or as suppressed with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from undisclosed.incidents.records import Incident, NotFoundError, Notice
from undisclosed.notices.compose import render
from undisclosed.notices.eligibility import (
    LIMIT_PERIOD,
    MAX_NOTICES,
    Timeliness,
    is_within_limit,
    timeliness,
    why_suppressed,
)
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.templates import Templates
from undisclosed.policy import Policy
from undisclosed.service.backoff import Backoff

if TYPE_CHECKING:
    from undisclosed.journal.journal import Journal

FIRST_PAUSE: Final = 60.0
MAX_PAUSE: Final = 3600.0
"""Seconds between two attempts to send a notice: the first pause and the longest."""

Send = Callable[[EmailMessage, str], None]
"""Sends a notice to an address. Raises NoticeError."""


class DispatchStatus(StrEnum):
    """The state of a notice after an attempt."""

    SENT = "sent"
    SUPPRESSED = "suppressed"
    FAILED = "failed"
    """It stays due, and is tried again later."""


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The result for one notice, for the log."""

    notice: Notice
    reference: str
    status: DispatchStatus
    why: str = ""


@dataclass(slots=True)
class _Retry:
    """The next attempt for a notice that could not be sent."""

    at: datetime
    pauses: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE, MAX_PAUSE))

    def postpone(self, now: datetime) -> None:
        self.at = now + timedelta(seconds=self.pauses.next())


class Dispatcher:
    """Sends the notices of one gateway. Keeps in memory how many notices each sender got, and which ones failed."""

    def __init__(self, journal: Journal, gateway: str, send: Send) -> None:
        """`gateway` is the name of this host in the journal: each gateway sends the notices about its own mail."""
        self._journal = journal
        self._gateway = gateway
        self._send = send
        self._sent: dict[str, list[datetime]] = {}
        self._retries: dict[int, _Retry] = {}
        self._unrecorded: dict[int, str] = {}

    def dispatch(self, policy: Policy, templates: Templates, now: datetime) -> list[Dispatched]:
        """Send the notices that are due and true. `now` is aware. Raises JournalError.

        Ends at the first notice that cannot be sent: the next ones would probably fail too, and each attempt may last
        as long as the timeout of sendmail(1). That notice then waits, so that it does not block the others.
        """
        results = []
        self._forget(now)
        for notice in self._journal.notices.due(now):
            result = self._dispatch(policy, templates, notice, now)
            if result is not None:
                results.append(result)
                if result.status is DispatchStatus.FAILED:
                    break
        return results

    def _dispatch(self, policy: Policy, templates: Templates, notice: Notice, now: datetime) -> Dispatched | None:
        """Send or suppress one notice; None if it has to wait, or belongs to another gateway."""
        if notice.id in self._unrecorded:  # sent before, but the journal could not be written then
            return self._record(notice, self._unrecorded[notice.id])
        if notice.id in self._retries and now < self._retries[notice.id].at:
            return None
        try:
            incident = self._journal.incidents.get(notice.incident_id).narrowed_to(notice.copies)
        except NotFoundError:
            return None
        if not incident.copies or incident.copies[0].gateway != self._gateway:
            return None
        timely = timeliness(incident, notice.kind)
        why = why_suppressed(policy, incident)
        if why is None and timely is Timeliness.NOT_YET:
            return None
        if why is None and timely is Timeliness.TOO_LATE:
            why = f"by now the message is {incident.state}"
        if why is None and not is_within_limit(self._times(incident), now):
            why = f"the sender got {MAX_NOTICES} notices within an hour"
        if why is not None:
            self._journal.notices.mark_suppressed(notice.id, why)
            return Dispatched(notice, incident.reference, DispatchStatus.SUPPRESSED, why)
        return self._compose_and_send(policy, templates, notice, incident, now)

    def _compose_and_send(
        self, policy: Policy, templates: Templates, notice: Notice, incident: Incident, now: datetime
    ) -> Dispatched:
        try:
            modes = {part.mode for copy in incident.copies for part in self._journal.held.accepted_parts(copy.id)}
            message = render(policy, incident, notice.kind, now=now, templates=templates, release_modes=modes)
            self._send(message, incident.sender)
        except NoticeError as error:
            self._retries.setdefault(notice.id, _Retry(now)).postpone(now)
            return Dispatched(notice, incident.reference, DispatchStatus.FAILED, str(error))
        self._times(incident).append(now)
        self._unrecorded[notice.id] = incident.reference
        return self._record(notice, incident.reference)

    def _record(self, notice: Notice, reference: str) -> Dispatched:
        self._journal.notices.mark_sent(notice.id)
        self._unrecorded.pop(notice.id, None)
        return Dispatched(notice, reference, DispatchStatus.SENT)

    def _times(self, incident: Incident) -> list[datetime]:
        """The times of the notices that the sender of an incident got within the last hour."""
        return self._sent.setdefault(incident.sender.casefold(), [])

    def _forget(self, now: datetime) -> None:
        """Drop old entries, so that memory does not grow with the number of senders."""
        self._sent = {
            sender: recent
            for sender, times in self._sent.items()
            if (recent := [at for at in times if now - LIMIT_PERIOD < at])
        }
        self._retries = {
            notice_id: retry
            for notice_id, retry in self._retries.items()
            if now < retry.at + timedelta(seconds=MAX_PAUSE)
        }
