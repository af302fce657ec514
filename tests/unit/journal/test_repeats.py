"""Copies that repeat another, and the one release that may begin; in SQLite and in PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.factories import transaction
from support.journals import MakeJournal
from undisclosed.incidents.records import STEWARD, QueueCopy, State, parts_for
from undisclosed.journal.journal import Journal
from undisclosed.journal.repeats import Begun


def held(journal: Journal, number: int, **over: object) -> QueueCopy:
    """A held copy of one message, on a gateway of its own."""
    copy = journal.filing.record(transaction(gateway=f"mx{number}", queue_id=f"4dX{number}", **over))
    journal.held.set_state(copy.id, State.HELD)
    return current(journal, copy)


def current(journal: Journal, copy: QueueCopy) -> QueueCopy:
    """A copy as it is now."""
    [found] = [one for one in journal.incidents.get(copy.incident_id).copies if one.id == copy.id]
    return found


def begin(journal: Journal, copy: QueueCopy, text: str = "one text") -> Begun:
    """Try to begin the release of a copy."""
    return journal.repeats.begin_release(copy, text, actor="ann", why="as bcc")


def test_a_copy_is_read_only_if_another_has_its_recipients(journal: Journal) -> None:
    """A message that comes once costs nothing; copies for other recipients are parts of one message, and no repeats."""
    first = held(journal, 1)
    held(journal, 2, recipients_hash="another")
    held(journal, 3, reference="ZZZZ-2222")
    assert journal.repeats.unread("mx1") == []
    repeat = held(journal, 4)
    assert [copy.id for copy in journal.repeats.unread("mx1")] == [first.id]
    assert [copy.id for copy in journal.repeats.unread("mx4")] == [repeat.id]
    journal.repeats.record_text(repeat, "one text")
    assert journal.repeats.unread("mx4") == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_first_copy_with_a_text_is_repeated_by_the_others(journal: Journal, order: tuple[int, ...]) -> None:
    """Whichever gateway reads its copy first; one with another text repeats nothing."""
    copies = [held(journal, number) for number in range(4)]
    journal.repeats.record_text(copies[3], "another text")
    for place in order:
        journal.repeats.record_text(copies[place], "one text")
    first = copies[0].id
    assert [current(journal, copy).repeat_of for copy in copies] == [None, first, first, None]
    assert journal.incidents.get(copies[0].incident_id).recipients == 2


def test_one_of_several_repeats_is_released(make_journal: MakeJournal) -> None:
    """Eight stewards at the same moment: one begins, the others wait, and then find its recipients served."""
    journals = [make_journal() for _ in range(8)]
    copies = [held(journals[0], number) for number in range(8)]
    for copy in copies:
        journals[0].held.ask([copy.id], verb="release", mode="bcc", actor="ann", reason="")
    start = threading.Barrier(8)

    def release(number: int) -> str:
        start.wait()
        return begin(journals[number], copies[number]).outcome

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(release, range(8)))
    assert sorted(outcomes) == ["begun"] + ["under way"] * 7
    chosen = copies[outcomes.index("begun")]
    journals[0].held.record_accepted(chosen.id, parts_for("bcc", range(2), 2))
    journals[0].held.set_state(chosen.id, State.RELEASED)
    others = [copy for copy in copies if copy.id != chosen.id]
    assert {begin(journals[0], copy).outcome for copy in others} == {"served"}


def test_a_release_that_served_only_some_serves_no_repeat(journal: Journal) -> None:
    """Its request was answered with a failure: a person must say how it goes on."""
    first, repeat = held(journal, 1), held(journal, 2)
    assert begin(journal, first).outcome == "begun"
    journal.held.record_accepted(first.id, parts_for("bcc", [0], 2))
    begun = begin(journal, repeat)
    assert (begun.outcome, begun.other and begun.other.id) == ("interrupted", first.id)
    journal.held.set_state(first.id, State.RELEASED)
    assert begin(journal, repeat).outcome == "begun"


def test_another_text_is_released_beside_the_first(journal: Journal) -> None:
    """The result names the first one, so that the answer can say it."""
    first, second = held(journal, 1), held(journal, 2)
    assert begin(journal, first).other is None
    journal.held.set_state(first.id, State.RELEASED)
    begun = begin(journal, second, "another text")
    assert (begun.outcome, begun.other and begun.other.id) == ("begun", first.id)
    assert current(journal, second).body_hash == "another text"


def test_a_copy_that_is_not_held_any_more_is_not_released(journal: Journal) -> None:
    """A person was faster."""
    copy = held(journal, 1)
    journal.held.set_state(copy.id, State.DELETED_BY_HAND)
    assert begin(journal, copy).outcome == "not held"


def test_the_steward_does_not_release_a_copy_that_waits_for_a_person(journal: Journal) -> None:
    """A person has stopped it after the steward took its own request; a person's own release begins."""
    copy = held(journal, 1)
    journal.held.wait_for_person(copy, "kept", actor="ann", now=copy.arrived)
    assert journal.repeats.begin_release(copy, "one text", actor=STEWARD, why="as bcc").outcome == "not held"
    assert begin(journal, copy).outcome == "begun"
