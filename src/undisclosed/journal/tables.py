"""The tables of the journal.

Until the first release a change here changes the first migration as well; an older journal is refused by its SHAPE.
After it, a change is a new file in `migrations/versions`, and a new HEAD; `journal upgrade` then records the new SHAPE.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

from undisclosed.incidents.records import OPEN, RequestState

HEAD: Final = "0001"
"""The schema version that this code reads and writes."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite has no type for it and keeps text without an offset."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _id() -> Column[Any]:
    # Only INTEGER PRIMARY KEY numbers itself in SQLite.
    return Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)


def _incident_id() -> Column[Any]:
    return Column("incident_id", ForeignKey("incident.id", ondelete="CASCADE"), nullable=False)


def _copy_id(*, nullable: bool) -> Column[Any]:
    return Column("copy_id", ForeignKey("queue_copy.id", ondelete="CASCADE"), nullable=nullable)


incident = Table(
    "incident",
    metadata,
    _id(),
    Column("reference", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("sender", Text, nullable=False),
    Column("author", Text),
    Column("login", Text, nullable=False),
    Column("message_id", Text),
    Column("count", Integer, nullable=False),
    Column("organisations", Integer, nullable=False),
    Column("named", Integer, nullable=False),
    Column("per_field", JSON, nullable=False),
    Column("subject", Text),
    Column("automatic", Text),
    Index(None, "reference"),
    Index(None, "identity"),
    Index(None, "at"),
)

queue_copy = Table(
    "queue_copy",
    metadata,
    _id(),
    _incident_id(),
    Column("gateway", Text, nullable=False),
    Column("queue_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("client", Text),
    Column("recipients", Integer, nullable=False),
    Column("recipients_hash", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("obstacle", Text),
    Column("obstacle_kind", Text),
    Column("adopted", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("arrived", UtcDateTime, nullable=False),
    Column("size", BigInteger),
    Column("until", UtcDateTime),
    Column("leaves", UtcDateTime),
    Column("waits", Text),
    Column("confirmed", Boolean, nullable=False),
    Column("body_hash", Text),
    Column("repeat_of", BigInteger),
    Column("seen_seconds", Double, nullable=False),
    Column("seen_at_reminder", Double),
    Column("seen_at_until", Double),
    Index(None, "incident_id"),
    Index(None, "gateway", "state"),
    Index(None, "gateway", "queue_id"),
)

_OPEN_COPY: Final = queue_copy.c.state.in_(sorted(state.value for state in OPEN))

open_copy = Index(
    "uq_queue_copy_open",
    queue_copy.c.gateway,
    queue_copy.c.queue_id,
    queue_copy.c.message_id,
    unique=True,
    sqlite_where=_OPEN_COPY,
    postgresql_where=_OPEN_COPY,
)
"""One open copy for each queue file: with two, a release would send its message twice."""

exposed = Table(
    "exposed",
    metadata,
    Column("incident_id", ForeignKey("incident.id", ondelete="CASCADE"), primary_key=True),
    Column("address", Text, primary_key=True),
    Index(None, "address"),
)
"""The visible external addresses of an incident: keyed hashes, or the addresses themselves, or nothing."""

event = Table(
    "event",
    metadata,
    _id(),
    _incident_id(),
    _copy_id(nullable=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Index(None, "incident_id"),
    Index(None, "copy_id"),
)

request = Table(
    "request",
    metadata,
    _id(),
    _incident_id(),
    _copy_id(nullable=False),
    Column("verb", Text, nullable=False),
    Column("mode", Text),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("answer", Text),
    Column("at", UtcDateTime, nullable=False),
    Column("not_before", UtcDateTime),
    Column("taken_by", Text),
    Column("taken_at", UtcDateTime),
    Index(None, "incident_id"),
    Index(None, "copy_id"),
    Index(None, "state"),
)

UNANSWERED: Final[tuple[RequestState, ...]] = ("open", "taken")
"""The states of a request that has no answer yet."""

_UNANSWERED: Final = request.c.state.in_(UNANSWERED)

unanswered_request = Index(
    "uq_request_unanswered",
    request.c.copy_id,
    unique=True,
    sqlite_where=_UNANSWERED,
    postgresql_where=_UNANSWERED,
)
"""One request without an answer for each copy: two would be carried out one after the other."""

gateway = Table(
    "gateway",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("seen_at", UtcDateTime),
)

accepted_part = Table(
    "accepted_part",
    metadata,
    Column("copy_id", ForeignKey("queue_copy.id", ondelete="CASCADE"), primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("first", Integer, primary_key=True, autoincrement=False),
    Column("last", Integer, primary_key=True, autoincrement=False),
    Column("total", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)
"""The parts of a release that Postfix has answered with 250, which must not be sent again: recipients first to last of
total, by their places in the held file."""

notice = Table(
    "notice",
    metadata,
    _id(),
    _incident_id(),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("due", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    Column("addressee", Text),
    Column("sent_in", Text),
    Index(None, "incident_id"),
    Index(None, "state", "due"),
    Index(None, "addressee", "sent_at"),
    sqlite_autoincrement=True,
)
"""No id is used again, in SQLite either: the steward remembers a notice by its id until it is recorded as sent, and a
notice that took the place of that one meanwhile would be recorded as sent as well."""

notice_copy = Table(
    "notice_copy",
    metadata,
    Column("notice_id", ForeignKey("notice.id", ondelete="CASCADE"), primary_key=True),
    Column("copy_id", ForeignKey("queue_copy.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "copy_id"),
)
"""The copies that a notice tells of."""

inbox = Table(
    "inbox",
    metadata,
    _id(),
    Column("entry", JSON, nullable=False),
)
"""Transactions that the milter has put here while Postfix waited, until they are filed as incidents."""

journal_info = Table(
    "journal_info",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("probe", LargeBinary, nullable=False),
)
"""One row: the fingerprint of the key of all hashes, the SHAPE of the tables, and random bytes, which a probe changes
to see whether writing works."""


def shape_of(tables: MetaData) -> str:
    """A hash of all columns, independent of the order in which SQLAlchemy lists the tables."""
    in_order = [table for _, table in sorted(tables.tables.items())]
    columns = [
        f"{column} {type(column.type).__name__} {column.nullable} {column.primary_key}"
        for table in in_order
        for column in table.columns
    ]
    numbered = [table.name for table in in_order if table.dialect_options["sqlite"]["autoincrement"]]
    return hashlib.sha256("\n".join([*columns, *numbered]).encode()).hexdigest()[:16]


SHAPE: Final = shape_of(metadata)
"""A hash of all columns: tells apart the unreleased versions of the tables, which all have HEAD as their version."""
