"""The gateways that use the journal: their ids, the names of their hosts, and when their stewards were seen."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from undisclosed.incidents.records import GatewayRecord, clean
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.rows import as_record


class Gateways:
    """All gateways."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, gateway: str, name: str, seen_at: datetime | None = None) -> None:
        """Record a gateway under its host's name; with `seen_at`, that its steward makes rounds."""
        table = tables.gateway
        values = {"name": clean(name)} | ({"seen_at": seen_at} if seen_at is not None else {})
        with self._database.write() as connection:
            updated = connection.execute(sa.update(table).where(table.c.id == gateway).values(**values))
            if updated.rowcount == 0:
                connection.execute(sa.insert(table).values(id=gateway, **values))

    def all(self) -> dict[str, GatewayRecord]:
        """All gateways by their ids."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(tables.gateway))
            return {row.id: as_record(GatewayRecord, row) for row in rows}
