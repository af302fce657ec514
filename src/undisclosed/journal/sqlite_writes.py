"""Writes while a callback of the milter waits: the fewest steps to a row that survives the end of the process.

SQLAlchemy takes several times as long for each of its steps as SQLite itself, and more on a host that does other work
between two messages. So statements are compiled once, and SQLite's own driver is given the SQL. In PostgreSQL, where
the network takes the time, SQLAlchemy runs them.

Nothing in this file may call back into Python from C: libmilter's threads have no Python thread state of their own,
and a call that asks for one (PyGILState_Ensure: the SQL functions that SQLAlchemy adds to a connection, psycopg's
notices) finds that of a session that has ended, and the worker crashes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from undisclosed.journal import engines
from undisclosed.journal.write_transaction import Statement, Values, WriteTransaction

CACHE_KIB: Final = 512
"""Kibibytes of the file that a worker caches: it only ever appends. SQLite's own default is 2,000."""

DIALECT: Final = sqlite.dialect(paramstyle="qmark")


class SqliteFile:
    """An SQLite file, open for one transaction at a time, from any thread.

    A committed row is in the operating system's memory, not on the disk: it survives a crash of this process, but not a
    power loss before `sync` has returned. `sync` takes as long as the disk does, and no message waits for it.
    """

    def __init__(self, path: Path, verify: Callable[[Callable[[str], object]], None]) -> None:
        """`verify` checks that the file is the right journal whenever it is opened; it gets a function that runs a
        query and returns its first value."""
        self._path = path
        self._verify = verify
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: engines.FileIdentity = None

    @contextmanager
    def transaction(self) -> Iterator[WriteTransaction]:
        """A transaction; committed at its end, rolled back if it fails. Raises sqlite3.Error and OSError."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield _SqliteTransaction(connection)
            connection.execute("COMMIT")

    def insert(self, statement: sa.Insert, rows: Sequence[Values]) -> None:
        """Insert rows, all or none, in one step. Raises sqlite3.Error and OSError.

        Between two steps this thread may have to wait for the interpreter, and the other workers then for the lock.
        """
        compiled = _compiled(statement, tuple(rows[0]))
        values = [value for row in rows for value in compiled.parameters(row)]
        with self._connected() as connection:
            connection.execute(compiled.repeated(len(rows)), values)

    def sync(self) -> None:
        """Return when all committed rows are on the disk. Raises OSError."""
        try:
            log = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # the last one to close the database has moved the log into it, and synced that
        try:
            os.fdatasync(log)
        finally:
            os.close(log)  # SQLite keeps its locks on the other two files: closing this one loses none

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=engines.LOCK_TIMEOUT):
            raise sqlite3.OperationalError("database is locked")
        try:
            connection = self._opened()
            try:
                yield connection
            except BaseException:
                self._drop()  # rolls back
                raise
        finally:
            self._lock.release()

    def _opened(self) -> sqlite3.Connection:
        identity = engines.file_identity(self._path)
        if self._connection is None or identity != self._file:  # moved away, or put back from a backup
            self._drop()
            self._connection = opened = engines.connect_sqlite(self._path, synchronous="NORMAL")
            self._file = identity
            opened.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            try:
                self._verify(lambda query: next(opened.execute(query), (None,))[0])
            except BaseException:
                self._drop()
                raise
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class _SqliteTransaction:
    """A transaction of SQLite's own driver."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def first(self, statement: Statement, values: Values) -> Any | None:
        compiled = _compiled(statement, tuple(values))
        rows = self._connection.execute(compiled.sql, compiled.parameters(values)).fetchall()
        return compiled.attributes(rows[0]) if rows else None

    def insert_all(self, statement: sa.Insert, rows: Sequence[Values]) -> None:
        compiled = _compiled(statement, tuple(rows[0]))
        self._connection.executemany(compiled.sql, map(compiled.parameters, rows))

    def lock(self, *names: str) -> None:
        """A transaction that writes excludes all others in SQLite."""


class _CompiledStatement:
    """A statement as SQL, with the order of its values and the conversions of each."""

    def __init__(self, statement: Statement, names: Sequence[str]) -> None:
        keys = None if isinstance(statement, sa.Select) else names
        compiled: Any = statement.compile(dialect=DIALECT, column_keys=keys)
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        self._constants = compiled.params
        self._order = [
            (name, compiled.binds[name].type.dialect_impl(DIALECT).bind_processor(DIALECT))
            for name in compiled.positiontup or ()
        ]
        columns = statement.selected_columns if isinstance(statement, sa.Select) else statement.exported_columns
        self._columns = [
            (str(column.key), column.type.dialect_impl(DIALECT).result_processor(DIALECT, None)) for column in columns
        ]

    def repeated(self, times: int) -> str:
        """The SQL of an INSERT of so many rows."""
        row = self.sql[self.sql.rindex("(") :]
        return self.sql + f", {row}" * (times - 1)

    def parameters(self, values: Values) -> list[Any]:
        """The values in their order, as SQLite takes them."""
        return [
            value if convert is None else convert(value)
            for name, convert in self._order
            for value in (values[name] if name in values else self._constants[name],)
        ]

    def attributes(self, row: Sequence[Any]) -> SimpleNamespace:
        """A row with its columns as attributes."""
        return SimpleNamespace(
            **{
                key: value if convert is None else convert(value)
                for (key, convert), value in zip(self._columns, row, strict=True)
            }
        )


_COMPILED: Final[dict[tuple[Statement, tuple[str, ...]], _CompiledStatement]] = {}


def _compiled(statement: Statement, names: tuple[str, ...]) -> _CompiledStatement:
    """Each statement is compiled once: there are as many as the code has, each with one set of names."""
    key = statement, names
    compiled = _COMPILED.get(key)
    if compiled is None:
        compiled = _COMPILED[key] = _CompiledStatement(statement, names)
    return compiled
