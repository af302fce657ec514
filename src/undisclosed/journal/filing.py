"""Recording: a transaction becomes a copy of an incident that there is, or of a new one."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from undisclosed.addresses import Address
from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.incidents.records import MERGE_WITHIN, OPEN, Copy, Outcome, State, Transaction, clean
from undisclosed.journal import tables
from undisclosed.journal.database import add_event, as_copy, inserted
from undisclosed.journal.held import Dealing
from undisclosed.journal.inbox import Writing
from undisclosed.policy import Action

FIRST_STATE: Final[dict[Outcome, State]] = {
    "hold": State.PENDING,
    "reject": State.REJECTED,
    "rewrite": State.DELIVERED,
    "warn": State.DELIVERED,
    "monitor": State.MONITORED,
}
"""The state of a copy when it is recorded."""


class Recording(Dealing):
    """What the milter and the steward find."""

    def receive(self, transactions: Sequence[Transaction]) -> None:
        """Put transactions down for good, in one step, while Postfix waits. They are incidents once they are filed."""
        self._insert_directly(_RECEIVE, [{"entry": self._packed(transaction)} for transaction in transactions])

    def file(self, most: int | None = None) -> int:
        """File what was received, the oldest first, at most so many; returns how many. Whoever reads does it first.

        The journal is free for as long as it was taken, after each: a milter that waits for it only looks now and then.
        """
        filed, began = 0, time.monotonic()
        while filed != most and self._file_oldest():
            filed += 1
            time.sleep(time.monotonic() - began)
            began = time.monotonic()
        return filed

    def _file_oldest(self) -> bool:
        with self._write_directly() as writing:
            writing.serialise("filing")
            row = writing.row(_OLDEST_RECEIVED, {})
            if row is None:
                return False
            self._file(writing, *_unpacked(row.entry))
            writing.row(_FORGET, {"received": row.id})
            return True

    def record(self, transaction: Transaction) -> Copy:
        """Record a transaction at once: as a copy of its incident, or as a new incident. Returns the copy."""
        with self._write_directly() as writing:
            return self._file(writing, *_unpacked(self._packed(transaction)))

    def withdraw(self, transaction: Transaction, why: str) -> bool:
        """Say that Postfix does not have a message that was recorded; False where it has no such copy any more."""
        self.file()
        (one, _), table = _unpacked(self._packed(transaction)), tables.copy
        query = _same_message().where(table.c.state.in_([state.value for state in FIRST_STATE.values()]))
        with self._read() as connection:
            found = connection.execute(query, _identity(one)).first()
        return found is not None and self.set_state(found.id, State.NEVER_QUEUED, actor="milter", why=why)

    def _file(self, writing: Writing, one: Transaction, shown: Sequence[str]) -> Copy:
        writing.serialise(f"{one.gateway} {one.queue_id}", one.reference)
        copy = self._found_before(writing, one, adopted=True)
        incident_id = self._incident_for(writing, one, shown, copy)
        if copy is None:
            copy = self._add_copy(writing, incident_id, one, FIRST_STATE[one.outcome])
        add_event(
            writing,
            incident_id,
            copy.id,
            "milter",
            "recorded",
            one.reason,
            at=one.at,
            detail={"outcome": one.outcome, "gateway": one.gateway, "queue_id": one.queue_id}
            | {name: value for name in ("client", "login") if (value := getattr(one, name))},
        )
        return replace(copy, incident_id=incident_id)

    def adopt(
        self,
        *,
        reference: str,
        gateway: str,
        queue_id: str,
        message_id: str | None,
        sender: str,
        recipients: int,
        arrived: datetime,
        size: int | None = None,
        until: datetime | None = None,
        subject: str | None = None,
        automatic: bool = False,
        reason: str = "held mail without a record",
    ) -> Copy:
        """Record held mail that the steward found without an incident: rule "", action quarantine, state HELD.

        Where the milter has recorded it meanwhile, that copy is returned as it is.
        """
        transaction = Transaction(
            reference=reference,
            gateway=gateway,
            queue_id=queue_id,
            message_id=message_id,
            sender=sender,
            client=None,
            login="",
            rule="",
            action=Action.QUARANTINE,
            outcome="hold",
            reason=reason,
            obstacle=None,
            per_field={},
            count=0,
            organisations=0,
            named=0,
            visible=(),
            recipients=recipients,
            subject=subject,
            automatic=automatic,
            at=arrived,
        )
        one, _ = _unpacked(self._packed(transaction))
        with self._write_directly() as writing:
            writing.serialise(f"{one.gateway} {one.queue_id}", one.reference)
            if found := self._found_before(writing, one, adopted=False):
                return found
            incident_id = self._add_incident(writing, one, ())
            copy = self._add_copy(writing, incident_id, one, State.HELD, size=size, until=until)
            add_event(writing, incident_id, copy.id, "steward", "adopted", one.reason, detail={})
            return copy

    def _packed(self, transaction: Transaction) -> dict[str, Any]:
        """A transaction as JSON has it, without what the journal must not keep, and with addresses as it may."""
        entry: dict[str, Any] = {}
        for name in _NAMES:
            value = getattr(transaction, name)
            entry[name] = clean(value) if isinstance(value, str) else value
        entry["per_field"] = dict(transaction.per_field)
        entry["at"] = transaction.at.isoformat()
        if not self._settings.subjects:
            entry["subject"] = None
        shown: set[str] = set()
        if self._settings.addresses != "none":
            shown = {self._shown(address) for address in transaction.visible}
        entry["visible"] = sorted(shown)
        return entry

    def _shown(self, address: Address) -> str:
        spelled = f"{address.local}@{address.domain}"
        if self._settings.addresses == "plain":
            return clean(spelled)
        return hmac.digest(self._key, b"address\0" + spelled.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()

    @staticmethod
    def _found_before(writing: Writing, one: Transaction, *, adopted: bool) -> Copy | None:
        """The open copy that already stands for this message in this queue.

        One queue id alone is not enough: short ones are used again within minutes. With `adopted`, only a copy of
        which nothing is known yet but that it is held.
        """
        row = writing.row(_ADOPTED_COPY if adopted else _OPEN_COPY, _identity(one))
        return None if row is None else as_copy(row)

    def _incident_for(self, writing: Writing, one: Transaction, shown: Sequence[str], copy: Copy | None) -> int:
        if copy is not None:  # the steward was faster: now it is known what it is
            writing.row(_FILL_INCIDENT, {"incident": copy.incident_id, **_values(one)})
            _expose(writing, copy.incident_id, shown)
            return copy.incident_id
        if one.message_id is not None:
            same = {"reference": one.reference, **_around(one.at)}
            if (found := writing.row(_SAME_INCIDENT, same)) is not None:
                return int(found.id)
        return self._add_incident(writing, one, shown)

    @staticmethod
    def _add_incident(writing: Writing, one: Transaction, shown: Sequence[str]) -> int:
        incident_id = inserted(writing, tables.incident, {**_values(one), "at": one.at})
        _expose(writing, incident_id, shown)
        return incident_id

    @staticmethod
    def _add_copy(
        writing: Writing,
        incident_id: int,
        one: Transaction,
        state: State,
        size: int | None = None,
        until: datetime | None = None,
    ) -> Copy:
        values: dict[str, Any] = {
            "incident_id": incident_id,
            "gateway": one.gateway,
            "queue_id": one.queue_id,
            "message_id": one.message_id,
            "client": one.client,
            "recipients": one.recipients,
            "state": state,
            "arrived": one.at,
            "size": size,
            "until": until,
        }
        copy_id = inserted(writing, tables.copy, {**values, "state": state.value})
        return Copy(id=copy_id, **values)


def _values(one: Transaction) -> dict[str, Any]:
    """The columns of an incident that a transaction fills, but for the time."""
    values = {name: getattr(one, name) for name in _FILLED}
    kind = one.obstacle_kind.value if one.obstacle_kind else None
    return values | {"action": one.action.value, "obstacle_kind": kind, "per_field": dict(one.per_field)}


def _unpacked(entry: dict[str, Any]) -> tuple[Transaction, list[str]]:
    shown = entry["visible"]
    kind = ObstacleKind(entry["obstacle_kind"]) if entry["obstacle_kind"] else None
    values = entry | {
        "action": Action(entry["action"]),
        "obstacle_kind": kind,
        "at": datetime.fromisoformat(entry["at"]),
        "visible": (),
    }
    return Transaction(**values), shown


def _expose(writing: Writing, incident_id: int, shown: Sequence[str]) -> None:
    if shown:
        writing.rows_in(_EXPOSE, [{"incident_id": incident_id, "address": text} for text in shown])


def _identity(one: Transaction) -> dict[str, Any]:
    return {"gateway": one.gateway, "queue_id": one.queue_id, "message_id": one.message_id, **_around(one.at)}


def _around(at: datetime) -> dict[str, datetime]:
    return {"earliest": at - MERGE_WITHIN, "latest": at + MERGE_WITHIN}


# The milter's callback waits while these run. SQLAlchemy takes ten times as long to build a statement as SQLite to run
# it, so they are built once, with names in place of values.


def _same_message() -> sa.Select[Any]:
    """The newest copy of this message in this queue."""
    table = tables.copy
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


_OPEN_COPY: Final = _same_message().where(sa.or_(*(tables.copy.c.state == state.value for state in sorted(OPEN))))

_ADOPTED_COPY: Final = _OPEN_COPY.where(
    sa.exists().where(tables.incident.c.id == tables.copy.c.incident_id, tables.incident.c.rule == "")
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

_FILLED: Final = tuple(column.name for column in tables.incident.columns if column.name not in ("id", "at"))

_FILL_INCIDENT: Final = sa.update(tables.incident).where(tables.incident.c.id == sa.bindparam("incident"))

_EXPOSE: Final = sa.insert(tables.exposed)

_NAMES: Final = tuple(field.name for field in fields(Transaction))

_RECEIVE: Final = sa.insert(tables.received).inline()

_OLDEST_RECEIVED: Final = sa.select(tables.received).order_by(tables.received.c.id).limit(1)

_FORGET: Final = sa.delete(tables.received).where(tables.received.c.id == sa.bindparam("received"))
