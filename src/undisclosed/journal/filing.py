"""Filing: a transaction becomes a copy of the incident of its message, or of a new incident."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from undisclosed.addresses import Address
from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.incidents.records import (
    MERGE_WITHIN,
    OPEN,
    Event,
    QueueCopy,
    State,
    Transaction,
    Treatment,
    UnrecordedMail,
    clean,
)
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.rows import add_event, as_copy, insert, now
from undisclosed.journal.write_transaction import WriteTransaction
from undisclosed.policy import Action
from undisclosed.policy.sections import JournalSection

FIRST_STATE: Final[Mapping[Treatment, State]] = {
    "hold": State.PENDING,
    "reject": State.REJECTED,
    "rewrite": State.DELIVERED,
    "warn": State.DELIVERED,
    "monitor": State.MONITORED,
}
"""The state of a copy when it is recorded."""

PackedTransaction = dict[str, Any]
"""A transaction as JSON, without the facts that the settings keep out of the journal."""


class Filing:
    """Records transactions and adopted mail as incidents."""

    def __init__(self, database: Database, settings: JournalSection, key: bytes) -> None:
        self._database = database
        self._settings = settings
        self._key = key

    def record(self, transaction: Transaction) -> QueueCopy:
        """Record a transaction at once: as a copy of its message's incident, or as a new incident."""
        with self._database.write_fast() as write:
            return self.file_entry(write, self.entry(transaction))

    def adopt(self, mail: UnrecordedMail) -> QueueCopy:
        """Record held mail that the steward found without a record: as quarantined by no rule, state HELD.

        If the milter has recorded it meanwhile, returns that copy as it is.
        """
        message = _Message(clean(mail.gateway), clean(mail.queue_id), _cleaned(mail.message_id), mail.arrived)
        reason = "held mail without a record"
        with self._database.write_fast() as write:
            write.lock(message.lock_name, mail.reference)
            if found := _find_copy(write, _OPEN_COPY, message):
                return found
            incident = {
                "reference": mail.reference,
                "at": mail.arrived,
                "sender": clean(mail.sender),
                "message_id": message.message_id,
                "adopted": True,
                "rule": "",
                "action": Action.QUARANTINE.value,
                "reason": reason,
                "obstacle": None,
                "obstacle_kind": None,
                "count": 0,
                "organisations": 0,
                "named": 0,
                "per_field": {},
                "subject": None,
                "automatic": mail.automatic,
            }
            incident_id = insert(write, tables.incident, incident)
            copy = QueueCopy(
                id=0,
                incident_id=incident_id,
                gateway=message.gateway,
                queue_id=message.queue_id,
                message_id=message.message_id,
                client=None,
                recipients=mail.recipients,
                state=State.HELD,
                arrived=mail.arrived,
                size=mail.size,
            )
            copy = _insert_copy(write, copy)
            event = Event(
                incident_id=incident_id, copy_id=copy.id, at=now(), actor="steward", what="adopted", why=reason
            )
            add_event(write, event)
            return copy

    def copy_in_first_state(self, transaction: Transaction) -> int | None:
        """The id of the newest copy of this message in this queue, if nothing has happened to it since its record."""
        message = _Message.of(_unpacked(self.entry(transaction))[0])
        states = [state.value for state in FIRST_STATE.values()]
        query = _same_message().where(tables.queue_copy.c.state.in_(states))
        with self._database.read() as connection:
            row = connection.execute(query, message.parameters).first()
        return None if row is None else int(row.id)

    def entry(self, transaction: Transaction) -> PackedTransaction:
        """A transaction as JSON, with subject and addresses as the settings allow."""
        entry: PackedTransaction = {}
        for name in _FIELDS:
            value = getattr(transaction, name)
            entry[name] = clean(value) if isinstance(value, str) else value
        entry["per_field"] = dict(transaction.per_field)
        entry["at"] = transaction.at.isoformat()
        if not self._settings.subjects:
            entry["subject"] = None
        recorded: set[str] = set()
        if self._settings.addresses != "none":
            recorded = {self._recorded_form(address) for address in transaction.visible}
        entry["visible"] = sorted(recorded)
        return entry

    def file_entry(self, write: WriteTransaction, entry: PackedTransaction) -> QueueCopy:
        """Make a copy of a transaction's entry, in its incident."""
        transaction, visible = _unpacked(entry)
        message = _Message.of(transaction)
        write.lock(message.lock_name, transaction.reference)
        copy = _find_copy(write, _ADOPTED_COPY, message)
        if copy is not None:  # the steward found the held message before this entry was filed
            write.first(_FILL_INCIDENT, {"adopted_incident": copy.incident_id, **_incident_values(transaction)})
            _insert_exposed(write, copy.incident_id, visible)
            if copy.state is State.HELD and FIRST_STATE[transaction.treatment] is State.PENDING:
                # Pending again: the steward then adds notice, release and end of the hold, as of every held message.
                write.first(_SET_STATE, {"copy": copy.id, "new_state": State.PENDING.value})
                copy = replace(copy, state=State.PENDING)
        else:
            incident_id = _find_incident(write, transaction)
            if incident_id is None:
                values = {**_incident_values(transaction), "at": transaction.at}
                incident_id = insert(write, tables.incident, values)
                _insert_exposed(write, incident_id, visible)
            copy = _insert_copy(write, _first_copy(transaction, incident_id))
        add_event(write, _recorded_event(transaction, copy))
        return copy

    def _recorded_form(self, address: Address) -> str:
        spelled = f"{address.local}@{address.domain}"
        if self._settings.addresses == "plain":
            return clean(spelled)
        return hmac.digest(self._key, b"address\0" + spelled.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()


class _Message:
    """A message in one gateway's queue.

    The queue id alone does not tell messages apart: Postfix uses short ones again within minutes.
    """

    def __init__(self, gateway: str, queue_id: str, message_id: str | None, at: datetime) -> None:
        self.gateway = gateway
        self.queue_id = queue_id
        self.message_id = message_id
        self.lock_name = f"{gateway} {queue_id}"
        self.parameters = {"gateway": gateway, "queue_id": queue_id, "message_id": message_id, **_around(at)}

    @classmethod
    def of(cls, transaction: Transaction) -> _Message:
        """The message of a transaction."""
        return cls(transaction.gateway, transaction.queue_id, transaction.message_id, transaction.at)


def _cleaned(text: str | None) -> str | None:
    return None if text is None else clean(text)


def _around(at: datetime) -> dict[str, datetime]:
    return {"earliest": at - MERGE_WITHIN, "latest": at + MERGE_WITHIN}


def _unpacked(entry: PackedTransaction) -> tuple[Transaction, Sequence[str]]:
    """An entry as the transaction it was made of, and the visible addresses in the form in which they are recorded."""
    values = entry | {
        "action": Action(entry["action"]),
        "obstacle_kind": ObstacleKind(entry["obstacle_kind"]) if entry["obstacle_kind"] else None,
        "at": datetime.fromisoformat(entry["at"]),
        "visible": (),
    }
    return Transaction(**values), entry["visible"]


def _find_copy(write: WriteTransaction, query: sa.Select[Any], message: _Message) -> QueueCopy | None:
    row = write.first(query, message.parameters)
    return None if row is None else as_copy(row)


def _find_incident(write: WriteTransaction, transaction: Transaction) -> int | None:
    if transaction.message_id is None:
        return None
    row = write.first(_SAME_INCIDENT, {"reference": transaction.reference, **_around(transaction.at)})
    return None if row is None else int(row.id)


def _incident_values(transaction: Transaction) -> dict[str, Any]:
    """The columns of an incident that a transaction fills, except for the time."""
    values = {name: getattr(transaction, name) for name in _FROM_TRANSACTION}
    return values | {
        "adopted": False,
        "action": transaction.action.value,
        "obstacle_kind": transaction.obstacle_kind.value if transaction.obstacle_kind else None,
        "per_field": dict(transaction.per_field),
    }


def _first_copy(transaction: Transaction, incident_id: int) -> QueueCopy:
    """The copy of a transaction, without its id."""
    return QueueCopy(
        id=0,
        incident_id=incident_id,
        gateway=transaction.gateway,
        queue_id=transaction.queue_id,
        message_id=transaction.message_id,
        client=transaction.client,
        recipients=transaction.recipients,
        state=FIRST_STATE[transaction.treatment],
        arrived=transaction.at,
    )


def _insert_copy(write: WriteTransaction, copy: QueueCopy) -> QueueCopy:
    values = {name: getattr(copy, name) for name in _COPY_COLUMNS} | {"state": copy.state.value}
    return replace(copy, id=insert(write, tables.queue_copy, values))


def _insert_exposed(write: WriteTransaction, incident_id: int, addresses: Sequence[str]) -> None:
    if addresses:
        write.insert_all(_EXPOSE, [{"incident_id": incident_id, "address": address} for address in addresses])


def _recorded_event(transaction: Transaction, copy: QueueCopy) -> Event:
    detail = {"treatment": transaction.treatment, "gateway": transaction.gateway, "queue_id": transaction.queue_id}
    return Event(
        incident_id=copy.incident_id,
        copy_id=copy.id,
        at=transaction.at,
        actor="milter",
        what="recorded",
        why=transaction.reason,
        detail=detail | {name: value for name in ("client", "login") if (value := getattr(transaction, name))},
    )


# SQLAlchemy takes ten times as long to build a statement as SQLite to run it: each is built once.


def _same_message() -> sa.Select[Any]:
    """The newest copy of this message in this queue."""
    table = tables.queue_copy
    return (
        sa.select(table)
        .where(
            table.c.gateway == sa.bindparam("gateway"),
            table.c.queue_id == sa.bindparam("queue_id"),
            table.c.message_id.is_not_distinct_from(sa.bindparam("message_id")),
            table.c.arrived.between(sa.bindparam("earliest"), sa.bindparam("latest")),
        )
        .order_by(table.c.id.desc())
        .limit(1)
    )


_OPEN_COPY: Final = _same_message().where(sa.or_(*(tables.queue_copy.c.state == state.value for state in sorted(OPEN))))

_ADOPTED_COPY: Final = _OPEN_COPY.where(
    sa.exists().where(tables.incident.c.id == tables.queue_copy.c.incident_id, tables.incident.c.adopted)
)

_SAME_INCIDENT: Final = (
    sa.select(tables.incident.c.id)
    .where(
        tables.incident.c.reference == sa.bindparam("reference"),
        tables.incident.c.at.between(sa.bindparam("earliest"), sa.bindparam("latest")),
    )
    .order_by(tables.incident.c.id)
    .limit(1)
)

_FIELDS: Final = tuple(field.name for field in fields(Transaction))

_FROM_TRANSACTION: Final = tuple(
    column.name for column in tables.incident.columns if column.name in _FIELDS and column.name != "at"
)

_COPY_COLUMNS: Final = tuple(column.name for column in tables.queue_copy.columns if column.name != "id")

_FILL_INCIDENT: Final = sa.update(tables.incident).where(tables.incident.c.id == sa.bindparam("adopted_incident"))

_SET_STATE: Final = (
    sa.update(tables.queue_copy)
    .where(tables.queue_copy.c.id == sa.bindparam("copy"))
    .values(state=sa.bindparam("new_state"))
)

_EXPOSE: Final = sa.insert(tables.exposed)
