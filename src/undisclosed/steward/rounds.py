"""One round of the steward: reconcile with the hold queue, carry out requests, expire, send notices."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from undisclosed.journal.journal import Journal
from undisclosed.steward.context import Context
from undisclosed.steward.due_notices import DueNotices
from undisclosed.steward.expiry import Expiry
from undisclosed.steward.heartbeat import Heartbeat
from undisclosed.steward.hold_queue import HoldQueue
from undisclosed.steward.reconcile import Reconciler
from undisclosed.steward.release import JobRunner
from undisclosed.steward.repeats import RepeatFinder
from undisclosed.steward.requests import Requests

IDLE: Final = timedelta(seconds=15)
"""The time between two rounds if nothing is expected. Changes made by hand are noticed within this time."""

PRUNE_INTERVAL: Final = timedelta(days=1)

Dispatch = Callable[[datetime], None]
"""Sends the notices that are due at this time. Raises JournalError; a notice that cannot be sent stays due."""


class Steward:
    """Takes care of the held mail of one gateway. The caller passes the time."""

    def __init__(
        self,
        context: Context,
        journal: Journal,
        queue: HoldQueue,
        log: structlog.BoundLogger,
        dispatch: Dispatch,
    ) -> None:
        self.context = context
        """May be replaced between two rounds."""
        self._journal = journal
        self._dispatch = dispatch
        self._due_notices = DueNotices(journal)
        self._heartbeat = Heartbeat(journal)
        jobs = JobRunner(journal, queue, context.key, self._heartbeat.beat)
        self._reconciler = Reconciler(journal, queue, log)
        self._repeats = RepeatFinder(journal, queue, log)
        self._requests = Requests(journal, jobs, self._due_notices, log)
        self._expiry = Expiry(journal, jobs, self._due_notices, log)
        self._pruned_at: datetime | None = None

    def round(self, now: datetime) -> datetime:
        """Do everything that can be done now; returns the time of the next round.

        Raises JournalError and HoldQueueError: the next round continues where this one was interrupted.
        """
        self._heartbeat.begin(self.context, now)
        reconcile_at = self._reconciler.reconcile(self.context, now)
        self._repeats.find(self.context)
        # After the reconciliation: it tells which copies are missing, and a request for these waits.
        carry_out_at = self._requests.carry_out(self.context, now, self._reconciler.missing_since)
        self._expiry.expire(self.context, now)
        self._dispatch(now)
        self._prune(now)
        return min(filter(None, (now + IDLE, reconcile_at, carry_out_at)))

    def _prune(self, now: datetime) -> None:
        if self._pruned_at is None or now - self._pruned_at >= PRUNE_INTERVAL:
            self._journal.prune(now)
            self._due_notices.forget()
            self._pruned_at = now
