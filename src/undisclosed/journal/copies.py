"""Copies of messages within one transaction that writes: find the open one of a queue file, add, complete, close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from undisclosed.incidents.records import ADOPTED, MERGE_WITHIN, OPEN, Event, QueueCopy, State
from undisclosed.journal import tables
from undisclosed.journal.notices import add_notice, drop_due_notices
from undisclosed.journal.rows import add_event, as_copy, insert, now
from undisclosed.journal.write_transaction import WriteTransaction


def lock(write: WriteTransaction, copy: QueueCopy, identity: str) -> None:
    """Let nobody else file a copy of the same queue file or of the same message."""
    write.lock(f"{copy.gateway} {copy.queue_id}", identity)


def file_parameters(copy: QueueCopy) -> dict[str, str]:
    """The parameters of OF_FILE for the queue file of a copy."""
    return {"gateway": copy.gateway, "queue_id": copy.queue_id, "message_id": copy.message_id}


def open_copy(write: WriteTransaction, copy: QueueCopy) -> QueueCopy | None:
    """The open copy of the same queue file: the database allows one."""
    row = write.first(_OPEN_COPY, file_parameters(copy))
    return None if row is None else as_copy(row)


def add(write: WriteTransaction, incident: Mapping[str, Any], visible: Sequence[str], copy: QueueCopy) -> QueueCopy:
    """Add a copy to the incident of its message, or to a new one with these values."""
    incident_id = _incident_of(write, incident)
    if incident_id is None:
        incident_id = insert(write, tables.incident, dict(incident))
        _expose(write, incident_id, visible)
    copy = replace(copy, incident_id=incident_id)
    values = {name: getattr(copy, name) for name in _COLUMNS} | {
        "state": copy.state.value,
        "action": copy.action.value,
        "obstacle_kind": copy.obstacle_kind.value if copy.obstacle_kind else None,
    }
    return replace(copy, id=insert(write, tables.queue_copy, values))


def complete(
    write: WriteTransaction, found: QueueCopy, recorded: QueueCopy, incident: Mapping[str, Any], visible: Sequence[str]
) -> QueueCopy:
    """Add what the milter recorded to a copy that the steward has found before.

    It is pending again: the steward then gives it its release and the end of its hold, as it does every held message.
    """
    is_pending = recorded.state is State.PENDING and found.state is State.HELD
    values: dict[str, Any] = {
        "client": recorded.client,
        "recipients": recorded.recipients,
        "recipients_hash": recorded.recipients_hash,
        "rule": recorded.rule,
        "reason": recorded.reason,
        "obstacle": recorded.obstacle,
        "adopted": False,
        "waits": None if found.waits == ADOPTED else found.waits,
    }
    copy = replace(
        found,
        action=recorded.action,
        obstacle_kind=recorded.obstacle_kind,
        state=State.PENDING if is_pending else found.state,
        **values,
    )
    values |= {
        "action": copy.action.value,
        "obstacle_kind": copy.obstacle_kind.value if copy.obstacle_kind else None,
        "state": copy.state.value,
    }
    write.first(_COMPLETE, {"completed": copy.id, **values})
    drop_due_notices(write, copy)
    if write.first(_OTHER_COPY, {"incident": copy.incident_id, "copy": copy.id}) is None:
        write.first(_COMPLETE_INCIDENT, {"completed": copy.incident_id, **incident})
        write.first(_HIDE, {"hidden": copy.incident_id})
        _expose(write, copy.incident_id, visible)
    return copy


def close_replaced(write: WriteTransaction, copy: QueueCopy) -> None:
    """Close an open copy whose queue id Postfix has used again: its queue file is gone.

    If it was on hold, its sender was told so, and must learn that nobody knows whether it was sent.
    """
    why = "another message has its queue id now"
    state = State.NEVER_QUEUED if copy.state is State.PENDING else State.GONE
    write.first(_CLOSE, {"closed": copy.id, "new_state": state.value})
    if state is State.GONE:
        add_notice(write, copy, "gone", now())
    event = Event(
        incident_id=copy.incident_id,
        copy_id=copy.id,
        at=now(),
        actor="steward",
        what=state.value,
        why=why,
        detail={"before": copy.state.value},
    )
    add_event(write, event)


def _incident_of(write: WriteTransaction, incident: Mapping[str, Any]) -> int | None:
    """The incident of the same message, whose first transaction was at most an hour before."""
    if not incident["message_id"]:
        return None
    at = incident["at"]
    row = write.first(
        _SAME_INCIDENT,
        {"identity": incident["identity"], "earliest": at - MERGE_WITHIN, "latest": at + MERGE_WITHIN},
    )
    return None if row is None else int(row.id)


def _expose(write: WriteTransaction, incident_id: int, addresses: Sequence[str]) -> None:
    if addresses:
        write.insert_all(_EXPOSE, [{"incident_id": incident_id, "address": address} for address in addresses])


# SQLAlchemy takes ten times as long to build a statement as SQLite to run it: each is built once.

_table: Final = tables.queue_copy

OF_FILE: Final = (
    sa.select(_table)
    .where(
        _table.c.gateway == sa.bindparam("gateway"),
        _table.c.queue_id == sa.bindparam("queue_id"),
        _table.c.message_id == sa.bindparam("message_id"),
    )
    .order_by(_table.c.id.desc())
    .limit(1)
)
"""The newest copy of a queue file."""

_OPEN_COPY: Final = OF_FILE.where(sa.or_(*(_table.c.state == state.value for state in sorted(OPEN))))

_OTHER_COPY: Final = (
    sa.select(_table.c.id)
    .where(_table.c.incident_id == sa.bindparam("incident"), _table.c.id != sa.bindparam("copy"))
    .limit(1)
)

_SAME_INCIDENT: Final = (
    sa.select(tables.incident.c.id)
    .where(
        tables.incident.c.identity == sa.bindparam("identity"),
        tables.incident.c.at.between(sa.bindparam("earliest"), sa.bindparam("latest")),
    )
    .order_by(tables.incident.c.id)
    .limit(1)
)

_COLUMNS: Final = tuple(column.name for column in _table.columns if column.name != "id")

_COMPLETE: Final = sa.update(_table).where(_table.c.id == sa.bindparam("completed"))

_COMPLETE_INCIDENT: Final = sa.update(tables.incident).where(tables.incident.c.id == sa.bindparam("completed"))

_CLOSE: Final = (
    sa.update(_table)
    .where(_table.c.id == sa.bindparam("closed"))
    .values(state=sa.bindparam("new_state"), until=None, leaves=None)
)

_EXPOSE: Final = sa.insert(tables.exposed)

_HIDE: Final = sa.delete(tables.exposed).where(tables.exposed.c.incident_id == sa.bindparam("hidden"))
