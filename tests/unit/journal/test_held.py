"""States of copies, accepted parts and requests; in SQLite and in PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.factories import transaction
from support.journals import MakeJournal
from undisclosed.incidents.records import (
    STEWARD,
    AcceptedPart,
    NotFoundError,
    QueueCopy,
    Request,
    State,
    parts_for,
)
from undisclosed.journal.journal import Journal
from undisclosed.policy import Action

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


def ask(journal: Journal, *copies: QueueCopy, **over: Any) -> list[Request]:
    """Ask for the release of these copies; each keyword replaces an argument."""
    wanted: dict[str, Any] = {"verb": "release", "mode": "bcc", "actor": "ann", "reason": "ok", **over}
    return journal.held.ask([copy.id for copy in copies], **wanted)


def test_a_request_reaches_the_gateway_that_has_the_copy(journal: Journal) -> None:
    """A command writes one for each copy that it showed; an answered one is not open."""
    first = journal.filing.record(transaction())
    second = journal.filing.record(transaction(gateway="mx2.council.test", queue_id="4dX2"))
    later = NOON + timedelta(minutes=5)
    here, there = ask(journal, second, first, not_before=later)
    assert [(one.copy_id, one.state, one.not_before) for one in (here, there)] == [
        (first.id, "open", later),
        (second.id, "open", later),
    ]
    assert journal.held.requests(gateway="mx1.council.test") == [here]
    assert journal.held.requests(gateway="mx2.council.test") == [there]
    assert journal.held.requests(gateway="mx3.council.test") == []
    journal.held.answer(here.id, "done", "one copy")
    assert journal.held.requests(gateway="mx1.council.test") == []
    assert [request.id for request in journal.held.answered([here.id, there.id])] == [here.id]
    assert [(event.actor, event.what, event.why) for event in journal.incidents.events(first.incident_id)[2:]] == [
        ("ann", "asked to release", "ok"),
        ("ann", "asked to release", "ok"),
        ("steward", "request to release done", "one copy"),
    ]
    with pytest.raises(NotFoundError):
        journal.held.answer(there.id + 1, "done", "")


def test_a_copy_has_one_request_without_an_answer(journal: Journal) -> None:
    """Held-mail review, 10 B: two would be carried out one after the other. A closed copy needs none."""
    first, second = journal.filing.record(transaction()), journal.filing.record(transaction(queue_id="4dX2"))
    [one] = ask(journal, first)
    assert [request.copy_id for request in ask(journal, first, second, actor="ben")] == [second.id]
    journal.held.answer(one.id, "refused", "no")
    journal.held.set_state(second.id, State.RELEASED)
    assert [request.copy_id for request in ask(journal, first, second)] == [first.id]


def test_a_person_supersedes_the_stewards_own_request(journal: Journal) -> None:
    """Unless it is being carried out; the steward's own never supersedes one of a person."""
    copy = journal.filing.record(transaction())
    [own] = ask(journal, copy, actor=STEWARD, not_before=NOON)
    [person] = ask(journal, copy, mode="split")
    assert ask(journal, copy, actor=STEWARD) == []
    assert [request.state for request in journal.held.answered([own.id])] == ["withdrawn"]
    assert journal.held.requests(gateway=copy.gateway) == [person]
    journal.held.answer(person.id, "failed", "no listener")
    assert journal.held.requests(gateway=copy.gateway) == []  # the rule is a quarantine
    [again] = ask(journal, copy, actor=STEWARD)
    assert journal.held.take([again.id], gateway=copy.gateway) == {again.id}
    assert ask(journal, copy) == []


@pytest.mark.parametrize("end", ["refused", "failed", "withdrawn"])
def test_a_persons_request_that_comes_to_nothing_gives_back_the_rules_own(journal: Journal, end: str) -> None:
    """Found by the model test: a delayed message stayed on hold after a request that the policy refused."""
    copy = journal.filing.record(transaction(action=Action.DELAY))
    ask(journal, copy, actor=STEWARD, not_before=NOON)
    [person] = ask(journal, copy, mode="unchanged")
    if end == "withdrawn":
        journal.held.withdraw([copy.id], actor="admin", reason="")
    else:
        journal.held.answer(person.id, "refused" if end == "refused" else "failed", "no")
    [own] = journal.held.requests(gateway=copy.gateway)
    assert (own.actor, own.mode, own.not_before, own.state) == (STEWARD, "bcc", NOON, "open")


def test_a_deletion_that_failed_does_not_give_it_back(journal: Journal) -> None:
    """The person wanted the message to go nowhere."""
    copy = journal.filing.record(transaction(action=Action.DELAY))
    [person] = ask(journal, copy, verb="delete", mode=None)
    journal.held.answer(person.id, "failed", "postsuper")
    assert journal.held.requests(gateway=copy.gateway) == []


def test_a_request_is_taken_once(make_journal: MakeJournal) -> None:
    """Eight stewards at the same time: one carries it out. Interrupted, that gateway's takes it up again."""
    journals = [make_journal() for _ in range(8)]
    [request] = ask(journals[0], journals[0].filing.record(transaction()))
    start = threading.Barrier(8)

    def take(number: int) -> set[int]:
        start.wait()
        return journals[number].held.take([request.id], gateway=f"mx{number}")

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    assert sorted(map(len, taken)) == [0] * 7 + [1]
    winner = next(number for number, ids in enumerate(taken) if ids)
    assert take_alone(journals[0], request, f"mx{winner}") == {request.id}
    assert take_alone(journals[0], request, "mx9") == set()
    [stored] = journals[0].held.requests(gateway="mx1.council.test")
    assert (stored.state, stored.taken_by, stored.taken_at is None) == ("taken", f"mx{winner}", False)


def take_alone(journal: Journal, request: Request, gateway: str) -> set[int]:
    """Take a request while nobody else does."""
    return journal.held.take([request.id], gateway=gateway)


def test_a_failed_request_is_put_back(journal: Journal) -> None:
    """It is tried again, and a person's request can supersede it meanwhile."""
    copy = journal.filing.record(transaction())
    [own] = ask(journal, copy, actor=STEWARD)
    journal.held.take([own.id], gateway=copy.gateway)
    journal.held.put_back(own.id)
    assert [(one.state, one.taken_by) for one in journal.held.requests(gateway=copy.gateway)] == [("open", None)]
    [person] = ask(journal, copy)
    assert journal.held.take([own.id, person.id], gateway=copy.gateway) == {person.id}


def test_a_request_answered_by_several_stewards_has_one_answer(make_journal: MakeJournal) -> None:
    """The first answer is kept, with one event; later answers change nothing."""
    journals = [make_journal() for _ in range(8)]
    copy = journals[0].filing.record(transaction())
    [request] = ask(journals[0], copy)
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


def test_the_reason_of_the_person_who_stopped_a_message_stays(journal: Journal) -> None:
    """The release that the steward had begun comes to nothing then, which is no reason of its own."""
    copy = journal.filing.record(transaction(action=Action.DELAY))
    journal.held.set_state(copy.id, State.HELD)
    assert journal.held.wait_for_person(copy, "kept by ann: stolen account", actor="ann", now=NOON)
    assert journal.held.wait_for_person(copy, "it waits for a person", now=NOON)
    assert journal.incidents.get(copy.incident_id).copies[0].waits == "kept by ann: stolen account"
    assert journal.held.wait_for_person(copy, "kept by ben", actor="ben", now=NOON)
    assert journal.incidents.get(copy.incident_id).copies[0].waits == "kept by ben"
