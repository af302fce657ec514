"""Queries: incidents by reference, sender, rule, time or state, with their copies and events."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from undisclosed.decision.reference import REFERENCE_LETTERS
from undisclosed.incidents.automatic import Automatic
from undisclosed.incidents.records import (
    BY_FINALITY,
    LEFT,
    AcceptedPart,
    Event,
    Incident,
    JournalError,
    NotFoundError,
    QueueCopy,
    State,
    clean,
)
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.inbox import Inbox
from undisclosed.journal.rows import IDS_PER_QUERY, as_copy, as_record, portions


class Incidents:
    """All incidents. Queries see transactions that are not filed yet too: they file them first."""

    def __init__(self, database: Database, inbox: Inbox) -> None:
        self._database = database
        self._inbox = inbox

    def search(
        self,
        *,
        sender: str | None = None,
        rule: str | None = None,
        since: datetime | None = None,
        states: Collection[State] | None = None,
        limit: int | None = None,
    ) -> list[Incident]:
        """Incidents, the newest first. `sender` is an envelope sender or a glob over it, in any case."""
        table = tables.incident
        query = sa.select(table).order_by(table.c.at.desc(), table.c.id.desc()).limit(limit)
        if sender is not None:
            query = query.where(sa.func.lower(table.c.sender).like(_like(clean(sender).lower()), escape="\\"))
        if rule is not None:
            copy = tables.queue_copy
            query = query.where(sa.exists().where(copy.c.incident_id == table.c.id, copy.c.rule == clean(rule)))
        if since is not None:
            query = query.where(table.c.at >= since)
        if states is not None:
            query = query.where(table.c.id.in_(_ids_in_state(states)))
        with self._read_all() as connection:
            return _with_copies(connection, connection.execute(query))

    def get(self, incident_id: int) -> Incident:
        """One incident. Raises NotFoundError."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(tables.incident).where(tables.incident.c.id == incident_id))
            if incidents := _with_copies(connection, rows):
                return incidents[0]
        raise NotFoundError(f"there is no incident {incident_id}")

    def several(self, incident_ids: Collection[int]) -> dict[int, Incident]:
        """These incidents by id, those of them that exist."""
        ids, table = sorted(incident_ids), tables.incident
        found: list[Incident] = []
        with self._database.read() as connection:
            for start in range(0, len(ids), IDS_PER_QUERY):
                query = sa.select(table).where(table.c.id.in_(ids[start : start + IDS_PER_QUERY]))
                found += _with_copies(connection, connection.execute(query))
        return {incident.id: incident for incident in found}

    def matching(self, prefix: str) -> list[Incident]:
        """The incidents whose references have this beginning, in any case, with the dash or without; the newest first.

        One reference may have several: the same message after more than an hour.
        """
        letters = "".join(char for char in prefix.upper() if char in REFERENCE_LETTERS)
        if not letters or len(letters) != len(prefix.replace("-", "").strip()):
            return []
        beginning = letters if len(letters) <= 4 else f"{letters[:4]}-{letters[4:]}"
        table = tables.incident
        query = sa.select(table).where(table.c.reference.like(f"{beginning}%"))
        with self._read_all() as connection:
            return _with_copies(connection, connection.execute(query.order_by(table.c.at.desc(), table.c.id.desc())))

    def accepted_parts(self, copy_ids: Collection[int]) -> dict[int, set[AcceptedPart]]:
        """The parts that Postfix has accepted of the releases of these copies; copies without any are left out."""
        table = tables.accepted_part
        found: dict[int, set[AcceptedPart]] = {}
        with self._database.read() as connection:
            for some in portions(copy_ids):
                for row in connection.execute(sa.select(table).where(table.c.copy_id.in_(some))):
                    found.setdefault(row.copy_id, set()).add(as_record(AcceptedPart, row))
        return found

    def endings(self, copy_ids: Collection[int]) -> dict[int, Event]:
        """The event by which each of these copies left the hold queue for good; those that did not are left out."""
        table = tables.event
        ended = [state.value for state in LEFT]
        found: dict[int, Event] = {}
        with self._database.read() as connection:
            for some in portions(copy_ids):
                query = sa.select(table).where(table.c.copy_id.in_(some), table.c.what.in_(ended)).order_by(table.c.id)
                for row in connection.execute(query):
                    found[row.copy_id] = as_record(Event, row)
        return found

    def copies(self, *, gateway: str, states: Collection[State]) -> list[QueueCopy]:
        """The copies of a gateway in these states, the oldest first."""
        table = tables.queue_copy
        query = sa.select(table).where(table.c.gateway == gateway, table.c.state.in_(list(states)))
        with self._read_all() as connection:
            return [as_copy(row) for row in connection.execute(query.order_by(table.c.arrived, table.c.id))]

    def exposed(self, incident_id: int) -> list[str]:
        """The visible external addresses as `journal.addresses` has them recorded: plain, hashed or none."""
        table = tables.exposed
        query = sa.select(table.c.address).where(table.c.incident_id == incident_id).order_by(table.c.address)
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def events(self, incident_id: int) -> list[Event]:
        """The events of an incident and its copies, in order."""
        table = tables.event
        query = sa.select(table).where(table.c.incident_id == incident_id).order_by(table.c.id)
        with self._database.read() as connection:
            return [as_record(Event, row) for row in connection.execute(query)]

    @contextmanager
    def _read_all(self) -> Iterator[Connection]:
        """A transaction that sees all that was put in the inbox before."""
        if not self._inbox.is_empty():
            with suppress(JournalError):  # a user who may only read sees the incidents that are filed
                self._inbox.file()
        with self._database.read() as connection:
            yield connection


def _with_copies(connection: Connection, rows: Iterable[Any]) -> list[Incident]:
    incidents = [dict(row._mapping) for row in rows]
    copies: dict[int, list[QueueCopy]] = {values["id"]: [] for values in incidents}
    ids = list(copies)
    table = tables.queue_copy
    for start in range(0, len(ids), IDS_PER_QUERY):
        some = ids[start : start + IDS_PER_QUERY]
        query = sa.select(table).where(table.c.incident_id.in_(some)).order_by(table.c.id)
        for row in connection.execute(query):
            copies[row.incident_id].append(as_copy(row))
    for values in incidents:
        values["automatic"] = Automatic(values["automatic"]) if values["automatic"] else None
    return [Incident(**values, copies=tuple(copies[values["id"]])) for values in incidents]


def _like(glob: str) -> str:
    """A glob of `*` and `?` as a pattern of SQL's LIKE, with backslash as its escape."""
    escaped = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _ids_in_state(states: Collection[State]) -> sa.Select[Any]:
    """The ids of the incidents with one of these states, which is the least final one of their copies."""
    table = tables.queue_copy
    rank = sa.case({state.value: rank for rank, state in enumerate(BY_FINALITY)}, value=table.c.state)
    ranks = [rank for rank, state in enumerate(BY_FINALITY) if state in states]
    return sa.select(table.c.incident_id).group_by(table.c.incident_id).having(sa.func.min(rank).in_(ranks))
