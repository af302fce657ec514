"""States of copies, accepted parts and requests; in SQLite and in PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from support.factories import transaction
from support.journals import MakeJournal
from undisclosed.incidents.records import (
    AcceptedPart,
    NotFoundError,
    State,
    parts_for,
)
from undisclosed.journal.journal import Journal

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_state_changes_only_from_the_expected_one(journal: Journal) -> None:
    """Two stewards cannot overtake each other; the event of each change has the state before."""
    copy = journal.filing.record(transaction())
    until = NOON + timedelta(days=14)
    assert journal.held.set_state(copy.id, State.HELD, expected=State.PENDING, size=4711, until=until)
    assert not journal.held.set_state(copy.id, State.HELD, expected=State.PENDING)
    [held] = journal.incidents.copies(gateway="mx1.council.test", states=[State.HELD])
    assert (held.size, held.until) == (4711, until)
    assert journal.held.set_state(
        copy.id, State.DELETED, expected={State.HELD, State.PENDING}, actor="ann", why="a test"
    )
    assert journal.incidents.copies(gateway="mx1.council.test", states=[State.HELD]) == []
    assert journal.incidents.copies(gateway="mx2.council.test", states=list(State)) == []
    [deleted] = journal.incidents.copies(gateway="mx1.council.test", states=list(State))
    assert (deleted.until, deleted.size) == (None, 4711)
    event = journal.incidents.events(copy.incident_id)[-1]
    assert (event.actor, event.what, event.why, event.detail) == ("ann", "deleted", "a test", {"before": "held"})
    assert not journal.held.set_state(copy.id + 1, State.HELD)


def test_accepted_parts_of_a_release_are_recorded_once(journal: Journal) -> None:
    """Recorded again, a part is left as it is; each copy has its own parts."""
    first, second = journal.filing.record(transaction()), journal.filing.record(transaction(queue_id="4dX2"))
    for places in ([1, 3], [2], [3]):
        journal.held.record_accepted(first.id, parts_for("split", places, 5))
    assert journal.held.accepted_parts(first.id) == {AcceptedPart("split", place, place, 5) for place in (1, 2, 3)}
    assert journal.held.accepted_parts(second.id) == set()


def test_a_request_reaches_the_gateway_that_has_the_copy(journal: Journal) -> None:
    """A request for all copies reaches both gateways, one for a copy only its own; an answered one is not open."""
    first = journal.filing.record(transaction())
    second = journal.filing.record(transaction(gateway="mx2.council.test", queue_id="4dX2"))
    later = NOON + timedelta(minutes=5)
    everywhere = journal.held.ask(
        first.incident_id, verb="release", mode="bcc", actor="ann", reason="ok", not_before=later
    )
    single = journal.held.ask(
        first.incident_id, copy_id=second.id, verb="delete", mode=None, actor="ann", reason="not that"
    )
    assert (everywhere.state, everywhere.not_before, everywhere.copy_id) == ("open", later, None)
    assert journal.held.requests(gateway="mx1.council.test") == [everywhere]
    assert journal.held.requests(gateway="mx2.council.test") == [everywhere, single]
    assert journal.held.requests(gateway="mx3.council.test") == []
    journal.held.answer(everywhere.id, "done", "two copies")
    assert journal.held.requests(gateway="mx1.council.test") == []
    assert [request.id for request in journal.held.answered([everywhere.id, single.id])] == [everywhere.id]
    assert [(event.actor, event.what, event.why) for event in journal.incidents.events(first.incident_id)[2:]] == [
        ("ann", "asked to release", "ok"),
        ("ann", "asked to delete", "not that"),
        ("steward", "request to release done", "two copies"),
    ]
    with pytest.raises(NotFoundError):
        journal.held.answer(single.id + 1, "done", "")


def test_a_request_answered_by_several_stewards_has_one_answer(make_journal: MakeJournal) -> None:
    """The first answer is kept, with one event; later answers change nothing."""
    journals = [make_journal() for _ in range(8)]
    copy = journals[0].filing.record(transaction())
    request = journals[0].held.ask(copy.incident_id, verb="release", mode="bcc", actor="ann", reason="ok")
    start = threading.Barrier(8)

    def answer(number: int) -> None:
        start.wait()
        journals[number].held.answer(request.id, "done", f"as bcc on mx{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(answer, range(8)))
    journals[0].held.answer(request.id, "failed", "too late")
    [event] = [event for event in journals[0].incidents.events(copy.incident_id) if event.what.startswith("request to")]
    assert event.what == "request to release done"
    [answered] = journals[0].held.answered([request.id])
    assert answered.state == "done"
