"""Waiting for new work in the journal: PostgreSQL sends notifications, SQLite is polled.

Neither wakes an idle process more than about once a second.
"""

from __future__ import annotations

import select
import sqlite3
import time
from typing import Any, Final, Protocol

import sqlalchemy as sa

from undisclosed.incidents.records import JournalError
from undisclosed.journal import engines

POLL_INTERVAL: Final = 1.25
"""Seconds between two reads of SQLite's change counter, of 5 µs each."""

PING_INTERVAL: Final = 10.0
"""Seconds between two queries on the connection that listens: a server that was frozen or cut off sends nothing."""


class Watcher(Protocol):
    """Waits for changes, on a connection of its own."""

    def wait(self, timeout: float) -> bool:
        """Return True after a change, False after `timeout` seconds without one; the first time True at once."""

    def close(self) -> None:
        """Close the connection."""


def watcher(url: str) -> Watcher:
    """The watcher of this database; it connects at its first wait."""
    return _SqliteWatcher(url) if engines.is_sqlite(url) else _PostgresWatcher(sa.make_url(url))


class _SqliteWatcher:
    def __init__(self, url: str) -> None:
        self._path = engines.sqlite_path(url)
        self._connection: sqlite3.Connection | None = None
        self._counter: object = None

    def wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        if self._connection is None:
            self._connection = engines.connect_sqlite(self._path, synchronous="FULL")
        while (counter := self._read_counter()) == self._counter:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(POLL_INTERVAL, left))
        self._counter = counter
        return True

    def _read_counter(self) -> object:
        assert self._connection is not None
        # It counts the changes by every other connection to the file (sqlite.org/pragma.html#pragma_data_version).
        return self._connection.execute("PRAGMA data_version").fetchone()[0]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class _PostgresWatcher:
    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._connection: Any = None
        self._ping_at = 0.0

    def wait(self, timeout: float) -> bool:
        import psycopg

        deadline = time.monotonic() + timeout
        try:
            if self._connection is None:
                self._connection = engines.connect_postgres(self._url)
                self._connection.autocommit = True
                self._execute(f"LISTEN {engines.CHANNEL}")
                return True
            if time.monotonic() >= self._ping_at:
                self._execute("SELECT 1")
            if self._notified():
                return True
            # Not by `notifies(timeout=…)`: psycopg wakes ten times a second while it waits.
            readable = select.poll()
            readable.register(self._connection.fileno(), select.POLLIN)
            readable.poll(max(0.0, deadline - time.monotonic()) * 1000)
            return self._notified()
        except psycopg.Error as error:
            where = self._url.render_as_string(hide_password=True)
            raise JournalError(f"the journal {where} sends no notifications ({error})") from error

    def _execute(self, query: str) -> None:
        self._connection.allow(engines.LOCK_TIMEOUT)
        self._connection.execute(query)
        self._ping_at = time.monotonic() + PING_INTERVAL

    def _notified(self) -> bool:
        """Whether notifications have arrived; takes all of them."""
        self._connection.allow(engines.LOCK_TIMEOUT)
        return bool(list(self._connection.notifies(timeout=0)))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
