"""Filing: a transaction becomes a copy of the incident of its message, or of a new incident."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, Final

from undisclosed.addresses import Address
from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.incidents.automatic import Automatic
from undisclosed.incidents.records import (
    ADOPTED,
    MERGE_WITHIN,
    Event,
    NoticeKind,
    QueueCopy,
    State,
    Transaction,
    Treatment,
    UnrecordedMail,
    clean,
    is_same_file,
)
from undisclosed.journal import copies, tables
from undisclosed.journal.database import Database
from undisclosed.journal.notices import add_notice
from undisclosed.journal.rows import add_event, now
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

CONFIRMATION_TIME: Final = timedelta(seconds=10)
"""The time in which Postfix's queue or log shows a message that was delivered at once; then it is told all the same."""

QUARANTINED: Final[NoticeKind] = "held"
"""The first notice about a copy that waits for a person, whatever its rule says."""


def first_notice(action: Action, treatment: Treatment) -> NoticeKind | None:
    """The first notice that is owed about a transaction. None: its sender learns it from the answer, or need not."""
    if action.effect.treatment == treatment:
        return action.effect.first_notice
    return QUARANTINED if treatment == "hold" else None


PackedTransaction = dict[str, Any]
"""A transaction as JSON, without the facts that the settings keep out of the journal."""


