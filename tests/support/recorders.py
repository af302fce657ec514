"""A recorder for sessions without a worker and its journal: it stores nothing, or fails as with a broken journal."""

from __future__ import annotations

from undisclosed.incidents.records import JournalError, Transaction


class SessionRecorder:
    """Accepts every record; while `fails` is set, every record raises JournalError."""

    gateway = "mx1"

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    def record(self, _transaction: Transaction) -> None:
        """Raises JournalError while `fails` is set."""
        if self.fails:
            raise JournalError("the disk is full")

    def mark_not_queued(self, _transaction: Transaction, _why: str) -> None:
        """Do nothing: there is no record."""
