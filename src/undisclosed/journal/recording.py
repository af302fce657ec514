"""Recording: a transaction becomes a copy of an incident that there is, or of a new one."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from undisclosed.addresses import Address
from undisclosed.journal import tables
from undisclosed.journal.base import Base, as_copy, inserted
from undisclosed.policy import Action
from undisclosed.records import MERGE_WITHIN, OPEN, Copy, Outcome, State, Transaction, clean, cleaned

FIRST_STATE: Final[dict[Outcome, State]] = {
    "hold": State.PENDING,
    "reject": State.REJECTED,
    "rewrite": State.DELIVERED,
    "warn": State.DELIVERED,
    "monitor": State.MONITORED,
}
"""The state of a copy when it is recorded."""


class Recording(Base):
    """What the milter and the steward find."""

    def record(self, transaction: Transaction) -> Copy:
        """Record a transaction: as a copy of its incident, or as a new incident. Returns the copy."""
        one = self._private(cleaned(transaction))
        with self._write(notify=True) as connection:
            self._serialise(connection, f"{one.gateway} {one.queue_id}", one.reference)
            copy = self._found_before(connection, one, adopted=True)
            incident_id = self._incident_for(connection, one, copy)
            if copy is None:
                copy = self._add_copy(connection, incident_id, one, FIRST_STATE[one.outcome])
            self._event(
                connection,
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
        one = self._private(
            cleaned(
                Transaction(
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
            )
        )
        with self._write(notify=True) as connection:
            self._serialise(connection, f"{one.gateway} {one.queue_id}", one.reference)
            if found := self._found_before(connection, one, adopted=False):
                return found
            incident_id = self._add_incident(connection, one)
            copy = self._add_copy(connection, incident_id, one, State.HELD, size=size, until=until)
            self._event(connection, incident_id, copy.id, "steward", "adopted", one.reason)
            return copy

    def _private(self, transaction: Transaction) -> Transaction:
        return transaction if self._settings.subjects else replace(transaction, subject=None)

    def _shown(self, address: Address) -> str:
        spelled = f"{address.local}@{address.domain}"
        if self._settings.addresses == "plain":
            return clean(spelled)
        return hmac.digest(self._key, b"address\0" + spelled.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()

    @staticmethod
    def _found_before(connection: Connection, one: Transaction, *, adopted: bool) -> Copy | None:
        """The open copy that already stands for this message in this queue.

        One queue id alone is not enough: short ones are used again within minutes. With `adopted`, only a copy of
        which nothing is known yet but that it is held.
        """
        table = tables.copy
        query = sa.select(table).where(
            table.c.gateway == one.gateway,
            table.c.queue_id == one.queue_id,
            table.c.message_id.is_not_distinct_from(one.message_id),
            table.c.state.in_([state.value for state in OPEN]),
            table.c.arrived.between(one.at - MERGE_WITHIN, one.at + MERGE_WITHIN),
        )
        if adopted:
            unknown = sa.exists().where(tables.incident.c.id == table.c.incident_id, tables.incident.c.rule == "")
            query = query.where(unknown)
        row = connection.execute(query.order_by(table.c.id.desc()).limit(1)).one_or_none()
        return None if row is None else as_copy(row)

    def _incident_for(self, connection: Connection, one: Transaction, copy: Copy | None) -> int:
        table = tables.incident
        if copy is not None:  # the steward was faster: now it is known what it is
            connection.execute(sa.update(table).where(table.c.id == copy.incident_id).values(**_values(one)))
            self._expose(connection, copy.incident_id, one)
            return copy.incident_id
        if one.message_id is not None:
            same = (
                sa.select(table.c.id)
                .where(
                    table.c.reference == one.reference,
                    table.c.at.between(one.at - MERGE_WITHIN, one.at + MERGE_WITHIN),
                )
                .order_by(table.c.id)
                .limit(1)
            )
            if (found := connection.scalar(same)) is not None:
                return int(found)
        return self._add_incident(connection, one)

    def _add_incident(self, connection: Connection, one: Transaction) -> int:
        incident_id = inserted(connection, tables.incident, {**_values(one), "at": one.at})
        self._expose(connection, incident_id, one)
        return incident_id

    def _expose(self, connection: Connection, incident_id: int, one: Transaction) -> None:
        if self._settings.addresses != "none" and one.visible:
            spelled = {self._shown(address) for address in one.visible}
            rows = [{"incident_id": incident_id, "address": text} for text in sorted(spelled)]
            connection.execute(sa.insert(tables.exposed), rows)

    @staticmethod
    def _add_copy(
        connection: Connection,
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
        copy_id = inserted(connection, tables.copy, {**values, "state": state.value})
        return Copy(id=copy_id, **values)


def _values(one: Transaction) -> dict[str, Any]:
    """The columns of an incident that a transaction fills, but for the time."""
    names = {column.name for column in tables.incident.columns} - {"id", "at"}
    return {name: getattr(one, name) for name in names} | {"action": one.action.value, "per_field": dict(one.per_field)}
