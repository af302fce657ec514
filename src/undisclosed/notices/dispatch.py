"""What the steward calls: due notices are written, sent and recorded as sent, or recorded as not to be sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from undisclosed.incidents.records import Incident, NotFoundError, Notice
from undisclosed.notices.compose import render
from undisclosed.notices.eligibility import MOST, WITHIN, Moment, moment, suppressed, within_limit
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.templates import Words
from undisclosed.policy import Policy
from undisclosed.service.backoff import Backoff

if TYPE_CHECKING:
    from undisclosed.journal.journal import Journal

FIRST_PAUSE: Final = 60.0
LONGEST_PAUSE: Final = 3600.0
"""Seconds between two attempts to send a notice: the first pause and the longest."""

Send = Callable[[EmailMessage, str], None]
"""Takes a notice and the address that it goes to; raises NoticeError."""


class Fate(StrEnum):
    """What became of a due notice."""

    SENT = "sent"
    SUPPRESSED = "suppressed"
    FAILED = "failed"
    """It stays due, and is tried again later."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one notice in one round, for the log."""

    notice: Notice
    reference: str
    fate: Fate
    why: str = ""


@dataclass(slots=True)
class _Retry:
    """When a notice that could not be sent is tried again."""

    at: datetime
    pauses: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE, LONGEST_PAUSE))

    def postpone(self, now: datetime) -> None:
        self.at = now + timedelta(seconds=self.pauses.next())


class Courier:
    """Sends the notices of one gateway. Remembers, while it lives, how many each sender got and what failed."""

    def __init__(self, journal: Journal, gateway: str, send: Send) -> None:
        """`gateway` is this host as the journal knows it: what another one stopped, its own steward tells of."""
        self._journal = journal
        self._gateway = gateway
        self._send = send
        self._sent: dict[str, list[datetime]] = {}
        self._retries: dict[int, _Retry] = {}
        self._unrecorded: set[int] = set()

    def deliver(self, policy: Policy, words: Words, now: datetime) -> list[Outcome]:
        """Send what is due and true by now. `now` is an instant. Raises JournalError.

        Ends with the first notice that cannot be sent: the others would most likely fail like it, and each may take as
        long as sendmail(1) may. That one waits for a while, so that it cannot stand before the others for ever.
        """
        outcomes = []
        self._forget(now)
        for notice in self._journal.due_notices(now):
            outcome = self._one(policy, words, notice, now)
            if outcome is not None:
                outcomes.append(outcome)
                if outcome.fate is Fate.FAILED:
                    break
        return outcomes

    def _one(self, policy: Policy, words: Words, notice: Notice, now: datetime) -> Outcome | None:
        if notice.id in self._unrecorded:  # sent, and then the journal could not be written: only that is left
            return self._record(notice, "")
        if notice.id in self._retries and now < self._retries[notice.id].at:
            return None
        try:
            incident = self._journal.incident(notice.incident_id)
        except NotFoundError:
            return None
        if not incident.copies or incident.copies[0].gateway != self._gateway:
            return None
        times = self._sent.setdefault(incident.sender.casefold(), [])
        why = suppressed(policy, incident)
        when = moment(incident, notice.kind)
        if why is None and when is Moment.NOT_YET:
            return None
        if why is None and when is Moment.TOO_LATE:
            why = f"by now the message is {incident.state}"
        if why is None and not within_limit(times, now):
            why = f"the sender got {MOST} notices within an hour"
        if why is not None:
            self._journal.notice_sent(notice.id, suppressed=True, why=why)
            return Outcome(notice, incident.reference, Fate.SUPPRESSED, why)
        return self._write(policy, words, notice, incident, now)

    def _write(self, policy: Policy, words: Words, notice: Notice, incident: Incident, now: datetime) -> Outcome:
        try:
            taken = {part for copy in incident.copies for part in self._journal.taken(copy.id)}
            message = render(policy, incident, notice.kind, now=now, words=words, taken=taken)
            self._send(message, incident.sender)
        except NoticeError as error:
            self._retries.setdefault(notice.id, _Retry(now)).postpone(now)
            return Outcome(notice, incident.reference, Fate.FAILED, str(error))
        self._sent[incident.sender.casefold()].append(now)
        self._unrecorded.add(notice.id)
        return self._record(notice, incident.reference)

    def _record(self, notice: Notice, reference: str) -> Outcome:
        self._journal.notice_sent(notice.id)
        self._unrecorded.discard(notice.id)
        return Outcome(notice, reference, Fate.SENT)

    def _forget(self, now: datetime) -> None:
        """Let go of what no longer matters, so that memory does not grow with the number of senders."""
        self._sent = {
            sender: recent
            for sender, times in self._sent.items()
            if (recent := [at for at in times if now - WITHIN < at])
        }
        self._retries = {
            notice: retry
            for notice, retry in self._retries.items()
            if now < retry.at + timedelta(seconds=LONGEST_PAUSE)
        }
