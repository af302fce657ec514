"""Findings of the steward about copies, from Postfix's queue and log."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from undisclosed.incidents.records import OPEN, STEWARD, Event, NoticeKind, QueueCopy, State
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.filing import first_notice
from undisclosed.journal.notices import add_notice, drop_due_notices
from undisclosed.journal.rows import add_event, as_copy
from undisclosed.journal.write_transaction import EngineTransaction

UNCONFIRMED: Final[tuple[NoticeKind, ...]] = ("rewritten", "warned")
"""The notices about messages that the milter handed over: the milters behind ours had not answered then."""


class QueueFacts:
    """Changes of copies that nobody decided: Postfix, or a person with its tools, made them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unconfirmed(self, gateway: str) -> list[QueueCopy]:
        """The copies of a gateway that were delivered at once, are not confirmed, and of which a notice is due."""
        copy, notice, told = tables.queue_copy, tables.notice, tables.notice_copy
        query = (
            sa.select(copy)
            .join(told, told.c.copy_id == copy.c.id)
            .join(notice, notice.c.id == told.c.notice_id)
            .where(
                notice.c.state == "due",
                notice.c.kind.in_(UNCONFIRMED),
                copy.c.gateway == gateway,
                copy.c.state == State.DELIVERED.value,
                copy.c.confirmed.is_(False),
            )
            .order_by(copy.c.id)
        )
        with self._database.read() as connection:
            return [as_copy(row) for row in connection.execute(query)]

    def confirm(self, copy: QueueCopy, *, now: datetime) -> None:
        """Record that Postfix has queued a message that was delivered at once.

        A notice is due now if it tells of no copy that is not confirmed.
        """
        table, told, copies = tables.notice, tables.notice_copy, tables.queue_copy
        mine = sa.select(told.c.notice_id).where(told.c.copy_id == copy.id)
        another = sa.exists().where(
            told.c.notice_id == table.c.id, copies.c.id == told.c.copy_id, copies.c.confirmed.is_(False)
        )
        with self._database.write(notify=True) as connection:
            connection.execute(sa.update(copies).where(copies.c.id == copy.id).values(confirmed=True))
            waiting = table.c.state == "due", table.c.kind.in_(UNCONFIRMED), table.c.due > now
            connection.execute(sa.update(table).where(table.c.id.in_(mine), *waiting, ~another).values(due=now))

    def never_queued(self, copy: QueueCopy, why: str, *, now: datetime) -> bool:
        """Record that a milter behind ours refused a message that ours had handed over: no notice tells of it."""
        table = tables.queue_copy
        with self._database.write(notify=True) as connection:
            write = EngineTransaction(connection)
            update = sa.update(table).where(table.c.id == copy.id, table.c.state == State.DELIVERED.value)
            if connection.execute(update.values(state=State.NEVER_QUEUED.value)).rowcount == 0:
                return False
            drop_due_notices(write, copy)
            add_event(write, _event(copy, State.NEVER_QUEUED.value, why, now, before=copy.state.value))
            return True

    def follow(self, copy: QueueCopy, queue_id: str, size: int, why: str, *, now: datetime) -> None:
        """Record the new queue id of an open copy whose queue file was renamed, or requeued and held again."""
        table = tables.queue_copy
        with self._database.write(notify=True) as connection:
            mine = table.c.id == copy.id, table.c.state.in_([state.value for state in OPEN])
            connection.execute(sa.update(table).where(*mine).values(queue_id=queue_id, size=size))
            add_event(EngineTransaction(connection), _event(copy, "renamed", why, now, before=copy.queue_id))

    def act_again(self, copy: QueueCopy, why: str, *, now: datetime) -> None:
        """Let the steward act on a held copy again: it is pending, as when it was recorded."""
        table = tables.queue_copy
        with self._database.write(notify=True) as connection:
            mine = table.c.id == copy.id, table.c.state == State.HELD.value, table.c.waits == copy.waits
            values = {"waits": None, "state": State.PENDING.value}
            if connection.execute(sa.update(table).where(*mine).values(**values)).rowcount == 0:
                return
            write = EngineTransaction(connection)
            drop_due_notices(write, copy)
            if (kind := first_notice(copy.action, "hold")) is not None:
                add_notice(write, copy, kind, now)
            add_event(write, _event(copy, "waits no longer", why, now))

    def leaves_later(self, copy: QueueCopy, leaves: datetime, why: str, *, now: datetime) -> None:
        """Record a later time at which the steward releases a held copy by itself."""
        table = tables.queue_copy
        with self._database.write(notify=True) as connection:
            mine = table.c.id == copy.id, table.c.state == State.HELD.value, table.c.leaves == copy.leaves
            if connection.execute(sa.update(table).where(*mine).values(leaves=leaves)).rowcount:
                add_event(EngineTransaction(connection), _event(copy, "leaves later", why, now))


def _event(copy: QueueCopy, what: str, why: str, now: datetime, **detail: str) -> Event:
    return Event(
        incident_id=copy.incident_id, copy_id=copy.id, at=now, actor=STEWARD, what=what, why=why, detail=detail
    )
