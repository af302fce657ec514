"""Records in the journal that the steward of a gateway works: commands warn if it was not seen for a minute."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Final

from undisclosed.journal.journal import Journal
from undisclosed.steward.context import Context

INTERVAL: Final = timedelta(seconds=20)
"""The time between two records: each is a write to the disk."""


class Heartbeat:
    """Records the time at the start of a round, and during a long one."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._recorded: datetime | None = None

    def begin(self, context: Context, now: datetime) -> None:
        """A round begins at this time."""
        self._context = context
        self._now, self._began = now, time.monotonic()
        self.beat()

    def beat(self) -> None:
        """The round goes on. Raises JournalError."""
        at = self._now + timedelta(seconds=time.monotonic() - self._began)
        if self._recorded is None or abs(at - self._recorded) >= INTERVAL:  # the clock may be set back
            self._journal.gateways.record(self._context.gateway, self._context.gateway_name, at)
            self._recorded = at
