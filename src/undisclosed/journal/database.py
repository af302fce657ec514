"""What everything about the journal rests on: the engine, one transaction at a time, and whose database it is."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from undisclosed.incidents.records import (
    Copy,
    Event,
    JournalError,
    Notice,
    Request,
    State,
    WrongKeyError,
    WrongVersionError,
    clean,
)
from undisclosed.journal import engines, tables
from undisclosed.journal.inbox import Direct, Through, Writing
from undisclosed.policy.sections import JournalSection as Settings

R = TypeVar("R", Copy, Event, Request, Notice)

AT_ONCE: Final = 500
"""Values in one IN (…): SQLite takes at most 32,766 parameters, and older ones 999."""

PROBE_BYTES: Final = 32 * 1024
"""Enough that a full disk shows: SQLite needs new pages in its log for it."""

WRONG_KEY: Final = (
    "the journal was made with another key than the one in journal.key_file: its hashes and references would not match;"
    " copy the key file from a gateway that uses this journal, or give this one a journal of its own"
)


class Base:
    """The database of a journal: made at first use, after the fork of the process that uses it."""

    def __init__(self, settings: Settings, key: bytes) -> None:
        self._settings = settings
        self._key = key
        self._engine: sa.Engine | None = None
        self._direct: Direct | None = None
        self._waiter: Any = None
        self._thread: ThreadPoolExecutor | None = None

    def upgrade(self) -> None:
        """Make the tables, or bring them to this version. Raises JournalError, and then has changed nothing."""
        from undisclosed.journal import migrate

        migrate.upgrade(self._settings.url, fingerprint(self._key))

    def check(self) -> None:
        """Raises WrongVersionError, WrongKeyError, or JournalError where the database cannot be reached."""
        with self._read() as connection:
            self._verify(lambda query: connection.scalar(sa.text(query)))

    def probe(self) -> None:
        """Write a little, to see whether writing works again. Raises JournalError."""
        with self._write() as connection:
            connection.execute(sa.update(tables.keeper).values(probe=os.urandom(PROBE_BYTES)))

    def close(self) -> None:
        """Give up every connection."""
        if self._waiter is not None:
            self._waiter.close()
            self._waiter = None
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what the database's error means."""
        try:
            yield
        except (JournalError, LookupError):
            raise
        except engines.ERRORS as error:
            raise engines.explained(error, self._settings.url) from error

    @contextmanager
    def _begun(self, **options: Any) -> Iterator[Connection]:
        if self._engine is None:
            self._engine = engines.engine(self._settings.url)
        with self._told(), self._engine.connect() as connection:
            connection = connection.execution_options(**options)
            with connection.begin():
                if "verified" not in connection.info:
                    verified = connection
                    self._verify(lambda query: verified.scalar(sa.text(query)))
                    connection.info["verified"] = True
                yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._begun(writes=False) as connection:
            yield connection

    @contextmanager
    def _write(self, *, notify: bool = False) -> Iterator[Connection]:
        with self._begun(writes=True) as connection:
            yield connection
            if notify and connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_notify(:channel, '')"), {"channel": engines.CHANNEL})

    @contextmanager
    def _write_directly(self) -> Iterator[Writing]:
        """A transaction for which a callback of the milter waits."""
        if direct := self._file_itself():
            with self._told(), direct.begun() as writing:
                yield writing
        else:
            with self._write(notify=True) as connection:
                yield Through(connection)

    def _insert_directly(self, statement: sa.Insert, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows, all or none, for which a callback of the milter waits, on a thread of libmilter's."""
        if direct := self._file_itself():
            with self._told():
                direct.insert(statement, rows)
        else:
            self._aside(lambda: self._insert_through(statement, rows))

    def _insert_through(self, statement: sa.Insert, rows: Sequence[dict[str, Any]]) -> None:
        with self._write(notify=True) as connection:
            connection.execute(statement, list(rows))

    def _aside(self, job: Callable[[], None]) -> None:
        """Run this on a thread of Python's own (see `direct`), and wait for it: it gives up in time by itself."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "journal-server", _deaf)
        self._thread.submit(job).result()

    def _file_itself(self) -> Direct | None:
        """The database without SQLAlchemy in between, where it is a file."""
        if self._direct is None and engines.is_sqlite(self._settings.url):
            self._direct = Direct(engines.sqlite_path(self._settings.url), self._verify)
        return self._direct

    def settle(self) -> None:
        """Return when all that was recorded is on the disk. Raises JournalError."""
        if self._direct is not None:
            with self._told():
                self._direct.settle()

    def _verify(self, first: Callable[[str], object]) -> None:
        version = first("SELECT version_num FROM alembic_version")
        if version != tables.HEAD:
            newer = isinstance(version, str) and version > tables.HEAD
            fix = "upgrade undisclosed on this host too" if newer else "run `undisclosed journal upgrade`"
            raise WrongVersionError(
                f"the journal's tables have version {version}, and this undisclosed needs {tables.HEAD}: {fix}"
            )
        kept = first("SELECT fingerprint FROM keeper")
        if kept != fingerprint(self._key):
            raise WrongKeyError(WRONG_KEY)

    @staticmethod
    def _event(connection: Connection, *about: Any, detail: dict[str, Any]) -> None:
        add_event(Through(connection), *about, detail=detail)


def _deaf() -> None:
    """A signal that this thread took would have its default action: the worker's end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))


def add_event(
    writing: Writing,
    incident_id: int,
    copy_id: int | None,
    actor: str,
    what: str,
    why: str,
    *,
    detail: dict[str, Any],
    at: datetime | None = None,
) -> None:
    """Add an event to an incident."""
    values = {
        "incident_id": incident_id,
        "copy_id": copy_id,
        "at": at or now(),
        "actor": clean(actor),
        "what": what,
        "why": clean(why),
        "detail": detail,
    }
    writing.row(_ADD_EVENT, values)


_ADD_EVENT: Final = sa.insert(tables.event).inline()
"""Nobody asks for an event's number."""

_ADD: Final = {
    table: sa.insert(table).returning(table.c.id) for table in (tables.incident, tables.copy, tables.request)
}


def inserted(writing: Writing, table: sa.Table, values: dict[str, Any]) -> int:
    """Insert a row, and return its number."""
    row = writing.row(_ADD[table], values)
    assert row is not None
    return int(row.id)


def fingerprint(key: bytes) -> str:
    """What tells keys apart and says nothing of the key."""
    return hmac.digest(key, b"fingerprint of the journal's key", hashlib.sha256).hex()[:32]


def now() -> datetime:
    return datetime.now(UTC)


def as_copy(row: Any) -> Copy:
    return replace(as_record(Copy, row), state=State(row.state))


def as_record(kind: type[R], row: Any) -> R:
    return kind(**{name: getattr(row, name) for name in _names(kind)})


def _names(kind: type[Any]) -> Sequence[str]:
    return [field.name for field in fields(kind)]
