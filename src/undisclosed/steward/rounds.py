"""One round of the steward: reconcile with the hold queue, carry out requests, expire, send notices."""

from __future__ import annotations

import time
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
from undisclosed.steward.pruning import Pruning
from undisclosed.steward.reconcile import Reconciler
from undisclosed.steward.release import JobRunner
from undisclosed.steward.repeats import RepeatFinder
from undisclosed.steward.requests import Requests

IDLE: Final = timedelta(seconds=15)
"""The time between two rounds if nothing is expected."""

WATCHFUL: Final = timedelta(seconds=10)
"""The same while mail is held: what somebody does with it by hand is noticed within this time."""

FORGET_INTERVAL: Final = 24 * 3600.0
"""Seconds after which the memory of added notices is emptied."""

Dispatch = Callable[[datetime], None]
"""Sends the notices that are due at this time. Raises JournalError; a notice that cannot be sent stays due."""


class Steward:
    """Takes care of the held mail of one gateway. The caller passes the time, and the clock that nobody can set."""

    def __init__(
        self,
        context: Context,
        journal: Journal,
        queue: HoldQueue,
        log: structlog.BoundLogger,
        dispatch: Dispatch,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.context = context
        """May be replaced between two rounds."""
        self._journal = journal
        self._dispatch = dispatch
        self._due_notices = DueNotices(journal)
        self._heartbeat = Heartbeat(journal)
        jobs = JobRunner(journal, queue, context.key, self._heartbeat.beat)
        self._reconciler = Reconciler(journal, queue, self._due_notices, log, monotonic)
        self._repeats = RepeatFinder(journal, queue, log)
        self._requests = Requests(journal, jobs, self._due_notices, log)
        self._expiry = Expiry(journal, jobs, self._due_notices, log)
        self._pruning = Pruning(journal, log)
        self._monotonic = monotonic
        self._forgot_at = monotonic()

    def round(self, now: datetime) -> datetime:
        """Do everything that can be done now; returns the time of the next round.

        Raises JournalError and HoldQueueError: the next round continues where this one was interrupted.
        """
        self._heartbeat.begin(self.context, now)
        monotonic = self._monotonic()
        self._pruning.prune(now, monotonic)
        reconcile_at = self._reconciler.reconcile(self.context, now)
        self._repeats.find(self.context)
        # After the reconciliation: it tells which copies are missing, and a request for these waits.
        carry_out_at = self._requests.carry_out(
            self.context, now, self._reconciler.missing_since, self._reconciler.cleared
        )
        self._expiry.expire(self.context, self._reconciler.held, now, monotonic)
        self._dispatch(now)
        if monotonic - self._forgot_at >= FORGET_INTERVAL:
            self._due_notices.forget()
            self._forgot_at = monotonic
        idle = WATCHFUL if self._reconciler.has_open else IDLE
        return min(filter(None, (now + idle, reconcile_at, carry_out_at)))

    def close(self) -> None:
        """Close what is open."""
        self._reconciler.close()
