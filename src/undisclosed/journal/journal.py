"""The journal: incidents, their events, the requests made of them, and the notices due about them."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from undisclosed.incidents.records import OPEN
from undisclosed.journal import tables
from undisclosed.journal.database import AT_ONCE
from undisclosed.journal.queries import Reading


class Journal(Reading):
    """Incidents in SQLite or PostgreSQL.

    Makes its engine at first use: after the fork of the process that uses it. Every method is one short transaction,
    may be called from any thread, and raises JournalError when the database cannot be reached, read or written;
    nothing waits longer than about 2 s for it.
    """

    def prune(self, now: datetime) -> int:
        """Delete incidents older than `journal.retention_days` of which nothing is held; returns how many."""
        table = tables.incident
        before = now - timedelta(days=self._settings.retention_days)
        still_open = sa.exists().where(
            tables.copy.c.incident_id == table.c.id, tables.copy.c.state.in_([state.value for state in OPEN])
        )
        old = sa.select(table.c.id).where(table.c.at < before, ~still_open).limit(AT_ONCE)
        pruned = 0
        while True:
            with self._write() as connection:
                ids = list(connection.scalars(old))
                if ids:
                    connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
            pruned += len(ids)
            if len(ids) < AT_ONCE:
                return pruned

    def wait(self, timeout: float) -> bool:
        """Return True when there may be new work, False after `timeout` seconds; the first time True at once."""
        from undisclosed.journal import changes

        if self._waiter is None:
            self._waiter = changes.waiter(self._settings.url)
        with self._told():
            try:
                return bool(self._waiter.wait(timeout))
            except BaseException:
                self._waiter.close()
                self._waiter = None
                raise
