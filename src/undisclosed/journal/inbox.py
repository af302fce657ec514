"""The milter's side of the journal: transactions are put here while Postfix waits, and filed as incidents later."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from undisclosed.incidents.records import State, Transaction
from undisclosed.journal import tables
from undisclosed.journal.database import Database
from undisclosed.journal.filing import Filing
from undisclosed.journal.held import Held


class Inbox:
    """Transactions that are not incidents yet."""

    def __init__(self, database: Database, filing: Filing, held: Held) -> None:
        self._database = database
        self._filing = filing
        self._held = held

    def put(self, transactions: Sequence[Transaction]) -> None:
        """Insert transactions, all or none, while Postfix waits. `file` makes incidents of them."""
        self._database.insert_fast(_PUT, [{"entry": self._filing.entry(transaction)} for transaction in transactions])

    def sync(self) -> None:
        """Return when all that was put is on the disk. Raises JournalError."""
        self._database.sync()

    def file(self, limit: int | None = None) -> int:
        """File transactions as incidents, the oldest first, at most `limit`; returns the number filed.

        After each it sleeps for as long as it held the lock: SQLite's busy handler polls, and a milter that waits for
        the lock would otherwise miss the gap.
        """
        filed, began = 0, time.monotonic()
        while filed != limit and self._file_oldest():
            filed += 1
            time.sleep(time.monotonic() - began)
            began = time.monotonic()
        return filed

    def mark_not_queued(self, transaction: Transaction, why: str) -> bool:
        """Record that Postfix does not have a message that was put; False if no copy of it is in its first state."""
        self.file()
        copy_id = self._filing.copy_in_first_state(transaction)
        return copy_id is not None and self._held.set_state(copy_id, State.NEVER_QUEUED, actor="milter", why=why)

    def is_empty(self) -> bool:
        """Whether every transaction is filed."""
        with self._database.read() as connection:
            return not connection.scalar(sa.select(sa.exists(sa.select(tables.inbox.c.id))))

    def probe(self) -> None:
        """Write a little, to see whether writing works. Raises JournalError."""
        self._database.probe()

    def close(self) -> None:
        """Close the connections of the whole journal: its parts share them."""
        self._database.close()

    def _file_oldest(self) -> bool:
        with self._database.write_fast() as transaction:
            transaction.lock("filing")
            row = transaction.first(_OLDEST, {})
            if row is None:
                return False
            self._filing.file_entry(transaction, row.entry)
            transaction.first(_REMOVE, {"filed": row.id})
            return True


_PUT: Final = sa.insert(tables.inbox).inline()

_OLDEST: Final = sa.select(tables.inbox).order_by(tables.inbox.c.id).limit(1)

_REMOVE: Final = sa.delete(tables.inbox).where(tables.inbox.c.id == sa.bindparam("filed"))
