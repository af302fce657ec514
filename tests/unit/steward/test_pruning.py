"""Old records are deleted only by a clock that can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from support.factories import transaction
from undisclosed import log
from undisclosed.journal.journal import Journal
from undisclosed.journal.migrate import upgrade
from undisclosed.policy.sections import JournalSection
from undisclosed.steward.pruning import DAY, Pruning

KEY = b"k" * 32
YEARS = timedelta(days=400)
"""Longer than `journal.retention_days`."""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal with one incident of now, and an event of now."""
    settings = JournalSection(url=f"sqlite:///{tmp_path / 'journal.db'}")
    upgrade(settings, KEY)
    with closing(Journal(settings, KEY)) as journal:
        copy = journal.filing.record(transaction(treatment="reject", at=datetime.now(UTC)))
        journal.held.add_event(copy.incident_id, copy.id, "ann", "looked")
        yield journal


def left(journal: Journal) -> int:
    """The number of incidents."""
    return len(journal.incidents.search())


def test_a_clock_that_is_ahead_at_the_start(journal: Journal) -> None:
    """Nothing is deleted for a day, though the round writes events with the wrong time; after that it is believed."""
    pruning, wrong = Pruning(journal, log.get()), datetime.now(UTC) + YEARS
    with capture_logs() as events:
        for hours in range(24):
            pruning.prune(wrong + timedelta(hours=hours), 1000.0 + hours * 3600)
            assert left(journal) == 1
    [event] = events
    assert (event["event"], event["log_level"]) == ("pruning_waits", "info")
    assert "400 days ahead of the newest event" in event["reason"]
    pruning.prune(wrong + timedelta(days=1), 1000.0 + DAY)
    assert left(journal) == 0


def test_a_clock_that_jumps_ahead_later(journal: Journal) -> None:
    """The steward has run for days, and its events have the wrong time: nothing is deleted (hostile review, 1 B)."""
    pruning, now = Pruning(journal, log.get()), datetime.now(UTC)
    for day in range(3):
        pruning.prune(now + timedelta(days=day), day * DAY)
    for second in (1, 15, 30):
        pruning.prune(now + YEARS, 2 * DAY + second)
        assert left(journal) == 1
    pruning.prune(now + timedelta(days=2), 2 * DAY + 45)
    pruning.prune(now + timedelta(days=4), 4 * DAY + 45)
    assert left(journal) == 1


def test_old_records_are_deleted_once_a_day(journal: Journal) -> None:
    """With a clock that goes on as the monotonic one does, at once and then each day."""
    pruning, now = Pruning(journal, log.get()), datetime.now(UTC)
    old = transaction(treatment="reject", at=now - YEARS, queue_id="4dX2", reference="2222-2222", identity="old")
    journal.filing.record(old)
    pruning.prune(now, 5.0)
    assert left(journal) == 1
    journal.filing.record(old)
    pruning.prune(now + timedelta(hours=23), 5.0 + 23 * 3600)
    assert left(journal) == 2
    pruning.prune(now + timedelta(days=1), 5.0 + DAY)
    assert left(journal) == 1


def test_an_empty_journal(tmp_path: Path) -> None:
    """There is no event to compare with, and nothing to delete."""
    settings = JournalSection(url=f"sqlite:///{tmp_path / 'empty.db'}")
    upgrade(settings, KEY)
    with closing(Journal(settings, KEY)) as empty, capture_logs() as events:
        Pruning(empty, log.get()).prune(datetime.now(UTC), 5.0)
    assert events == []
