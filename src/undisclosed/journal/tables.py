"""The tables of the journal. A change here is a new file in `migrations/versions`, and a new HEAD."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

HEAD: Final = "0002"
"""The schema version that this code reads and writes."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """A moment in UTC, aware on our side; SQLite has no type for it and keeps text without an offset."""

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


def _incident() -> Column[Any]:
    return Column("incident_id", ForeignKey("incident.id", ondelete="CASCADE"), nullable=False)


def _copy(*, nullable: bool) -> Column[Any]:
    return Column("copy_id", ForeignKey("copy.id", ondelete="CASCADE"), nullable=nullable)


incident = Table(
    "incident",
    metadata,
    _id(),
    Column("reference", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("sender", Text, nullable=False),
    Column("message_id", Text),
    Column("rule", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("obstacle", Text),
    Column("obstacle_kind", Text),
    Column("count", Integer, nullable=False),
    Column("organisations", Integer, nullable=False),
    Column("named", Integer, nullable=False),
    Column("per_field", JSON, nullable=False),
    Column("subject", Text),
    Column("automatic", Boolean, nullable=False),
    Index(None, "reference"),
    Index(None, "at"),
)

copy = Table(
    "copy",
    metadata,
    _id(),
    _incident(),
    Column("gateway", Text, nullable=False),
    Column("queue_id", Text, nullable=False),
    Column("message_id", Text),
    Column("client", Text),
    Column("recipients", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("arrived", Moment, nullable=False),
    Column("size", BigInteger),
    Column("until", Moment),
    Index(None, "incident_id"),
    Index(None, "gateway", "state"),
    Index(None, "gateway", "queue_id"),
)

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
    _incident(),
    _copy(nullable=True),
    Column("at", Moment, nullable=False),
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
    _incident(),
    _copy(nullable=True),
    Column("wanted", Text, nullable=False),
    Column("way", Text),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("not_before", Moment),
    Index(None, "incident_id"),
    Index(None, "copy_id"),
    Index(None, "state"),
)

taken = Table(
    "taken",
    metadata,
    Column("copy_id", ForeignKey("copy.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Text, primary_key=True),
    Column("at", Moment, nullable=False),
)
"""The parts of a release that Postfix has answered 250 to: they are not sent again."""

notice = Table(
    "notice",
    metadata,
    _id(),
    _incident(),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("due", Moment, nullable=False),
    Column("sent_at", Moment),
    UniqueConstraint("incident_id", "kind"),
    Index(None, "state", "due"),
)

received = Table(
    "received",
    metadata,
    _id(),
    Column("entry", JSON, nullable=False),
)
"""Transactions that the milter has put down while Postfix waited, until they are filed as incidents."""

keeper = Table(
    "keeper",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, nullable=False),
    Column("probe", LargeBinary, nullable=False),
)
"""One row: the fingerprint of the key of all hashes, and what a probe writes to see whether writing works."""
