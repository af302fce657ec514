"""Deletes old records once a day, unless the wall clock may be wrong: that cannot be undone either."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog

from undisclosed.journal.journal import Journal

DAY: Final = 24 * 3600.0
"""Seconds between two deletions, and seconds for which a doubtful clock must stay as it is."""

MAX_LEAP: Final = timedelta(days=1)
"""The difference that makes the clock doubtful: to the newest event at the start, and to the monotonic clock later."""


class Pruning:
    """Deletes nothing while the clock is more than a day ahead of the newest event, or has leapt by more than a day,
    until the steward has run with it for a day.
    """

    def __init__(self, journal: Journal, log: structlog.BoundLogger) -> None:
        self._journal = journal
        self._log = log
        self._difference: timedelta | None = None
        """The wall clock less the monotonic clock; it changes when somebody sets the clock."""
        self._not_before = 0.0
        self._pruned_at: float | None = None

    def prune(self, now: datetime, monotonic: float) -> None:
        """Delete old records if it is time. To be called before the round writes: its events have the clock's time."""
        self._judge_clock(now, monotonic)
        if monotonic >= self._not_before and (self._pruned_at is None or monotonic - self._pruned_at >= DAY):
            self._journal.prune(now)
            self._pruned_at = monotonic

    def _judge_clock(self, now: datetime, monotonic: float) -> None:
        before, difference = (
            self._difference,
            now - datetime.fromtimestamp(0, now.tzinfo) - timedelta(seconds=monotonic),
        )
        if before is None:
            newest = self._journal.expiring.newest_event()
            leap = now - newest if newest is not None else timedelta()
            reason = f"the clock is {leap.days} days ahead of the newest event"
            is_doubtful = leap > MAX_LEAP
        else:
            leap = difference - before
            reason = f"the clock was set by {leap.total_seconds() / DAY:+.1f} days"
            is_doubtful = abs(leap) > MAX_LEAP
        if before is None or is_doubtful:
            self._difference = difference
        if is_doubtful:
            self._not_before = monotonic + DAY
            self._log.info("pruning_waits", reason=reason, effect="no old records are deleted for a day")
