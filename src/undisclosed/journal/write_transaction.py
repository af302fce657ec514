"""A transaction that writes, in either database: SQLAlchemy's here, that of SQLite's own driver in sqlite_writes.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy import Connection

Values = Mapping[str, Any]
Statement = sa.Select[Any] | sa.Insert | sa.Update | sa.Delete

ADVISORY_LOCK: Final = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


class WriteTransaction(Protocol):
    """A transaction that has begun."""

    def first(self, statement: Statement, values: Values) -> Any | None:
        """Run a statement; its first row, with each column as an attribute, or None."""

    def insert_all(self, statement: sa.Insert, rows: Sequence[Values]) -> None:
        """Insert several rows."""

    def lock(self, *names: str) -> None:
        """Let no other transaction lock these names until this one ends."""


class EngineTransaction:
    """A transaction of SQLAlchemy's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def first(self, statement: Statement, values: Values) -> Any | None:
        """See WriteTransaction."""
        result = self._connection.execute(statement, dict(values))
        return result.first() if result.returns_rows else None

    def insert_all(self, statement: sa.Insert, rows: Sequence[Values]) -> None:
        """See WriteTransaction."""
        self._connection.execute(statement, [dict(values) for values in rows])

    def lock(self, *names: str) -> None:
        """See WriteTransaction; in SQLite a transaction that writes excludes all others anyway."""
        if self._connection.dialect.name == "postgresql":
            for name in names:
                self._connection.execute(ADVISORY_LOCK, {"name": name})