class Filing:
    """Records transactions and adopted mail as incidents, with the notices that are owed about them."""

    def __init__(self, database: Database, settings: JournalSection, key: bytes) -> None:
        self._database = database
        self._settings = settings
        self._key = key

    def record(self, transaction: Transaction) -> QueueCopy:
        """Record a transaction at once: as a copy of its message's incident, or of a new incident."""
        with self._database.write_fast() as write:
            return self.file_entry(write, self.entry(transaction))

    def record_found(self, transaction: Transaction, *, waits: str | None = None) -> QueueCopy:
        """Record held mail that the steward found without a record, and that the policy holds: state PENDING.

        With `waits` it waits for a person, whatever its rule says. If the milter has recorded it meanwhile, returns
        that copy as it is.
        """
        transaction, visible = _unpacked(self.entry(transaction))
        copy = replace(_first_copy(transaction), adopted=True, waits=waits)
        with self._database.write_fast() as write:
            return _add_found(write, _incident_values(transaction), visible, copy)

    def adopt(self, mail: UnrecordedMail) -> QueueCopy:
        """Record held mail that the steward found without a record, and that no rule holds: state HELD.

        The administrator is told, and no sender.

        If the milter has recorded it meanwhile, returns that copy as it is.
        """
        message_id = "" if mail.message_id is None else clean(mail.message_id)
        incident = {
            "reference": mail.reference,
            "identity": mail.identity,
            "at": mail.arrived,
            "sender": clean(mail.sender),
            "author": None if mail.author is None else clean(mail.author),
            "login": "",
            "message_id": message_id or None,
            "count": 0,
            "organisations": 0,
            "named": 0,
            "per_field": {},
            "subject": clean(mail.subject) if mail.subject is not None and self._settings.subjects else None,
            "automatic": mail.automatic,
        }
        copy = QueueCopy(
            id=0,
            incident_id=0,
            gateway=clean(mail.gateway),
            queue_id=clean(mail.queue_id),
            message_id=message_id,
            client=None,
            recipients=mail.recipients,
            recipients_hash=mail.recipients_hash,
            rule="",
            action=Action.QUARANTINE,
            reason=ADOPTED,
            adopted=True,
            waits=ADOPTED,
            state=State.HELD,
            arrived=mail.arrived,
            size=mail.size,
        )
        with self._database.write_fast() as write:
            return _add_found(write, incident, (), copy)

    def copy_in_first_state(self, transaction: Transaction) -> int | None:
        """The id of the newest copy of this message in this queue, if nothing has happened to it since its record."""
        table, states = tables.queue_copy, [state.value for state in FIRST_STATE.values()]
        copy = _first_copy(_unpacked(self.entry(transaction))[0])
        around = transaction.at - MERGE_WITHIN, transaction.at + MERGE_WITHIN
        query = copies.OF_FILE.where(table.c.state.in_(states), table.c.arrived.between(*around))
        with self._database.read() as connection:
            row = connection.execute(query, copies.file_parameters(copy)).first()
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
        """Make a copy of a transaction's entry, in its incident, and owe its first notice."""
        transaction, visible = _unpacked(entry)
        copy = _first_copy(transaction)
        copies.lock(write, copy, transaction.identity)
        found = copies.open_copy(write, copy) if copy.is_open else None
        was_found = found is not None and found.adopted and is_same_file(transaction.at, found.arrived)
        if found is not None and was_found:
            # The steward found the held message before this entry was filed.
            copy = copies.complete(write, found, copy, _incident_values(transaction), visible)
        else:
            if found is not None:  # the milter records each queue file once
                copies.close_replaced(write, found)
            copy = copies.add(write, _incident_values(transaction), visible, copy)
        if (kind := first_notice(transaction.action, transaction.treatment)) is not None:
            confirmed_by = CONFIRMATION_TIME if copy.state is State.DELIVERED else timedelta()
            # Anew, if only the administrator can have been told: of mail that no rule seemed to hold.
            is_anew = found is not None and was_found and not found.rule
            add_notice(write, copy, kind, transaction.at + confirmed_by, anew=is_anew)
        add_event(write, _recorded_event(transaction, copy))
        return copy

    def _recorded_form(self, address: Address) -> str:
        spelled = f"{address.local}@{address.domain}"
        if self._settings.addresses == "plain":
            return clean(spelled)
        return hmac.digest(self._key, b"address\0" + spelled.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()


def _add_found(
    write: WriteTransaction, incident: Mapping[str, Any], visible: Sequence[str], copy: QueueCopy
) -> QueueCopy:
    """Add a copy of a message that the steward found; where it has an open copy already, return that."""
    copies.lock(write, copy, str(incident["identity"]))
    found = copies.open_copy(write, copy)
    if found is not None and is_same_file(found.arrived, copy.arrived):
        return found
    if found is not None:
        copies.close_replaced(write, found)
    copy = copies.add(write, incident, visible, copy)
    kind = QUARANTINED if copy.waits else first_notice(copy.action, "hold")
    if kind is not None:
        add_notice(write, copy, kind, now())
    event = Event(
        incident_id=copy.incident_id, copy_id=copy.id, at=now(), actor="steward", what="adopted", why=copy.reason
    )
    add_event(write, event)
    return copy


def _unpacked(entry: PackedTransaction) -> tuple[Transaction, Sequence[str]]:
    """An entry as the transaction it was made of, and the visible addresses in the form in which they are recorded."""
    values = entry | {
        "action": Action(entry["action"]),
        "obstacle_kind": ObstacleKind(entry["obstacle_kind"]) if entry["obstacle_kind"] else None,
        "automatic": Automatic(entry["automatic"]) if entry["automatic"] else None,
        "at": datetime.fromisoformat(entry["at"]),
        "visible": (),
    }
    return Transaction(**values), entry["visible"]


def _incident_values(transaction: Transaction) -> dict[str, Any]:
    """The columns of an incident that a transaction fills."""
    values = {name: getattr(transaction, name) for name in _INCIDENT_COLUMNS}
    return values | {"per_field": dict(transaction.per_field), "message_id": transaction.message_id or None}


def _first_copy(transaction: Transaction) -> QueueCopy:
    """The copy of a transaction, without its id and that of its incident."""
    values = {name: getattr(transaction, name) for name in _COPY_COLUMNS} | {
        "message_id": transaction.message_id or "",
        "state": FIRST_STATE[transaction.treatment],
        "arrived": transaction.at,
    }
    return QueueCopy(id=0, incident_id=0, **values)


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


_FIELDS: Final = tuple(field.name for field in fields(Transaction))

_INCIDENT_COLUMNS: Final = tuple(column.name for column in tables.incident.columns if column.name in _FIELDS)

_COPY_COLUMNS: Final = tuple(
    field.name for field in fields(QueueCopy) if field.name in _FIELDS and field.name not in ("id", "incident_id")
)
