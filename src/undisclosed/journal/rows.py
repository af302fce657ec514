"""Rows of the tables as records, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.incidents.records import AcceptedPart, Event, GatewayRecord, QueueCopy, Request, State, clean
from undisclosed.journal import tables
from undisclosed.journal.write_transaction import WriteTransaction
from undisclosed.policy import Action

R = TypeVar("R", AcceptedPart, Event, GatewayRecord, QueueCopy, Request)

IDS_PER_QUERY: Final = 500
"""Values in one IN (…): SQLite takes at most 32,766 parameters, and older versions 999."""


def portions(ids: Collection[int]) -> Iterator[list[int]]:
    """The ids in order, in lists that one query takes."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), IDS_PER_QUERY):
        yield ordered[start : start + IDS_PER_QUERY]


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def as_record(kind: type[R], row: Any) -> R:
    """A row of a table whose columns are named as the record's fields."""
    return kind(**{field.name: getattr(row, field.name) for field in fields(kind)})


def as_copy(row: Any) -> QueueCopy:
    """A row of `queue_copy`."""
    kind = ObstacleKind(row.obstacle_kind) if row.obstacle_kind else None
    copy = as_record(QueueCopy, row)
    return replace(copy, state=State(row.state), action=Action(row.action), obstacle_kind=kind)


def insert(transaction: WriteTransaction, table: sa.Table, values: dict[str, Any]) -> int:
    """Insert a row, and return its id."""
    row = transaction.first(_INSERT[table], values)
    assert row is not None
    return int(row.id)


def add_event(transaction: WriteTransaction, event: Event) -> None:
    """Insert an event."""
    values = asdict(event) | {"actor": clean(event.actor), "why": clean(event.why)}
    transaction.first(_INSERT_EVENT, values)


_INSERT: Final = {
    table: sa.insert(table).returning(table.c.id) for table in (tables.incident, tables.queue_copy, tables.notice)
}

_INSERT_EVENT: Final = sa.insert(tables.event).inline()
"""No RETURNING."""
