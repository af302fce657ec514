"""Writing while a callback of the milter waits: the shortest way to a row that outlives the process.

SQLAlchemy needs several times as long for each of its steps as SQLite itself, and more on a host that does other
things between two messages. So statements are built once, and on SQLite they go to the driver as the text that
SQLAlchemy made of them. PostgreSQL, where the network is what takes time, has the usual way.

Nothing here may come back into Python from C: libmilter's threads have no thread state of their own, and what asks for
one there (PyGILState_Ensure: the SQL functions that SQLAlchemy adds to a connection, psycopg's notices) finds that of a
session that has ended, and the worker dies of it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from undisclosed.journal import engines

Values = Mapping[str, Any]
Statement = sa.Select[Any] | sa.Insert | sa.Update | sa.Delete

CACHE: Final = 512
"""Kibibytes of the file that a worker keeps: it only ever adds at the end. SQLite's own default is 2,000."""

DIALECT: Final = sqlite.dialect(paramstyle="qmark")


class Writing(Protocol):
    """One transaction that has begun."""

    def row(self, statement: Statement, values: Values) -> Any | None:
        """Run a statement; its first row, with a column an attribute, or None."""

    def rows_in(self, statement: sa.Insert, rows: Sequence[Values]) -> None:
        """Insert several rows."""

    def serialise(self, *names: str) -> None:
        """Let nobody else change what has these names until the transaction ends."""


class Through:
    """A transaction that SQLAlchemy began."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def row(self, statement: Statement, values: Values) -> Any | None:
        """As Writing says."""
        result = self._connection.execute(statement, dict(values))
        return result.first() if result.returns_rows else None

    def rows_in(self, statement: sa.Insert, rows: Sequence[Values]) -> None:
        """As Writing says."""
        self._connection.execute(statement, [dict(values) for values in rows])

    def serialise(self, *names: str) -> None:
        """As Writing says; in SQLite a transaction that writes is alone anyway."""
        if self._connection.dialect.name == "postgresql":
            for name in names:
                self._connection.execute(LOCK, {"name": name})


LOCK: Final = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


class Direct:
    """An SQLite file, open for one transaction at a time, from any thread.

    A commit is with the system, not on the disk, when it returns: it outlives this process, but not a power cut within
    the moment until `settle` has run, which may take as long as the disk likes and which nobody has to wait for.
    """

    def __init__(self, path: Path, verify: Callable[[Callable[[str], object]], None]) -> None:
        """`verify` sees that the file is the right journal, whenever it is opened anew; it is given what runs a query
        and returns the first value."""
        self._path = path
        self._verify = verify
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: engines.Identity = None

    @contextmanager
    def begun(self) -> Iterator[Writing]:
        """A transaction; committed at its end, rolled back if it fails. Raises sqlite3.Error and OSError."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield _Run(connection)
            connection.execute("COMMIT")

    def insert(self, statement: sa.Insert, rows: Sequence[Values]) -> None:
        """Insert rows, all or none, in one step. Raises sqlite3.Error and OSError.

        Between two steps this thread may have to wait for the interpreter, and the other workers then for the lock.
        """
        known = _compiled(statement, tuple(rows[0]))
        values = [value for row in rows for value in known.parameters(row)]
        with self._connected() as connection:
            connection.execute(known.repeated(len(rows)), values)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=engines.PATIENCE):
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

    def settle(self) -> None:
        """Return when what was committed before is on the disk. Raises OSError."""
        try:
            log = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # whoever closed the file last has put all of it into the database, and synced that
        try:
            os.fdatasync(log)
        finally:
            os.close(log)  # SQLite keeps its locks on the other two files: closing this one loses none

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop()

    def _opened(self) -> sqlite3.Connection:
        now = engines.identity(self._path)
        if self._connection is None or now != self._file:  # moved away, or put back from a backup
            self._drop()
            self._connection = opened = engines.connect_sqlite(self._path, synchronous="NORMAL")
            self._file = now
            opened.execute(f"PRAGMA cache_size = -{CACHE}")
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


class _Run:
    """Writing on SQLite's own driver."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def row(self, statement: Statement, values: Values) -> Any | None:
        known = _compiled(statement, tuple(values))
        rows = self._connection.execute(known.sql, known.parameters(values)).fetchall()
        return known.attributes(rows[0]) if rows else None

    def rows_in(self, statement: sa.Insert, rows: Sequence[Values]) -> None:
        known = _compiled(statement, tuple(rows[0]))
        self._connection.executemany(known.sql, map(known.parameters, rows))

    def serialise(self, *names: str) -> None:
        """A transaction that writes is alone in SQLite."""


class _Compiled:
    """What SQLAlchemy makes of a statement: SQL, the order of its values, and how each is put and read."""

    def __init__(self, statement: Statement, names: Sequence[str]) -> None:
        keys = None if isinstance(statement, sa.Select) else names
        compiled: Any = statement.compile(dialect=DIALECT, column_keys=keys)
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        self._fixed = compiled.params
        self._order = [
            (name, compiled.binds[name].type.dialect_impl(DIALECT).bind_processor(DIALECT))
            for name in compiled.positiontup or ()
        ]
        columns = statement.selected_columns if isinstance(statement, sa.Select) else statement.exported_columns
        self._columns = [
            (str(column.key), column.type.dialect_impl(DIALECT).result_processor(DIALECT, None)) for column in columns
        ]

    def repeated(self, times: int) -> str:
        """The SQL of an INSERT that takes so many rows."""
        row = self.sql[self.sql.rindex("(") :]
        return self.sql + f", {row}" * (times - 1)

    def parameters(self, values: Values) -> list[Any]:
        """The values in their order, as SQLite takes them."""
        return [
            value if put is None else put(value)
            for name, put in self._order
            for value in (values[name] if name in values else self._fixed[name],)
        ]

    def attributes(self, row: Sequence[Any]) -> SimpleNamespace:
        """A row with its columns as attributes."""
        return SimpleNamespace(
            **{
                key: value if read is None else read(value)
                for (key, read), value in zip(self._columns, row, strict=True)
            }
        )


_KNOWN: Final[dict[tuple[Statement, tuple[str, ...]], _Compiled]] = {}


def _compiled(statement: Statement, names: tuple[str, ...]) -> _Compiled:
    """Each statement once: there are as many as the code has, each with one set of names."""
    key = statement, names
    known = _KNOWN.get(key)
    if known is None:
        known = _KNOWN[key] = _Compiled(statement, names)
    return known
