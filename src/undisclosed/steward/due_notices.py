"""Adds notices that the steward owes to the journal; the first of a message is owed from its record on.

notices/dispatch.py sends them.
"""

from __future__ import annotations

from datetime import datetime

from undisclosed.incidents.records import NoticeKind, QueueCopy
from undisclosed.journal.journal import Journal


class DueNotices:
    """Adds each kind of notice once for each copy.

    Remembers what was added, so that a round need not ask the journal about every held message.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._added: set[tuple[int, NoticeKind]] = set()

    def add(self, copy: QueueCopy, kind: NoticeKind, now: datetime) -> None:
        """Owe a notice about a copy, unless that was added before."""
        if (copy.id, kind) not in self._added:
            self._journal.notices.add(copy, kind, now)
            self._added.add((copy.id, kind))

    def forget(self) -> None:
        """Empty the memory, so that it does not grow for ever: the journal refuses a second notice of one kind."""
        self._added.clear()
