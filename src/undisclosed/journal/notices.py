"""Notices to senders: which are due, which were sent or suppressed."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from undisclosed.incidents.records import Event, Notice, NoticeKind
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.rows import add_event, as_record, now
from undisclosed.journal.write_transaction import EngineTransaction


class Notices:
    """The notices of all incidents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, incident_id: int, kind: NoticeKind, due: datetime) -> bool:
        """Add a due notice; False if the incident has a notice of that kind already."""
        table = tables.notice
        with self._database.write(notify=True) as connection:
            EngineTransaction(connection).lock(f"notices of {incident_id}")
            known = sa.select(table.c.id).where(table.c.incident_id == incident_id, table.c.kind == kind)
            if connection.execute(known).first() is not None:
                return False
            connection.execute(sa.insert(table).values(incident_id=incident_id, kind=kind, state="due", due=due))
            return True

    def due(self, now: datetime) -> list[Notice]:
        """The notices whose time has come, the oldest first."""
        table = tables.notice
        query = sa.select(table).where(table.c.state == "due", table.c.due <= now).order_by(table.c.due, table.c.id)
        with self._database.read() as connection:
            return [as_record(Notice, row) for row in connection.execute(query)]

    def mark_sent(self, notice_id: int) -> bool:
        """Record that a due notice was sent, with an event. False if it was not due any more."""
        return self._close(notice_id, "sent", "")

    def mark_suppressed(self, notice_id: int, why: str) -> bool:
        """Record that a due notice will not be sent, with an event. False if it was not due any more."""
        return self._close(notice_id, "suppressed", why)

    def _close(self, notice_id: int, state: Literal["sent", "suppressed"], why: str) -> bool:
        table = tables.notice
        with self._database.write() as connection:
            query = sa.select(table).where(table.c.id == notice_id, table.c.state == "due").with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                return False
            at = now()
            connection.execute(sa.update(table).where(table.c.id == notice_id).values(state=state, sent_at=at))
            event = Event(
                incident_id=row.incident_id,
                copy_id=None,
                at=at,
                actor="steward",
                what=f"notice {state}",
                why=why,
                detail={"kind": row.kind},
            )
            add_event(EngineTransaction(connection), event)
            return True
