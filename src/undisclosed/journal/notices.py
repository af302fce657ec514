"""Notices: which are owed about which copies, which are due, which were sent or suppressed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from undisclosed.incidents.records import (
    OPEN,
    STEWARD,
    Addressee,
    Event,
    Notice,
    NoticeKind,
    QueueCopy,
    SentNotice,
    State,
)
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.rows import IDS_PER_QUERY, add_event, insert, now, portions
from undisclosed.journal.write_transaction import EngineTransaction, WriteTransaction

JOINABLE: Final = OPEN | {State.DELIVERED}
"""The states of a copy whose notice also tells of a later copy with the same action: it is on hold still, or it was
handed over at once and a further part of its message follows."""

ENDS: Final[tuple[NoticeKind, ...]] = ("split", "released", "deleted")
"""The notices about what a request has done."""


MAX_AHEAD: Final = timedelta(minutes=5)
"""No notice is owed for a time so far ahead. One that is was recorded by a clock that was wrong, and is due."""


class Notices:
    """The notices of all incidents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, copy: QueueCopy, kind: NoticeKind, due: datetime) -> bool:
        """Owe a notice about a copy: see `add_notice`. False if one of this kind tells of it already."""
        with self._database.write(notify=True) as connection:
            return add_notice(EngineTransaction(connection), copy, kind, due)

    def due(self, now: datetime) -> list[Notice]:
        """The notices whose time has come, the oldest first.

        One that tells of an end waits until no copy of its message has a person's request without an answer: it then
        tells of all copies that a command has released or deleted. The steward's own may be tried for ever.
        """
        table, request = tables.notice, tables.request
        asked = sa.exists().where(
            request.c.incident_id == table.c.incident_id,
            request.c.state.in_(tables.UNANSWERED),
            request.c.actor != STEWARD,
            sa.or_(request.c.not_before.is_(None), request.c.not_before <= now),
        )
        is_ready = sa.or_(table.c.kind.not_in(ENDS), ~asked)
        is_time = sa.or_(table.c.due <= now, table.c.due > now + MAX_AHEAD)
        query = sa.select(table).where(table.c.state == "due", is_time, is_ready)
        query = query.order_by(table.c.due, table.c.id)
        with self._database.read() as connection:
            return _with_copies(connection, connection.execute(query))

    def of(self, incident_id: int) -> list[Notice]:
        """All notices of an incident, in order."""
        query = sa.select(tables.notice).where(tables.notice.c.incident_id == incident_id).order_by(tables.notice.c.id)
        with self._database.read() as connection:
            return _with_copies(connection, connection.execute(query))

    def told_since(self, since: datetime) -> list[SentNotice]:
        """The messages that went to senders since then."""
        table = tables.notice
        query = (
            sa.select(
                table.c.sent_in, sa.func.max(table.c.sent_at).label("at"), sa.func.min(table.c.incident_id).label("id")
            )
            .where(table.c.sent_at > since, table.c.state == "sent", table.c.addressee == "sender")
            .group_by(table.c.sent_in)
        )
        with self._database.read() as connection:
            return [SentNotice(row.sent_in, row.at, row.id) for row in connection.execute(query)]

    def told_copies(self, copy_ids: Collection[int]) -> set[int]:
        """Those of these copies of which any notice was sent."""
        table, told = tables.notice, tables.notice_copy
        found: set[int] = set()
        with self._database.read() as connection:
            for some in portions(copy_ids):
                query = sa.select(told.c.copy_id).join(table, table.c.id == told.c.notice_id)
                found.update(connection.scalars(query.where(told.c.copy_id.in_(some), table.c.state == "sent")))
        return found

    def last_digest(self, gateway: str) -> datetime | None:
        """The time of the last message to the administrator about mail of this gateway; None if there was none."""
        table, told, copy = tables.notice, tables.notice_copy, tables.queue_copy
        query = (
            sa.select(table.c.sent_at)
            .join(told, told.c.notice_id == table.c.id)
            .join(copy, copy.c.id == told.c.copy_id)
            .where(table.c.addressee == "administrator", table.c.state == "sent", copy.c.gateway == gateway)
            .order_by(table.c.sent_at.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            return connection.scalars(query).first()

    def assign(self, notice_id: int, addressee: Addressee) -> None:
        """Record who will be told, before it is sent."""
        table = tables.notice
        with self._database.write() as connection:
            connection.execute(sa.update(table).where(table.c.id == notice_id).values(addressee=addressee))

    def mark_sent(self, notice_ids: Collection[int], addressee: Addressee, sent_in: str, at: datetime) -> None:
        """Record that one message told due notices, each with an event. Those that are not due any more are left."""
        with self._database.write() as connection:
            for notice_id in notice_ids:
                values = {"state": "sent", "sent_at": at, "addressee": addressee, "sent_in": sent_in}
                _close(connection, notice_id, values, "")

    def mark_suppressed(self, notice_id: int, why: str) -> None:
        """Record that a due notice will not be sent, with an event."""
        with self._database.write() as connection:
            _close(connection, notice_id, {"state": "suppressed", "sent_at": now()}, why)


def _close(connection: Connection, notice_id: int, values: dict[str, Any], why: str) -> None:
    table = tables.notice
    query = sa.select(table).where(table.c.id == notice_id, table.c.state == "due").with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        return
    connection.execute(sa.update(table).where(table.c.id == notice_id).values(**values))
    detail: dict[str, Any] = {"kind": row.kind}
    if "addressee" in values:
        detail["to"] = values["addressee"]
    event = Event(
        incident_id=row.incident_id,
        copy_id=None,
        at=now(),
        actor="steward",
        what=f"notice {values['state']}",
        why=why,
        detail=detail,
    )
    add_event(EngineTransaction(connection), event)


def add_notice(
    write: WriteTransaction, copy: QueueCopy, kind: NoticeKind, due: datetime, *, anew: bool = False
) -> bool:
    """Owe a notice about a copy; False if one of this kind tells of it already.

    The copy joins the notice of another copy of its incident with the same action, if that notice is due still, or that
    copy is not dealt with: it counts as told once the notice is sent. Otherwise, or with `anew`, a new notice is owed.
    """
    write.lock(f"notices of {copy.incident_id}")
    if not anew and write.first(_TOLD, {"told_copy": copy.id, "kind": kind}) is not None:
        return False
    meant = {"incident": copy.incident_id, "kind": kind, "action": copy.action.value}
    joined = None if anew else write.first(_JOINED, meant)
    if joined is not None:
        notice_id = int(joined.id)
    else:
        values = {"incident_id": copy.incident_id, "kind": kind, "state": "due", "due": due}
        notice_id = insert(write, tables.notice, values)
    write.first(_TELL, {"notice_id": notice_id, "copy_id": copy.id})
    return True


def drop_due_notices(write: WriteTransaction, copy: QueueCopy) -> None:
    """Take a copy out of the notices that are due: they would not be true of it. One without copies then goes."""
    write.lock(f"notices of {copy.incident_id}")  # before any row, as `add_notice`: otherwise the two could deadlock
    write.first(_UNTELL, {"untold_copy": copy.id})
    write.first(_DROP_EMPTY, {"incident": copy.incident_id})


def _with_copies(connection: Connection, rows: Iterable[Any]) -> list[Notice]:
    found = list(rows)
    told: dict[int, list[int]] = {row.id: [] for row in found}
    table = tables.notice_copy
    ids = list(told)
    for start in range(0, len(ids), IDS_PER_QUERY):
        query = (
            sa.select(table).where(table.c.notice_id.in_(ids[start : start + IDS_PER_QUERY])).order_by(table.c.copy_id)
        )
        for row in connection.execute(query):
            told[row.notice_id].append(row.copy_id)
    return [Notice(**row._mapping, copies=tuple(told[row.id])) for row in found]


_TOLD: Final = (
    sa.select(tables.notice.c.id)
    .join(tables.notice_copy, tables.notice_copy.c.notice_id == tables.notice.c.id)
    .where(tables.notice_copy.c.copy_id == sa.bindparam("told_copy"), tables.notice.c.kind == sa.bindparam("kind"))
    .limit(1)
)

_JOINED: Final = (
    sa.select(tables.notice.c.id)
    .join(tables.notice_copy, tables.notice_copy.c.notice_id == tables.notice.c.id)
    .join(tables.queue_copy, tables.queue_copy.c.id == tables.notice_copy.c.copy_id)
    .where(
        tables.notice.c.incident_id == sa.bindparam("incident"),
        tables.notice.c.kind == sa.bindparam("kind"),
        tables.queue_copy.c.action == sa.bindparam("action"),
        sa.or_(
            tables.notice.c.state == "due",
            sa.and_(
                tables.notice.c.state == "sent",
                sa.or_(*(tables.queue_copy.c.state == state.value for state in sorted(JOINABLE))),
            ),
        ),
    )
    .order_by(tables.notice.c.id.desc())
    .limit(1)
)

_TELL: Final = sa.insert(tables.notice_copy).inline()

_DUE: Final = sa.select(tables.notice.c.id).where(tables.notice.c.state == "due")

_UNTELL: Final = sa.delete(tables.notice_copy).where(
    tables.notice_copy.c.copy_id == sa.bindparam("untold_copy"), tables.notice_copy.c.notice_id.in_(_DUE)
)

_DROP_EMPTY: Final = sa.delete(tables.notice).where(
    tables.notice.c.incident_id == sa.bindparam("incident"),
    tables.notice.c.state == "due",
    ~sa.exists().where(tables.notice_copy.c.notice_id == tables.notice.c.id),
)
