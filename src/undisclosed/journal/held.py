"""Held mail: the states of copies, requests to release or delete them, and the parts of a release Postfix accepted."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from undisclosed.incidents.records import (
    OPEN,
    AcceptedPart,
    Event,
    NotFoundError,
    ReleaseMode,
    Request,
    RequestState,
    State,
    Verb,
    clean,
)
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.rows import IDS_PER_QUERY, add_event, as_record, insert, now
from undisclosed.journal.write_transaction import EngineTransaction

UNANSWERED: Final[tuple[RequestState, ...]] = ("open",)
"""The states of a request that has no answer yet."""


class Held:
    """The records that the steward, the commands and the console write about held mail."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_event(
        self, incident_id: int, copy_id: int | None, actor: str, what: str, why: str = "", **detail: Any
    ) -> None:
        """Add an event to an incident, or to one of its copies."""
        event = Event(
            incident_id=incident_id, copy_id=copy_id, at=now(), actor=actor, what=what, why=why, detail=detail
        )
        with self._database.write() as connection:
            add_event(EngineTransaction(connection), event)

    def set_state(
        self,
        copy_id: int,
        state: State,
        *,
        actor: str = "steward",
        why: str = "",
        expected: State | Collection[State] | None = None,
        size: int | None = None,
        until: datetime | None = None,
    ) -> bool:
        """Change a copy's state, with an event that names the state before. False if that was not as expected.

        `size` and `until` change where they are given; a copy that is no longer open has no `until`.
        """
        table = tables.queue_copy
        with self._database.write() as connection:
            query = sa.select(table.c.incident_id, table.c.state).where(table.c.id == copy_id).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None or (expected is not None and State(row.state) not in _several(expected)):
                return False
            values: dict[str, Any] = {"state": state.value}
            if size is not None:
                values["size"] = size
            if until is not None or state not in OPEN:
                values["until"] = until
            connection.execute(sa.update(table).where(table.c.id == copy_id).values(**values))
            event = Event(
                incident_id=row.incident_id,
                copy_id=copy_id,
                at=now(),
                actor=actor,
                what=state.value,
                why=why,
                detail={"before": row.state},
            )
            add_event(EngineTransaction(connection), event)
            return True

    def accepted_parts(self, copy_id: int) -> set[AcceptedPart]:
        """The parts of a copy's release that Postfix has answered with 250."""
        table = tables.accepted_part
        with self._database.read() as connection:
            rows = connection.execute(sa.select(table).where(table.c.copy_id == copy_id))
            return {as_record(AcceptedPart, row) for row in rows}

    def record_accepted(self, copy_id: int, parts: Iterable[AcceptedPart]) -> None:
        """Record that Postfix has answered 250 to these parts. A part that is recorded already is left as it is."""
        table = tables.accepted_part
        with self._database.write() as connection:
            rows = connection.execute(sa.select(table).where(table.c.copy_id == copy_id))
            known = {as_record(AcceptedPart, row) for row in rows}
            for part in parts:
                if part not in known:
                    values = {"mode": part.mode, "first": part.first, "last": part.last, "total": part.total}
                    connection.execute(sa.insert(table).values(copy_id=copy_id, at=now(), **values))

    def ask(
        self,
        incident_id: int,
        *,
        verb: Verb,
        mode: ReleaseMode | None,
        actor: str,
        reason: str,
        copy_id: int | None = None,
        not_before: datetime | None = None,
    ) -> Request:
        """Ask the steward to release or delete held mail, with an event."""
        values: dict[str, Any] = {
            "incident_id": incident_id,
            "copy_id": copy_id,
            "verb": verb,
            "mode": mode,
            "actor": clean(actor),
            "reason": clean(reason),
            "state": "open",
            "answer": None,
            "at": now(),
            "not_before": not_before,
        }
        with self._database.write(notify=True) as connection:
            request_id = insert(EngineTransaction(connection), tables.request, values)
            detail: dict[str, Any] = {"request": request_id, "mode": mode}
            if not_before is not None:
                detail["not_before"] = not_before.isoformat()
            event = Event(
                incident_id=incident_id,
                copy_id=copy_id,
                at=values["at"],
                actor=actor,
                what=f"asked to {verb}",
                why=reason,
                detail=detail,
            )
            add_event(EngineTransaction(connection), event)
        return Request(id=request_id, **values)

    def requests(self, *, gateway: str) -> list[Request]:
        """The requests without an answer that concern a gateway: it has, or had, a copy they mean. The oldest first."""
        request, copy = tables.request, tables.queue_copy
        meant = sa.or_(request.c.copy_id == copy.c.id, request.c.copy_id.is_(None))
        concerns = sa.exists().where(copy.c.incident_id == request.c.incident_id, copy.c.gateway == gateway, meant)
        query = sa.select(request).where(request.c.state.in_(UNANSWERED), concerns).order_by(request.c.id)
        with self._database.read() as connection:
            return [as_record(Request, row) for row in connection.execute(query)]

    def answered(self, request_ids: Collection[int]) -> list[Request]:
        """Those of these requests that have an answer, the oldest first."""
        table = tables.request
        ids = sorted(request_ids)
        found: list[Request] = []
        with self._database.read() as connection:
            for start in range(0, len(ids), IDS_PER_QUERY):
                some = ids[start : start + IDS_PER_QUERY]
                query = sa.select(table).where(table.c.id.in_(some), table.c.state.not_in(UNANSWERED))
                found += [as_record(Request, row) for row in connection.execute(query.order_by(table.c.id))]
        return found

    def answer(self, request_id: int, state: RequestState, answer: str, *, actor: str = "steward") -> None:
        """Answer a request, with an event. Does nothing where it has an answer already: the first one is kept."""
        table = tables.request
        with self._database.write() as connection:
            # Two gateways may finish at the same time, and both would answer.
            query = sa.select(table).where(table.c.id == request_id).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no request {request_id}")
            if row.state not in UNANSWERED:
                return
            values = {"state": state, "answer": clean(answer)}
            connection.execute(sa.update(table).where(table.c.id == request_id).values(**values))
            event = Event(
                incident_id=row.incident_id,
                copy_id=row.copy_id,
                at=now(),
                actor=actor,
                what=f"request to {row.verb} {state}",
                why=answer,
                detail={"request": request_id},
            )
            add_event(EngineTransaction(connection), event)


def _several(states: State | Collection[State]) -> Collection[State]:
    return (states,) if isinstance(states, State) else states
