"""The journal of incidents, in SQLite or PostgreSQL.

`Journal` is imported when it is asked for: SQLAlchemy stays out of whatever only needs the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from undisclosed.records import (
    OPEN,
    AmbiguousError,
    Copy,
    Event,
    Incident,
    JournalError,
    NotFoundError,
    Notice,
    Request,
    State,
    Transaction,
    UnusableError,
    WrongKeyError,
    WrongVersionError,
)

if TYPE_CHECKING:
    from undisclosed.journal.journal import Journal

__all__ = [
    "OPEN",
    "AmbiguousError",
    "Copy",
    "Event",
    "Incident",
    "Journal",
    "JournalError",
    "NotFoundError",
    "Notice",
    "Request",
    "State",
    "Transaction",
    "UnusableError",
    "WrongKeyError",
    "WrongVersionError",
]


def __getattr__(name: str) -> Any:
    if name == "Journal":
        from undisclosed.journal.journal import Journal

        return Journal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
