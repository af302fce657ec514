"""Reminds of held messages whose time is nearly over, and deletes or keeps them then (`incidents/expiry.py` says when).

The hours of a copy are counted from two days before its `until`, since nothing depends on them before: an idle steward
does not write. They are written about once a minute; a steward that is killed between loses that minute.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from datetime import datetime
from typing import Final

import structlog

from undisclosed.incidents import expiry
from undisclosed.incidents.expiry import Seen, Told
from undisclosed.incidents.records import STEWARD, QueueCopy, State
from undisclosed.journal.journal import Journal
from undisclosed.steward import authorize
from undisclosed.steward.context import Context
from undisclosed.steward.due_notices import DueNotices
from undisclosed.steward.release import RELEASABLE, Job, JobResult, JobRunner

WRITE_INTERVAL: Final = 60.0
"""Seconds between two records of the time seen. Each wakes the steward itself for one round: SQLite's counter does not
tell who wrote."""


class Expiry:
    """Deletes or keeps held messages after `hold.expire_days`, as `hold.on_expiry` says."""

    def __init__(self, journal: Journal, jobs: JobRunner, due_notices: DueNotices, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._jobs = jobs
        self._due_notices = due_notices
        self._log = log
        self._round_at: float | None = None
        self._written_at = 0.0
        self._unwritten: dict[int, float] = {}
        """Of the copies near their end that the last round saw held: the seconds that the journal does not have yet."""

    def expire(self, context: Context, held: Collection[int], now: datetime, monotonic: float) -> None:
        """Count the round, add reminders, and delete the messages whose time is over.

        `held`: the ids of the copies that the listing of this round has on hold. `monotonic`: time.monotonic(), the
        clock that nobody can set. It stands still while the host is suspended: nobody could have answered then.
        """
        copies = self._near(context, held, now)
        kinds = (*expiry.reminders(context.policy.hold.expire_days), "kept")
        notices = self._journal.expiring.told([copy.id for copy in copies], kinds)
        told = {copy_id: expiry.not_taken_back(found) for copy_id, found in notices.items()}
        is_kept = context.policy.hold.on_expiry == "keep"
        seen = self._count(copies, told, now, monotonic)
        over = []
        for copy in copies:
            assert copy.until is not None
            # As long as it is kept, a reminder after the notice that says so would say less.
            is_settled = is_kept and any(notice.kind == "kept" for notice in notices[copy.id])
            if expiry.owes_reminder(told[copy.id], copy.until, now) and not is_settled:
                self._journal.expiring.add_reminder(copy, now)
            if is_kept:
                if seen[copy.id].is_past_until:
                    self._due_notices.add(copy, "kept", now)
            elif seen[copy.id].is_over:
                over.append(copy)
        self._delete(context, over, now)

    def _near(self, context: Context, held: Collection[int], now: datetime) -> list[QueueCopy]:
        """The copies that can expire, and whose time is nearly over or was before the clock changed."""
        found = self._journal.incidents.copies(gateway=context.gateway, states=RELEASABLE)
        return [
            copy
            for copy in found
            if copy.id in held
            and copy.until is not None
            and not copy.adopted
            and not (copy.leaves is not None and copy.leaves > now)
            and authorize.why_copy_refused(copy) is None
            and (expiry.is_near(copy.until, now) or any(mark is not None for mark in Seen.of(copy).marks))
        ]

    def _count(
        self, copies: Collection[QueueCopy], told: Mapping[int, Collection[Told]], now: datetime, monotonic: float
    ) -> dict[int, Seen]:
        """Add the time since the last round to each copy that both rounds saw held, and write it from time to time."""
        passed = 0.0 if self._round_at is None else monotonic - self._round_at
        self._round_at = monotonic
        seen: dict[int, Seen] = {}
        changed: dict[int, Seen] = {}
        is_news = False
        for copy in copies:
            assert copy.until is not None
            written = Seen.of(copy)
            unwritten = self._unwritten.get(copy.id)
            new = expiry.seen(
                written,
                copy.until,
                now=now,
                elapsed=0.0 if unwritten is None else unwritten + min(passed, expiry.MAX_ROUND),
                is_reminded=expiry.is_reminded(told[copy.id], copy.until, now),
            )
            seen[copy.id] = new
            if new != written:
                changed[copy.id] = new
            is_news = is_news or new.marks != written.marks
        self._unwritten = {copy.id: seen[copy.id].seconds - copy.seen_seconds for copy in copies}
        if changed and (is_news or monotonic - self._written_at >= WRITE_INTERVAL):
            self._journal.expiring.record_seen(changed)
            self._written_at = monotonic
            self._unwritten = dict.fromkeys(self._unwritten, 0.0)
        return seen

    def _delete(self, context: Context, over: Collection[QueueCopy], now: datetime) -> None:
        """Delete messages, unless a person's request for one waits: then somebody has decided."""
        if not over:
            return
        requests = self._journal.held.requests(gateway=context.gateway)
        asked = {request.copy_id for request in requests if request.actor != STEWARD}
        jobs: list[Job] = []
        references: dict[int, str] = {}
        for copy in over:
            if copy.id not in asked:
                # Before the deletion, so that a crash cannot lose it. It is not sent before the message is deleted. Not
                # by `due_notices`, which remembers: a person who kept the message after a deletion that failed has
                # dropped the notice.
                self._journal.notices.add(copy, "expired", now)
                references[copy.id] = self._journal.incidents.get(copy.incident_id).reference
                jobs.append(_job(copy, context.policy.hold.expire_days))
        with closing(self._jobs.run(context.policy, jobs)) as results:
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
