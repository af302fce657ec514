"""The journal as a whole: one database, and an object for each kind of work on it."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from undisclosed.incidents.records import OPEN
from undisclosed.journal import changes, tables
from undisclosed.journal.database import Database
from undisclosed.journal.expiring import Expiring
from undisclosed.journal.filing import Filing
from undisclosed.journal.gateways import Gateways
from undisclosed.journal.held import Held
from undisclosed.journal.inbox import Inbox
from undisclosed.journal.notices import Notices
from undisclosed.journal.queries import Incidents
from undisclosed.journal.queue_facts import QueueFacts
from undisclosed.journal.repeats import Repeats
from undisclosed.journal.rows import IDS_PER_QUERY
from undisclosed.policy.sections import JournalSection

OWED_FOR: Final = timedelta(days=30)
"""The time for which a due notice keeps its incident: a gateway that is gone for good never sends its own."""


class Journal:
    """Incidents in SQLite or PostgreSQL.

    It connects at first use: after the fork of the process that uses it. Every method of its parts is one short
    transaction, may be called from any thread, and raises JournalError when the database cannot be reached, read or
    written; none waits longer than about 2 s for it.
    """

    def __init__(self, settings: JournalSection, key: bytes) -> None:
        self._retention = timedelta(days=settings.retention_days)
        self._database = database = Database(settings.url, fingerprint(key))
        self._watcher: changes.Watcher | None = None
        self.filing = Filing(database, settings, key)
        self.held = Held(database)
        self.notices = Notices(database)
        self.expiring = Expiring(database)
        self.queue_facts = QueueFacts(database)
        self.gateways = Gateways(database)
        self.repeats = Repeats(database)
        self.inbox = Inbox(database, self.filing, self.held)
        self.incidents = Incidents(database, self.inbox)

    def check(self) -> None:
        """Raises WrongVersionError, WrongKeyError, or JournalError where the database cannot be reached."""
        self._database.check()

    def close(self) -> None:
        """Close every connection."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        self._database.close()

    def wait(self, timeout: float) -> bool:
        """Return True when there may be new work, False after `timeout` seconds; the first time True at once."""
        if self._watcher is None:
            self._watcher = changes.watcher(self._database.url)
        with self._database.translated_errors():
            try:
                return self._watcher.wait(timeout)
            except BaseException:
                self._watcher.close()
                self._watcher = None
                raise

    def prune(self, now: datetime) -> int:
        """Delete incidents older than `journal.retention_days` without held mail; returns their number.

        One with a notice that is due is kept for longer, by OWED_FOR: a digest may wait for a day.
        """
        table = tables.incident
        still_open = sa.exists().where(
            tables.queue_copy.c.incident_id == table.c.id,
            tables.queue_copy.c.state.in_([state.value for state in OPEN]),
        )
        is_owed = sa.exists().where(tables.notice.c.incident_id == table.c.id, tables.notice.c.state == "due")
        is_told = sa.or_(~is_owed, table.c.at < now - self._retention - OWED_FOR)
        is_old = table.c.at < now - self._retention
        old = sa.select(table.c.id).where(is_old, ~still_open, is_told).limit(IDS_PER_QUERY)
        pruned = 0
        while True:
            with self._database.write() as connection:
                ids = list(connection.scalars(old))
                if ids:
                    connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
            pruned += len(ids)
            if len(ids) < IDS_PER_QUERY:
                return pruned


def fingerprint(key: bytes) -> str:
    """A hash that tells keys apart, and from which the key cannot be found."""
    return hmac.digest(key, b"fingerprint of the journal's key", hashlib.sha256).hex()[:32]
