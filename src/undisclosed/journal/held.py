"""Dealing with held mail: the states of copies, what is asked for, and what senders are to be told."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from undisclosed.incidents.records import (
    OPEN,
    NotFoundError,
    Notice,
    NoticeKind,
    Request,
    RequestState,
    State,
    Wanted,
    Way,
    clean,
)
from undisclosed.journal import tables
from undisclosed.journal.database import Base, as_record, inserted, now
from undisclosed.journal.inbox import Through

UNANSWERED: Final[tuple[RequestState, ...]] = ("open", "taken")
"""The states of a request of which nobody has said yet what became of it."""


class Dealing(Base):
    """What the steward, the commands and the console write."""

    def note(self, incident_id: int, copy_id: int | None, actor: str, what: str, why: str = "", **detail: Any) -> None:
        """Add an event."""
        with self._write() as connection:
            self._event(connection, incident_id, copy_id, actor, what, why, detail=detail)

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
        """Change a copy's state, and write an event that says from what. False if the state was not as expected.

        `size` and `until` are changed where they are given; a copy that is no longer open has no `until`.
        """
        table = tables.copy
        with self._write() as connection:
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
            self._event(connection, row.incident_id, copy_id, actor, state.value, why, detail={"before": row.state})
            return True

    def taken(self, copy_id: int) -> set[str]:
        """The parts of a copy's release that Postfix has answered 250 to."""
        table = tables.taken
        with self._read() as connection:
            return set(connection.scalars(sa.select(table.c.part).where(table.c.copy_id == copy_id)))

    def take(self, copy_id: int, part: str) -> None:
        """Remember that Postfix has answered 250 to this part. Once is enough; twice does no harm."""
        with self._write() as connection:
            known = sa.select(tables.taken.c.part).where(tables.taken.c.copy_id == copy_id, tables.taken.c.part == part)
            if connection.execute(known).first() is None:
                connection.execute(sa.insert(tables.taken).values(copy_id=copy_id, part=part, at=now()))

    def ask(
        self,
        incident_id: int,
        *,
        wanted: Wanted,
        way: Way | None,
        actor: str,
        reason: str,
        copy_id: int | None = None,
        not_before: datetime | None = None,
    ) -> Request:
        """Ask the steward to release or delete held mail; writes an event."""
        values: dict[str, Any] = {
            "incident_id": incident_id,
            "copy_id": copy_id,
            "wanted": wanted,
            "way": way,
            "actor": clean(actor),
            "reason": clean(reason),
            "state": "open",
            "at": now(),
            "not_before": not_before,
        }
        with self._write(notify=True) as connection:
            request_id = inserted(Through(connection), tables.request, values)
            detail: dict[str, Any] = {"request": request_id, "way": way}
            if not_before is not None:
                detail["not_before"] = not_before.isoformat()
            self._event(connection, incident_id, copy_id, actor, f"asked to {wanted}", reason, detail=detail)
        return Request(id=request_id, **values)

    def requests(self, *, gateway: str, states: Collection[RequestState] = UNANSWERED) -> list[Request]:
        """The requests that concern a gateway: it has, or had, a copy that they mean. The oldest first."""
        request, copy = tables.request, tables.copy
        meant = sa.or_(request.c.copy_id == copy.c.id, request.c.copy_id.is_(None))
        concerns = sa.exists().where(copy.c.incident_id == request.c.incident_id, copy.c.gateway == gateway, meant)
        query = sa.select(request).where(request.c.state.in_(list(states)), concerns).order_by(request.c.id)
        with self._read() as connection:
            return [as_record(Request, row) for row in connection.execute(query)]

    def answer(self, request_id: int, state: RequestState, why: str, *, actor: str = "steward") -> None:
        """Say what became of a request; writes an event. The first answer stands: does nothing if there is one."""
        table = tables.request
        with self._write() as connection:
            # Two gateways may be done at the same moment, and each then takes itself for the last one.
            query = sa.select(table).where(table.c.id == request_id).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no request {request_id}")
            if row.state not in UNANSWERED:
                return
            connection.execute(sa.update(table).where(table.c.id == request_id).values(state=state))
            what = f"request to {row.wanted} {state}"
            self._event(connection, row.incident_id, row.copy_id, actor, what, why, detail={"request": request_id})

    def add_notice(self, incident_id: int, kind: NoticeKind, due: datetime) -> bool:
        """Have the sender told once about this; False if that kind of notice exists already."""
        table = tables.notice
        with self._write(notify=True) as connection:
            Through(connection).serialise(f"notices of {incident_id}")
            known = sa.select(table.c.id).where(table.c.incident_id == incident_id, table.c.kind == kind)
            if connection.execute(known).first() is not None:
                return False
            connection.execute(sa.insert(table).values(incident_id=incident_id, kind=kind, state="due", due=due))
            return True

    def due_notices(self, now: datetime) -> list[Notice]:
        """The notices whose time has come, the oldest first."""
        table = tables.notice
        query = sa.select(table).where(table.c.state == "due", table.c.due <= now).order_by(table.c.due, table.c.id)
        with self._read() as connection:
            return [as_record(Notice, row) for row in connection.execute(query)]

    def notice_sent(self, notice_id: int, suppressed: bool = False, why: str = "") -> bool:
        """Say that a due notice was sent, or will not be; writes an event. False if it was not due any more."""
        table = tables.notice
        state = "suppressed" if suppressed else "sent"
        with self._write() as connection:
            query = sa.select(table).where(table.c.id == notice_id, table.c.state == "due").with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                return False
            connection.execute(sa.update(table).where(table.c.id == notice_id).values(state=state, sent_at=now()))
            self._event(connection, row.incident_id, None, "steward", f"notice {state}", why, detail={"kind": row.kind})
            return True


def _several(states: State | Collection[State]) -> Collection[State]:
    return (states,) if isinstance(states, State) else states
