"""Reminders, and the time for which copies were seen held; in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from support.factories import transaction
from undisclosed.incidents.expiry import Seen, Told
from undisclosed.incidents.records import STEWARD, State
from undisclosed.journal.journal import Journal

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_the_seconds_seen_are_kept(journal: Journal) -> None:
    """A later steward goes on counting from them; other copies are left as they are."""
    first, second = journal.filing.record(transaction()), journal.filing.record(transaction(queue_id="4dX2"))
    assert Seen.of(first) == Seen(0.0, None, None)
    journal.expiring.record_seen({first.id: Seen(61.5, 1.25, None)})
    copies = journal.incidents.copies(gateway=first.gateway, states=list(State))
    assert {copy.id: Seen.of(copy) for copy in copies} == {first.id: Seen(61.5, 1.25, None), second.id: Seen.of(second)}
    journal.expiring.record_seen({first.id: Seen(62.0, None, 62.0)})
    assert Seen.of(journal.incidents.get(first.incident_id).copies[0]) == Seen(62.0, None, 62.0)


def test_a_reminder_can_be_owed_again(journal: Journal) -> None:
    """While one is due, a copy joins it; after it was sent, another is owed."""
    first, second = journal.filing.record(transaction()), journal.filing.record(transaction(queue_id="4dX2"))
    assert first.incident_id == second.incident_id
    for copy in (first, second, first):
        journal.expiring.add_reminder(copy, NOON)
    [notice] = [due for due in journal.notices.due(NOON) if due.kind == "reminder"]
    assert notice.copies == (first.id, second.id)
    assert journal.expiring.told([first.id], ["reminder"]) == {first.id: [Told("due", None)]}
    journal.notices.mark_sent([notice.id], "sender", "<n@council.test>", NOON)
    journal.expiring.add_reminder(second, NOON)
    told = journal.expiring.told([first.id, second.id], ["reminder"])
    assert [notice.state for notice in told[first.id]] == ["sent"]
    assert [notice.state for notice in told[second.id]] == ["sent", "due"]
    assert told[first.id][0].sent_at is not None


def test_only_the_kinds_that_are_asked_for(journal: Journal) -> None:
    """The first notice is a reminder only where mail is held for a day."""
    copy = journal.filing.record(transaction())
    assert journal.expiring.told([copy.id], ["reminder"]) == {copy.id: []}
    assert journal.expiring.told([copy.id], ["reminder", "held"]) == {copy.id: [Told("due", None, "held")]}
    assert journal.expiring.told([], ["reminder"]) == {}


def test_the_newest_event(journal: Journal) -> None:
    """None in an empty journal."""
    assert journal.expiring.newest_event() is None
    copy = journal.filing.record(transaction())
    journal.held.add_event(copy.incident_id, copy.id, "ann", "looked")
    journal.filing.record(transaction(queue_id="4dX2", identity="old", at=NOON))  # recorded last, and older
    newest = journal.expiring.newest_event()
    assert newest is not None
    assert abs(datetime.now(UTC) - newest).total_seconds() < 60


@pytest.mark.parametrize("other", ["ask", "wait_for_person"])
def test_nobody_waits_for_the_other(journal: Journal, other: str) -> None:
    """Held-mail review: persons and the steward change several copies at once, and locked them in different orders."""
    copies = [journal.filing.record(transaction(queue_id=f"4dX{number}")) for number in range(40)]
    ids = [copy.id for copy in copies]
    backwards = {copy_id: Seen(1.0, None, None) for copy_id in reversed(ids)}
    ask = {"verb": "release", "mode": "bcc", "reason": "a test"}

    def stop() -> None:
        for copy in copies:
            journal.held.wait_for_person(copy, "kept", actor="ann", now=NOON)

    for _ in range(10):
        journal.held.ask(ids, actor=STEWARD, **ask)  # type: ignore[arg-type]
        works: list[Callable[[], object]] = [lambda: journal.held.ask(ids, actor="ann", **ask)]  # type: ignore[arg-type]
        works += [lambda: journal.expiring.record_seen(backwards)] if other == "ask" else []
        works += [stop] if other == "wait_for_person" else []
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(work) for work in works]:
                done.result()
        journal.held.withdraw(ids, actor="ann", reason="a test")
