"""Repeats: copies of one message with the same envelope recipients and the same text, on any gateway.

A client that got no answer sends a message again. The release of one copy serves the recipients of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from undisclosed.incidents.records import STEWARD, AcceptedPart, Event, QueueCopy, State, is_complete
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.rows import add_event, as_copy, as_record, now
from undisclosed.journal.write_transaction import EngineTransaction


class Begun(NamedTuple):
    """The result of the attempt to begin a release."""

    outcome: Literal["begun", "served", "under way", "interrupted", "not held"]
    """served: its recipients have the message from `other`. under way: `other` is being released. interrupted: so it
    was, and some of its recipients may have the message."""
    other: QueueCopy | None = None
    """The copy that it repeats; for `begun`, one with the same recipients and another text that was released."""


class Repeats:
    """Finds repeats, and lets the release of one begin."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unread(self, gateway: str) -> list[QueueCopy]:
        """Held copies of a gateway whose recipients another copy of their message has, and whose text is not known."""
        copy, other = tables.queue_copy, tables.queue_copy.alias()
        has_twin = sa.exists().where(
            other.c.incident_id == copy.c.incident_id,
            other.c.id != copy.c.id,
            other.c.recipients_hash == copy.c.recipients_hash,
        )
        query = sa.select(copy).where(
            copy.c.gateway == gateway, copy.c.state == State.HELD.value, copy.c.body_hash.is_(None), has_twin
        )
        with self._database.read() as connection:
            return [as_copy(row) for row in connection.execute(query.order_by(copy.c.id))]

    def record_text(self, copy: QueueCopy, body_hash: str) -> None:
        """Record the hash of a copy's text: of all copies with it and the same recipients, the first is repeated."""
        table = tables.queue_copy
        with self._database.write() as connection:
            _lock(connection, copy)
            connection.execute(sa.update(table).where(table.c.id == copy.id).values(body_hash=body_hash))
            same = [found for found in _twins(connection, copy) if found.body_hash == body_hash]
            for repeat in same[1:]:
                connection.execute(sa.update(table).where(table.c.id == repeat.id).values(repeat_of=same[0].id))

    def begin_release(self, copy: QueueCopy, body_hash: str, *, actor: str, why: str) -> Begun:
        """Let the release of a held copy begin (state RELEASING), unless a repeat of it was released or is being so."""
        table = tables.queue_copy
        with self._database.write() as connection:
            _lock(connection, copy)
            twins = [found for found in _twins(connection, copy) if found.id != copy.id]
            for twin in (found for found in twins if found.body_hash == body_hash):
                if twin.state is State.RELEASED and is_complete(_accepted(connection, twin)):
                    return Begun("served", twin)
                if twin.state is State.RELEASING:
                    return Begun("under way" if _is_asked_for(connection, twin) else "interrupted", twin)
            values = {"state": State.RELEASING.value, "body_hash": body_hash}
            held = sa.update(table).where(table.c.id == copy.id, table.c.state == State.HELD.value)
            if actor == STEWARD:
                held = held.where(table.c.waits.is_(None))  # a person has stopped it since the request was taken
            if connection.execute(held.values(**values)).rowcount == 0:
                return Begun("not held")
            event = Event(
                incident_id=copy.incident_id,
                copy_id=copy.id,
                at=now(),
                actor=actor,
                what=State.RELEASING.value,
                why=why,
                detail={"before": State.HELD.value},
            )
            add_event(EngineTransaction(connection), event)
            sent = (State.RELEASED, State.RELEASING)
            return Begun("begun", next((twin for twin in twins if twin.state in sent), None))


def _lock(connection: Connection, copy: QueueCopy) -> None:
    """Let nobody else look for repeats in this incident."""
    EngineTransaction(connection).lock(f"repeats of {copy.incident_id}")


def _twins(connection: Connection, copy: QueueCopy) -> list[QueueCopy]:
    """The copies of the same message with the same recipients, itself included, in order; those Postfix has, or had."""
    table = tables.queue_copy
    never = [State.NEVER_QUEUED.value, State.REJECTED.value, State.MONITORED.value]
    query = sa.select(table).where(
        table.c.incident_id == copy.incident_id,
        table.c.recipients_hash == copy.recipients_hash,
        table.c.state.not_in(never),
    )
    return [as_copy(row) for row in connection.execute(query.order_by(table.c.id))]


def _accepted(connection: Connection, copy: QueueCopy) -> Sequence[AcceptedPart]:
    table = tables.accepted_part
    rows = connection.execute(sa.select(table).where(table.c.copy_id == copy.id))
    return [as_record(AcceptedPart, row) for row in rows]


def _is_asked_for(connection: Connection, copy: QueueCopy) -> bool:
    table = tables.request
    asked: sa.Select[Any] = sa.select(table.c.id).where(
        table.c.copy_id == copy.id, table.c.state.in_(tables.UNANSWERED)
    )
    return connection.execute(asked).first() is not None
