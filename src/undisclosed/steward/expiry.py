"""Deletes or keeps expired messages, and adds a reminder a day before."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from typing import Final

import structlog

from undisclosed.incidents.records import STEWARD, QueueCopy, State
from undisclosed.journal.journal import Journal
from undisclosed.steward import authorize
from undisclosed.steward.context import Context
from undisclosed.steward.due_notices import DueNotices
from undisclosed.steward.release import RELEASABLE, Job, JobResult, JobRunner

REMINDER: Final = timedelta(days=1)
"""The time between the reminder and the end of the hold."""


class Expiry:
    """Deletes or keeps held messages after `hold.expire_days`, as `hold.on_expiry` says."""

    def __init__(self, journal: Journal, jobs: JobRunner, due_notices: DueNotices, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._jobs = jobs
        self._due_notices = due_notices
        self._log = log

    def expire(self, context: Context, now: datetime) -> None:
        """Add reminders, and delete the messages whose time is over."""
        policy = context.policy
        expired: list[Job] = []
        references: dict[int, str] = {}
        for copy in self._journal.incidents.copies(gateway=context.gateway, states=RELEASABLE):
            if copy.until is None:
                continue
            if copy.until > now:
                if copy.until - REMINDER <= now and policy.hold.expire_days > REMINDER.days:
                    self._due_notices.add(copy, "reminder", now)
            elif policy.hold.on_expiry == "keep":
                self._due_notices.add(copy, "kept", now)
            elif authorize.why_copy_refused(copy) is None:
                # Before the deletion, so that a crash cannot lose it. It is not sent before the message is deleted.
                self._due_notices.add(copy, "expired", now)
                references[copy.id] = self._journal.incidents.get(copy.incident_id).reference
                expired.append(_job(copy, policy.hold.expire_days))
        with closing(self._jobs.run(policy, expired)) as results:
            for job, result in results:
                self._log_result(job, result, references[job.copy.id])

    def _log_result(self, job: Job, result: JobResult, reference: str) -> None:
        queue_id = job.copy.queue_id
        if result.state == "done":
            self._log.info("copy_expired", queue_id=queue_id, reference=reference, reason=result.why)
        else:
            self._log.warning("expiry_failed", queue_id=queue_id, reference=reference, reason=result.why)


def _job(copy: QueueCopy, days: int) -> Job:
    return Job(copy, "delete", None, STEWARD, f"held for {days} days", State.EXPIRED)
