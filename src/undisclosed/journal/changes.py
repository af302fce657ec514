"""Waiting for new work in the journal: PostgreSQL tells, SQLite is looked at."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Final, Protocol

import sqlalchemy as sa

from undisclosed.incidents.records import JournalError
from undisclosed.journal import database

LOOK_EVERY: Final = 0.2
"""Seconds between two looks at SQLite's change counter: 5 µs each."""


class Waiter(Protocol):
    """Waits on a connection of its own."""

    def wait(self, timeout: float) -> None:
        """Return after a change, or after `timeout` seconds; the first time at once."""

    def close(self) -> None:
        """Give the connection up."""


def waiter(url: str) -> Waiter:
    """The Waiter for this database; connects at its first wait."""
    parsed = sa.make_url(url)
    return _Sqlite(url) if parsed.drivername == "sqlite" else _Postgres(parsed)


class _Sqlite:
    def __init__(self, url: str) -> None:
        self._path = database.sqlite_path(url)
        self._connection: sqlite3.Connection | None = None
        self._version: object = None

    def wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if self._connection is None:
            self._connection = database.connect_sqlite(self._path, synchronous="FULL")
            self._version = self._look()
            return
        while (seen := self._look()) == self._version and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY, left))
        self._version = seen

    def _look(self) -> object:
        assert self._connection is not None
        # Counts the changes of every other connection to the file (sqlite.org/pragma.html#pragma_data_version).
        return self._connection.execute("PRAGMA data_version").fetchone()[0]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class _Postgres:
    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._connection: Any = None

    def wait(self, timeout: float) -> None:
        import psycopg

        try:
            if self._connection is None:
                self._connection = database.connect_postgres(self._url)
                self._connection.autocommit = True
                self._connection.execute(f"LISTEN {database.CHANNEL}")
                return
            self._connection.allow(database.PATIENCE)
            self._connection.execute("SELECT 1")  # a server that was frozen or stopped says nothing of itself
            self._connection.allow(timeout + database.PATIENCE)
            for _ in self._connection.notifies(timeout=timeout, stop_after=1):
                pass
        except psycopg.Error as error:
            where = self._url.render_as_string(hide_password=True)
            raise JournalError(f"the journal {where} cannot be listened to ({error})") from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
