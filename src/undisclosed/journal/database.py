"""The journal's database: one transaction at a time, errors in words, and the check that version and key are right."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from undisclosed.incidents.records import JournalError, WrongKeyError, WrongVersionError
from undisclosed.journal import engines, tables
from undisclosed.journal.sqlite_writes import SqliteFile
from undisclosed.journal.write_transaction import EngineTransaction, WriteTransaction

PROBE_BYTES: Final = 32 * 1024
"""Enough that a full disk shows: SQLite needs new pages in its log for it."""

FirstValue = Callable[[str], object]
"""Runs a query and returns the first column of its first row, or None."""


class Database:
    """A journal's database. It connects at first use: after the fork of the process that uses it.

    Every transaction is short; it may be begun on any thread, and raises JournalError where the database cannot be
    reached, read or written.
    """

    def __init__(self, url: str, key_fingerprint: str) -> None:
        self.url = url
        self._key_fingerprint = key_fingerprint
        self._engine: sa.Engine | None = None
        self._sqlite_file: SqliteFile | None = None
        self._python_thread: ThreadPoolExecutor | None = None

    def check(self) -> None:
        """Raises WrongVersionError, WrongKeyError, or JournalError where the database cannot be reached."""
        with self.read() as connection:
            self._verify(lambda query: connection.scalar(sa.text(query)))

    def probe(self) -> None:
        """Write a little, to see whether writing works again. Raises JournalError."""
        with self.write() as connection:
            connection.execute(sa.update(tables.journal_info).values(probe=os.urandom(PROBE_BYTES)))

    def close(self) -> None:
        """Close every connection. The next use opens new ones."""
        if self._sqlite_file is not None:
            self._sqlite_file.close()
            self._sqlite_file = None
        if self._python_thread is not None:
            self._python_thread.shutdown(wait=False)
            self._python_thread = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Raise a database's errors as JournalError."""
        try:
            yield
        except (JournalError, LookupError):
            raise
        except engines.ERRORS as error:
            raise engines.translated(error, self.url) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def write(self, *, notify: bool = False) -> Iterator[Connection]:
        """A transaction that writes; with `notify` it wakes the stewards that wait for work."""
        with self._transaction(writes=True) as connection:
            yield connection
            if notify and connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_notify(:channel, '')"), {"channel": engines.CHANNEL})

    @contextmanager
    def write_fast(self) -> Iterator[WriteTransaction]:
        """A transaction that writes, without SQLAlchemy's share of the time where the database is a file."""
        if sqlite_file := self._opened_file():
            with self.translated_errors(), sqlite_file.transaction() as transaction:
                yield transaction
        else:
            with self.write(notify=True) as connection:
                yield EngineTransaction(connection)

    def insert_fast(self, statement: sa.Insert, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows, all or none. May be called on a thread of libmilter's (see sqlite_writes.py)."""
        if sqlite_file := self._opened_file():
            with self.translated_errors():
                sqlite_file.insert(statement, rows)
        else:
            self._on_python_thread(lambda: self._insert(statement, rows))

    def sync(self) -> None:
        """Return when all committed rows are on the disk. Raises JournalError."""
        if self._sqlite_file is not None:
            with self.translated_errors():
                self._sqlite_file.sync()

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:
        if self._engine is None:
            self._engine = engines.engine(self.url)
        with self.translated_errors(), self._engine.connect() as connection:
            connection = connection.execution_options(**options)
            with connection.begin():
                if "verified" not in connection.info:
                    verified = connection
                    self._verify(lambda query: verified.scalar(sa.text(query)))
                    connection.info["verified"] = True
                yield connection

    def _insert(self, statement: sa.Insert, rows: Sequence[dict[str, Any]]) -> None:
        with self.write(notify=True) as connection:
            connection.execute(statement, list(rows))

    def _on_python_thread(self, job: Callable[[], None]) -> None:
        """Run the job on a thread that Python made (see sqlite_writes.py), and wait: it gives up in time by itself."""
        if self._python_thread is None:
            self._python_thread = ThreadPoolExecutor(1, "journal-server")
        self._python_thread.submit(job).result()

    def _opened_file(self) -> SqliteFile | None:
        if self._sqlite_file is None and engines.is_sqlite(self.url):
            self._sqlite_file = SqliteFile(engines.sqlite_path(self.url), self._verify)
        return self._sqlite_file

    def _verify(self, first: FirstValue) -> None:
        version = released_version(first, self.url)
        if version != tables.HEAD:
            fix = "upgrade undisclosed on this host too" if is_newer(version) else "run `undisclosed journal upgrade`"
            raise WrongVersionError(
                f"the journal's tables have version {version}, and this undisclosed needs {tables.HEAD}: {fix}"
            )
        if first("SELECT fingerprint FROM journal_info") != self._key_fingerprint:
            raise WrongKeyError


def released_version(first: FirstValue, url: str) -> object:
    """The version of a journal's tables. Raises WrongVersionError for a journal that an unreleased version made."""
    version = first("SELECT version_num FROM alembic_version")
    try:
        shape = first("SELECT shape FROM journal_info")
    except engines.ERRORS as error:
        if not (engines.is_missing_table(error) or engines.is_missing_column(error)):
            raise
        raise _unreleased(url) from error
    if version == tables.HEAD and shape != tables.SHAPE:
        raise _unreleased(url)
    return version


def is_newer(version: object) -> bool:
    """Whether this is a version of the tables that a later undisclosed made."""
    return isinstance(version, str) and version > tables.HEAD


def _unreleased(url: str) -> WrongVersionError:
    where = sa.make_url(url).render_as_string(hide_password=True)
    if engines.is_sqlite(url):
        path = engines.sqlite_path(url)
        move = f"stop the milter and the steward, move the file away with its -wal and -shm (mv {path} {path}.old)"
    else:
        move = "stop the milter and the steward, name a new, empty database in journal.url"
    return WrongVersionError(
        f"the journal {where} was made by an unreleased version of undisclosed, and cannot be upgraded: {move},"
        " and make a new journal: `undisclosed journal upgrade`"
    )
