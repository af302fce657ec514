"""Records about held copies whose time is nearly over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import sqlalchemy as sa

from undisclosed.incidents.expiry import Seen, Told
from undisclosed.incidents.records import NoticeKind, QueueCopy
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.rows import IDS_PER_QUERY, insert
from undisclosed.journal.write_transaction import EngineTransaction


class Expiring:
    """Reminders of held copies, and the time for which stewards saw them held."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def told(self, copy_ids: Collection[int], kinds: Collection[NoticeKind]) -> dict[int, list[Told]]:
        """The notices of these kinds about each of these copies."""
        notice, told = tables.notice, tables.notice_copy
        ids = sorted(copy_ids)
        found: dict[int, list[Told]] = {copy_id: [] for copy_id in ids}
        if not ids:
            return found
        with self._database.read() as connection:
            for start in range(0, len(ids), IDS_PER_QUERY):
                query = (
                    sa.select(told.c.copy_id, notice.c.state, notice.c.sent_at, notice.c.kind)
                    .join(notice, notice.c.id == told.c.notice_id)
                    .where(told.c.copy_id.in_(ids[start : start + IDS_PER_QUERY]), notice.c.kind.in_(list(kinds)))
                )
                for row in connection.execute(query):
                    found[row.copy_id].append(Told(row.state, row.sent_at, row.kind))
        return found

    def add_reminder(self, copy: QueueCopy, due: datetime) -> None:
        """Owe a reminder, also if one was sent before: it may name another day, or have come too early.

        The copy joins a reminder about another copy of its incident that is not sent yet.
        """
        notice, told = tables.notice, tables.notice_copy
        with self._database.write(notify=True) as connection:
            write = EngineTransaction(connection)
            write.lock(f"notices of {copy.incident_id}")
            due_now = (notice.c.incident_id == copy.incident_id, notice.c.kind == "reminder", notice.c.state == "due")
            notice_id = connection.scalars(sa.select(notice.c.id).where(*due_now).limit(1)).first()
            if notice_id is None:
                values = {"incident_id": copy.incident_id, "kind": "reminder", "state": "due", "due": due}
                notice_id = insert(write, notice, values)
            known = sa.select(told).where(told.c.notice_id == notice_id, told.c.copy_id == copy.id)
            if connection.execute(known).first() is None:
                connection.execute(sa.insert(told).values(notice_id=notice_id, copy_id=copy.id))

    def record_seen(self, seen: Mapping[int, Seen]) -> None:
        """Record how long copies were seen held, by their ids. There is one steward a gateway: nobody else counts.

        In the order of ids, as all who change several copies: in another order two could wait for each other.
        """
        table = tables.queue_copy
        with self._database.write() as connection:
            for copy_id in sorted(seen):
                one = seen[copy_id]
                values = {
                    "seen_seconds": one.seconds,
                    "seen_at_reminder": one.at_reminder,
                    "seen_at_until": one.at_until,
                }
                connection.execute(sa.update(table).where(table.c.id == copy_id).values(**values))

    def newest_event(self) -> datetime | None:
        """The latest time of an event; None if there is none. It reads all of them."""
        table = tables.event
        with self._database.read() as connection:
            return connection.scalars(sa.select(table.c.at).order_by(table.c.at.desc()).limit(1)).first()
