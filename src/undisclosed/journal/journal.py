"""The journal: incidents, their events, the requests made of them, and the notices due about them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from undisclosed.addresses import Address
from undisclosed.journal import database, tables
from undisclosed.message import REFERENCE_LETTERS
from undisclosed.policy import Action
from undisclosed.records import (
    BY_FINALITY,
    MERGE_WITHIN,
    OPEN,
    AmbiguousError,
    Copy,
    Event,
    Incident,
    JournalError,
    NotFoundError,
    Notice,
    NoticeKind,
    Outcome,
    Request,
    RequestState,
    State,
    Transaction,
    Wanted,
    Way,
    WrongKeyError,
    WrongVersionError,
    clean,
    cleaned,
)
from undisclosed.sections import Journal as Settings

R = TypeVar("R", Copy, Event, Request, Notice)

FIRST_STATE: Final[dict[Outcome, State]] = {
    "hold": State.PENDING,
    "reject": State.REJECTED,
    "rewrite": State.DELIVERED,
    "warn": State.DELIVERED,
    "monitor": State.MONITORED,
}
"""The state of a copy when it is recorded."""

AT_ONCE: Final = 500
"""Values in one IN (…): SQLite takes at most 32,766 parameters, and older ones 999."""


class Journal:
    """Incidents in SQLite or PostgreSQL.

    Makes its engine at first use: after the fork of the process that uses it. Every method is one short transaction,
    may be called from any thread, and raises JournalError when the database cannot be reached, read or written;
    nothing waits longer than about 2 s for it.
    """

    def __init__(self, settings: Settings, key: bytes) -> None:
        self._settings = settings
        self._key = key
        self._engine: sa.Engine | None = None
        self._waiter: Any = None

    # -- the database itself

    def upgrade(self) -> None:
        """Make the tables, or bring them to this version. Raises JournalError, and then has changed nothing."""
        from undisclosed.journal import upgrade

        upgrade.upgrade(self._settings.url, fingerprint(self._key))

    def check(self) -> None:
        """Raises WrongVersionError, WrongKeyError, or JournalError where the database cannot be reached."""
        with self._read() as connection:
            self._verify(connection)

    def probe(self) -> None:
        """Write a little, to see whether writing works again. Raises JournalError."""
        import os

        with self._write() as connection:
            connection.execute(sa.update(tables.keeper).values(probe=os.urandom(PROBE_BYTES)))

    def close(self) -> None:
        """Give up every connection."""
        if self._waiter is not None:
            self._waiter.close()
            self._waiter = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    # -- what happened

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

    def incidents(
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
            query = query.where(sa.func.lower(table.c.sender).like(_like(sender.lower()), escape="\\"))
        if rule is not None:
            query = query.where(table.c.rule == rule)
        if since is not None:
            query = query.where(table.c.at >= since)
        if states is not None:
            query = query.where(table.c.id.in_(_ids_in_state(states)))
        with self._read() as connection:
            return self._with_copies(connection, connection.execute(query))

    def incident(self, incident_id: int) -> Incident:
        """One incident. Raises NotFoundError."""
        with self._read() as connection:
            rows = connection.execute(sa.select(tables.incident).where(tables.incident.c.id == incident_id))
            if found := self._with_copies(connection, rows):
                return found[0]
        raise NotFoundError(f"there is no incident {incident_id}")

    def find(self, prefix: str) -> Incident:
        """The incident whose reference begins like this, in any case, with the dash or without.

        Raises NotFoundError; AmbiguousError where there are several. Of several with the whole reference (the same
        message after more than an hour), the newest.
        """
        letters = "".join(char for char in prefix.upper() if char in REFERENCE_LETTERS)
        if not letters or len(letters) != len(prefix.replace("-", "").strip()):
            raise NotFoundError(f"{prefix!r} is no reference, nor the beginning of one")
        wanted = letters if len(letters) <= 4 else f"{letters[:4]}-{letters[4:]}"
        column = tables.incident.c.reference
        query = sa.select(column, sa.func.max(tables.incident.c.id)).where(column.like(f"{wanted}%"))
        with self._read() as connection:
            found = connection.execute(query.group_by(column).order_by(column).limit(4)).all()
            if not found:
                raise NotFoundError(f"no incident has a reference that begins with {wanted}")
            if len(found) > 1:
                some = ", ".join(row[0] for row in found[:3])
                more = ", …" if len(found) > 3 else ""
                raise AmbiguousError(f"several incidents have a reference that begins with {wanted}: {some}{more}")
            rows = connection.execute(sa.select(tables.incident).where(tables.incident.c.id == found[0][1]))
            return self._with_copies(connection, rows)[0]

    def exposed(self, incident_id: int) -> list[str]:
        """The visible external addresses as they are recorded: as written, or hashed, or none."""
        table = tables.exposed
        query = sa.select(table.c.address).where(table.c.incident_id == incident_id).order_by(table.c.address)
        with self._read() as connection:
            return list(connection.scalars(query))

    def events(self, incident_id: int) -> list[Event]:
        """What was done to an incident, in order."""
        table = tables.event
        query = sa.select(table).where(table.c.incident_id == incident_id).order_by(table.c.id)
        with self._read() as connection:
            return [_record(Event, row) for row in connection.execute(query)]

    def note(self, incident_id: int, copy_id: int | None, actor: str, what: str, why: str = "", **detail: Any) -> None:
        """Add an event."""
        with self._write() as connection:
            self._event(connection, incident_id, copy_id, actor, what, why, detail=detail)

    # -- copies

    def copies(self, *, gateway: str, states: Collection[State]) -> list[Copy]:
        """The copies of a gateway in these states, the oldest first."""
        table = tables.copy
        query = sa.select(table).where(table.c.gateway == gateway, table.c.state.in_(list(states)))
        with self._read() as connection:
            return [_copy(row) for row in connection.execute(query.order_by(table.c.arrived, table.c.id))]

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
                connection.execute(sa.insert(tables.taken).values(copy_id=copy_id, part=part, at=_now()))

    # -- requests

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
            "at": _now(),
            "not_before": not_before,
        }
        with self._write(notify=True) as connection:
            request_id = _inserted(connection, tables.request, values)
            detail: dict[str, Any] = {"request": request_id, "way": way}
            if not_before is not None:
                detail["not_before"] = not_before.isoformat()
            self._event(connection, incident_id, copy_id, actor, f"asked to {wanted}", reason, detail=detail)
        return Request(id=request_id, **values)

    def requests(self, *, gateway: str, states: Collection[RequestState] = ("open", "taken")) -> list[Request]:
        """The requests that concern a gateway: it has, or had, a copy that they mean. The oldest first."""
        request, copy = tables.request, tables.copy
        meant = sa.or_(request.c.copy_id == copy.c.id, request.c.copy_id.is_(None))
        concerns = sa.exists().where(copy.c.incident_id == request.c.incident_id, copy.c.gateway == gateway, meant)
        query = sa.select(request).where(request.c.state.in_(list(states)), concerns).order_by(request.c.id)
        with self._read() as connection:
            return [_record(Request, row) for row in connection.execute(query)]

    def answer(self, request_id: int, state: RequestState, why: str, *, actor: str = "steward") -> None:
        """Say what became of a request; writes an event."""
        table = tables.request
        with self._write() as connection:
            row = connection.execute(sa.select(table).where(table.c.id == request_id)).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no request {request_id}")
            connection.execute(sa.update(table).where(table.c.id == request_id).values(state=state))
            what = f"request to {row.wanted} {state}"
            self._event(connection, row.incident_id, row.copy_id, actor, what, why, detail={"request": request_id})

    # -- notices

    def add_notice(self, incident_id: int, kind: NoticeKind, due: datetime) -> bool:
        """Have the sender told once about this; False if that kind of notice exists already."""
        table = tables.notice
        with self._write(notify=True) as connection:
            self._serialise(connection, f"notices of {incident_id}")
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
            return [_record(Notice, row) for row in connection.execute(query)]

    def notice_sent(self, notice_id: int, suppressed: bool = False, why: str = "") -> bool:
        """Say that a due notice was sent, or will not be; writes an event. False if it was not due any more."""
        table = tables.notice
        state = "suppressed" if suppressed else "sent"
        with self._write() as connection:
            query = sa.select(table).where(table.c.id == notice_id, table.c.state == "due").with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                return False
            connection.execute(sa.update(table).where(table.c.id == notice_id).values(state=state, sent_at=_now()))
            self._event(connection, row.incident_id, None, "steward", f"notice {state}", why, detail={"kind": row.kind})
            return True

    # -- upkeep

    def prune(self, now: datetime) -> int:
        """Delete incidents older than `journal.retention_days` of which nothing is held; returns how many."""
        table = tables.incident
        before = now - timedelta(days=self._settings.retention_days)
        still_open = sa.exists().where(
            tables.copy.c.incident_id == table.c.id, tables.copy.c.state.in_([state.value for state in OPEN])
        )
        old = sa.select(table.c.id).where(table.c.at < before, ~still_open).limit(AT_ONCE)
        pruned = 0
        while True:
            with self._write() as connection:
                ids = list(connection.scalars(old))
                if ids:
                    connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
            pruned += len(ids)
            if len(ids) < AT_ONCE:
                return pruned

    def wait(self, timeout: float) -> None:
        """Return when there may be new work, after `timeout` seconds at most; the first time at once."""
        from undisclosed.journal import waiting

        if self._waiter is None:
            self._waiter = waiting.waiter(self._settings.url)
        with self._told():
            try:
                self._waiter.wait(timeout)
            except BaseException:
                self._waiter.close()
                self._waiter = None
                raise

    # -- inner workings

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what the database's error means."""
        try:
            yield
        except (JournalError, LookupError):
            raise
        except database.ERRORS as error:
            raise database.explained(error, self._settings.url) from error

    @contextmanager
    def _begun(self, **options: Any) -> Iterator[Connection]:
        if self._engine is None:
            self._engine = database.engine(self._settings.url)
        with self._told(), self._engine.connect() as connection:
            connection = connection.execution_options(**options)
            with connection.begin():
                if "verified" not in connection.info:
                    self._verify(connection)
                    connection.info["verified"] = True
                yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._begun(writes=False) as connection:
            yield connection

    @contextmanager
    def _write(self, *, notify: bool = False) -> Iterator[Connection]:
        with self._begun(writes=True) as connection:
            yield connection
            if notify and connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_notify(:channel, '')"), {"channel": database.CHANNEL})

    def _verify(self, connection: Connection) -> None:
        version = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if version != tables.HEAD:
            newer = isinstance(version, str) and version > tables.HEAD
            fix = "upgrade undisclosed on this host too" if newer else "run `undisclosed journal upgrade`"
            raise WrongVersionError(
                f"the journal's tables have version {version}, and this undisclosed needs {tables.HEAD}: {fix}"
            )
        kept = connection.scalar(sa.select(tables.keeper.c.fingerprint))
        if kept != fingerprint(self._key):
            raise WrongKeyError(WRONG_KEY)

    @staticmethod
    def _serialise(connection: Connection, *names: str) -> None:
        """Let nobody else change what has these names until the transaction ends. In SQLite it is alone anyway."""
        if connection.dialect.name == "postgresql":
            for name in names:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

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
        return None if row is None else _copy(row)

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
        incident_id = _inserted(connection, tables.incident, {**_values(one), "at": one.at})
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
        copy_id = _inserted(connection, tables.copy, {**values, "state": state.value})
        return Copy(id=copy_id, **values)

    @staticmethod
    def _event(
        connection: Connection,
        incident_id: int,
        copy_id: int | None,
        actor: str,
        what: str,
        why: str,
        *,
        at: datetime | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        connection.execute(
            sa.insert(tables.event).values(
                incident_id=incident_id,
                copy_id=copy_id,
                at=at or _now(),
                actor=clean(actor),
                what=what,
                why=clean(why),
                detail=detail or {},
            )
        )

    @staticmethod
    def _with_copies(connection: Connection, rows: Iterable[Any]) -> list[Incident]:
        found = [dict(row._mapping) for row in rows]
        copies: dict[int, list[Copy]] = {row["id"]: [] for row in found}
        ids = list(copies)
        for start in range(0, len(ids), AT_ONCE):
            table = tables.copy
            query = sa.select(table).where(table.c.incident_id.in_(ids[start : start + AT_ONCE])).order_by(table.c.id)
            for row in connection.execute(query):
                copies[row.incident_id].append(_copy(row))
        return [Incident(**{**row, "action": Action(row["action"])}, copies=tuple(copies[row["id"]])) for row in found]


PROBE_BYTES: Final = 32 * 1024
"""Enough that a full disk shows: SQLite needs new pages in its log for it."""

WRONG_KEY: Final = (
    "the journal was made with another key than the one in journal.key_file: its hashes and references would not match;"
    " copy the key file from a gateway that uses this journal, or give this one a journal of its own"
)


def fingerprint(key: bytes) -> str:
    """What tells keys apart and says nothing of the key."""
    return hmac.digest(key, b"fingerprint of the journal's key", hashlib.sha256).hex()[:32]


def _now() -> datetime:
    return datetime.now(UTC)


def _several(states: State | Collection[State]) -> Collection[State]:
    return (states,) if isinstance(states, State) else states


def _like(glob: str) -> str:
    """A glob of `*` and `?` as SQL's LIKE has it, with backslash as its escape."""
    escaped = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _ids_in_state(states: Collection[State]) -> sa.Select[Any]:
    """The ids of the incidents whose state is one of these: the least final one of their copies."""
    table = tables.copy
    rank = sa.case({state.value: place for place, state in enumerate(BY_FINALITY)}, value=table.c.state)
    wanted = [place for place, state in enumerate(BY_FINALITY) if state in states]
    return sa.select(table.c.incident_id).group_by(table.c.incident_id).having(sa.func.min(rank).in_(wanted))


def _inserted(connection: Connection, table: sa.Table, values: dict[str, Any]) -> int:
    key = connection.execute(sa.insert(table).values(**values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _values(one: Transaction) -> dict[str, Any]:
    """The columns of an incident that a transaction fills, but for the time."""
    names = {column.name for column in tables.incident.columns} - {"id", "at"}
    return {name: getattr(one, name) for name in names} | {"action": one.action.value, "per_field": dict(one.per_field)}


def _copy(row: Any) -> Copy:
    return replace(_record(Copy, row), state=State(row.state))


def _record(kind: type[R], row: Any) -> R:
    return kind(**{name: getattr(row, name) for name in _names(kind)})


def _names(kind: type[Any]) -> Sequence[str]:
    return [field.name for field in fields(kind)]
