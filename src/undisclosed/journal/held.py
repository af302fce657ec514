"""Held mail: the states of copies, requests to release or delete them, and the parts of a release Postfix accepted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from undisclosed.decision.obstacles import Obstacle
from undisclosed.incidents.records import (
    ADOPTED,
    OPEN,
    STEWARD,
    AcceptedPart,
    Event,
    NotFoundError,
    QueueCopy,
    ReleaseMode,
    Request,
    RequestState,
    State,
    Verb,
    clean,
)
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.filing import QUARANTINED
from undisclosed.journal.notices import add_notice, drop_due_notices
from undisclosed.journal.rows import add_event, as_record, now, portions
from undisclosed.journal.tables import UNANSWERED
from undisclosed.journal.write_transaction import EngineTransaction
from undisclosed.policy import Action


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
        leaves: datetime | None = None,
        body_hash: str | None = None,
        obstacle: Obstacle | None = None,
    ) -> bool:
        """Change a copy's state, with an event that names the state before. False if that was not as expected.

        Size, times, hash and obstacle change where they are given; a copy that is no longer open has no times.
        """
        table = tables.queue_copy
        with self._database.write() as connection:
            query = sa.select(table.c.incident_id, table.c.state).where(table.c.id == copy_id).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None or (expected is not None and State(row.state) not in _several(expected)):
                return False
            given = {"size": size, "until": until, "leaves": leaves, "body_hash": body_hash}
            values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
            if obstacle is not None:
                values |= {"obstacle": obstacle.text, "obstacle_kind": obstacle.kind.value}
            values["state"] = state.value
            if state not in OPEN:
                values |= {"until": None, "leaves": None}
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

    def release_modes(self, copy_ids: Collection[int]) -> dict[int, frozenset[ReleaseMode]]:
        """The modes of the parts that Postfix has answered with 250, by copy."""
        table = tables.accepted_part
        found: dict[int, frozenset[ReleaseMode]] = {}
        with self._database.read() as connection:
            for some in portions(copy_ids):
                query = sa.select(table.c.copy_id, table.c.mode).distinct().where(table.c.copy_id.in_(some))
                for row in connection.execute(query):
                    found[row.copy_id] = found.get(row.copy_id, frozenset()) | {row.mode}
        return found

    def with_event(self, copy_ids: Collection[int], what: str) -> set[int]:
        """Those of these copies that have such an event."""
        table = tables.event
        found: set[int] = set()
        with self._database.read() as connection:
            for some in portions(copy_ids):
                query = sa.select(table.c.copy_id).distinct().where(table.c.copy_id.in_(some), table.c.what == what)
                found.update(connection.scalars(query))
        return found

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

    def wait_for_person(self, copy: QueueCopy, why: str, *, actor: str = STEWARD, now: datetime) -> bool:
        """Let an open copy wait for a person, with an event: the steward's own request for it is withdrawn.

        A first notice that is due still becomes the one of a quarantine. False if the copy is not open, or its release
        has begun: only the steward itself, which releases, can then let it wait.
        """
        table = tables.queue_copy
        with self._database.write(notify=True) as connection:
            write = EngineTransaction(connection)
            query = sa.select(table).where(table.c.id == copy.id).with_for_update()
            row = connection.execute(query).one_or_none()
            stoppable = OPEN if actor == STEWARD else OPEN - {State.RELEASING}
            if row is None or State(row.state) not in stoppable:
                return False
            # The reason of a person who stopped it is not replaced by the failure of the release that they stopped.
            waits = row.waits if actor == STEWARD and row.waits not in (None, ADOPTED) else clean(why)
            connection.execute(sa.update(table).where(table.c.id == copy.id).values(waits=waits, leaves=None))
            _withdraw(connection, [copy.id])
            drop_due_notices(write, copy)
            add_notice(write, copy, QUARANTINED, now)
            event = Event(
                incident_id=copy.incident_id, copy_id=copy.id, at=now, actor=actor, what="waits for a person", why=why
            )
            add_event(write, event)
            return True

    def ask(
        self,
        copy_ids: Collection[int],
        *,
        verb: Verb,
        mode: ReleaseMode | None,
        actor: str,
        reason: str,
        not_before: datetime | None = None,
    ) -> list[Request]:
        """Ask the steward to release or delete these copies, with an event for each; returns the requests.

        One for each copy that is open and has no request without an answer: a request that the steward made for a rule,
        and has not begun, is withdrawn for that of a person.
        """
        values = _new_request(verb, mode, actor, reason, not_before)
        made: list[Request] = []
        with self._database.write(notify=True) as connection:
            for some in portions(copy_ids):
                if actor != STEWARD:
                    _withdraw(connection, some)
                rows = connection.execute(_ask(some, values)).all()
                made += [Request(id=row.id, incident_id=row.incident_id, copy_id=row.copy_id, **values) for row in rows]
            made.sort(key=lambda request: request.id)
            for request in made:
                add_event(EngineTransaction(connection), _asked(request))
        return made

    def withdraw(self, copy_ids: Collection[int], *, actor: str, reason: str) -> list[Request]:
        """Take back the requests of persons for these copies that no steward has taken, with an event for each.

        Whatever a rule says of the copies holds again.
        """
        table = tables.request
        withdrawn: list[Request] = []
        with self._database.write() as connection:
            for some in portions(copy_ids):
                theirs = table.c.copy_id.in_(some), table.c.state == "open", table.c.actor != STEWARD
                update = sa.update(table).where(*theirs).values(state="withdrawn").returning(table)
                withdrawn += [as_record(Request, row) for row in connection.execute(update)]
            _give_back(connection, [request.copy_id for request in withdrawn])
            for request in withdrawn:
                event = Event(
                    incident_id=request.incident_id,
                    copy_id=request.copy_id,
                    at=now(),
                    actor=actor,
                    what=f"request to {request.verb} withdrawn",
                    why=reason,
                    detail={"request": request.id},
                )
                add_event(EngineTransaction(connection), event)
        return withdrawn

    def requests(self, *, gateway: str) -> list[Request]:
        """The requests for copies of a gateway that are open, or that its steward has taken. The oldest first."""
        request, copy = tables.request, tables.queue_copy
        query = (
            sa.select(request)
            .join(copy, copy.c.id == request.c.copy_id)
            .where(request.c.state.in_(UNANSWERED), copy.c.gateway == gateway)
            .order_by(request.c.id)
        )
        with self._database.read() as connection:
            return [as_record(Request, row) for row in connection.execute(query)]

    def take(self, request_ids: Collection[int], *, gateway: str) -> set[int]:
        """Take open requests, and those that this gateway's steward took before it was interrupted.

        Returns the ids of those that it may carry out now: the others were withdrawn, or another steward has them.
        """
        table = tables.request
        mine = sa.or_(table.c.state == "open", sa.and_(table.c.state == "taken", table.c.taken_by == gateway))
        taken: set[int] = set()
        with self._database.write() as connection:
            for some in portions(request_ids):
                update = (
                    sa.update(table)
                    .where(table.c.id.in_(some), mine)
                    .values(state="taken", taken_by=gateway, taken_at=now())
                    .returning(table.c.id)
                )
                taken.update(connection.scalars(update))
        return taken

    def put_back(self, request_id: int) -> None:
        """Open a request again that was taken and failed: it is tried again, unless it is withdrawn before."""
        table = tables.request
        with self._database.write() as connection:
            update = sa.update(table).where(table.c.id == request_id, table.c.state == "taken")
            connection.execute(update.values(state="open", taken_by=None, taken_at=None))

    def answered(self, request_ids: Collection[int]) -> list[Request]:
        """Those of these requests that have an answer, the oldest first."""
        table = tables.request
        found: list[Request] = []
        with self._database.read() as connection:
            for some in portions(request_ids):
                query = sa.select(table).where(table.c.id.in_(some), table.c.state.not_in(UNANSWERED))
                found += [as_record(Request, row) for row in connection.execute(query.order_by(table.c.id))]
        return found

    def answer(self, request_id: int, state: RequestState, answer: str, *, actor: str = "steward") -> None:
        """Answer a request, with an event. Does nothing where it has an answer already: the first one is kept.

        After one of a person that was not carried out the steward's own is asked again, whose place it took: else the
        message would stay on hold, and its sender was told that it leaves. Not after a deletion that failed.
        """
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
            failed = state == "refused" or (state == "failed" and row.verb != "delete")
            if failed and row.actor != STEWARD:
                _give_back(connection, [row.copy_id])
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


def _withdraw(connection: Connection, copy_ids: Collection[int]) -> None:
    """Withdraw what the steward asked for itself for these copies, and has not begun: they no longer leave by then.

    The copies are locked first, in the order of ids, as by all who change them: else two could wait for each other.
    """
    table, copy = tables.request, tables.queue_copy
    connection.execute(sa.select(copy.c.id).where(copy.c.id.in_(copy_ids)).order_by(copy.c.id).with_for_update())
    mine = table.c.copy_id.in_(copy_ids), table.c.state == "open", table.c.actor == STEWARD
    withdrawn = list(
        connection.scalars(sa.update(table).where(*mine).values(state="withdrawn").returning(table.c.copy_id))
    )
    if withdrawn:
        connection.execute(sa.update(copy).where(copy.c.id.in_(withdrawn)).values(leaves=None))


def _give_back(connection: Connection, copy_ids: Collection[int]) -> None:
    """Ask for the release that the rule of each copy wants, unless the copy waits for a person or is asked for."""
    table, copy = tables.request, tables.queue_copy
    for row in connection.execute(sa.select(copy).where(copy.c.id.in_(copy_ids), copy.c.waits.is_(None))).all():
        mode = Action(row.action).effect.release_mode
        if mode is None:
            continue
        earlier = table.c.copy_id == row.id, table.c.actor == STEWARD
        leaves = connection.scalars(sa.select(table.c.not_before).where(*earlier).order_by(table.c.id.desc())).first()
        reason = f"the rule {row.rule!r} says {row.action}"
        values = _new_request("release", mode, STEWARD, reason, leaves)
        for made in connection.execute(_ask([row.id], values)).all():
            connection.execute(sa.update(copy).where(copy.c.id == row.id).values(leaves=leaves))
            add_event(EngineTransaction(connection), _asked(Request(**made._mapping, **values)))


def _new_request(
    verb: Verb, mode: ReleaseMode | None, actor: str, reason: str, not_before: datetime | None
) -> dict[str, Any]:
    """The values of an open request, without its copy."""
    return {
        "verb": verb,
        "mode": mode,
        "actor": clean(actor),
        "reason": clean(reason),
        "state": "open",
        "answer": None,
        "at": now(),
        "not_before": not_before,
        "taken_by": None,
        "taken_at": None,
    }


def _asked(request: Request) -> Event:
    detail: dict[str, Any] = {"request": request.id, "mode": request.mode}
    if request.not_before is not None:
        detail["not_before"] = request.not_before.isoformat()
    return Event(
        incident_id=request.incident_id,
        copy_id=request.copy_id,
        at=request.at,
        actor=request.actor,
        what=f"asked to {request.verb}",
        why=request.reason,
        detail=detail,
    )


def _ask(copy_ids: Collection[int], values: Mapping[str, Any]) -> sa.Executable:
    """One statement: a request for each of these copies that is open and has none without an answer."""
    request, copy = tables.request, tables.queue_copy
    unanswered = sa.exists().where(request.c.copy_id == copy.c.id, request.c.state.in_(UNANSWERED))
    columns = {name: sa.literal(value, request.c[name].type).label(name) for name, value in values.items()}
    wanted = sa.select(copy.c.incident_id, copy.c.id.label("copy_id"), *columns.values()).where(
        copy.c.id.in_(copy_ids), copy.c.state.in_([state.value for state in OPEN]), ~unanswered
    )
    return (
        sa.insert(request)
        .from_select(["incident_id", "copy_id", *columns], wanted.order_by(copy.c.id))
        .returning(request.c.id, request.c.incident_id, request.c.copy_id)
    )


def _several(states: State | Collection[State]) -> Collection[State]:
    return (states,) if isinstance(states, State) else states
