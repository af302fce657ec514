"""One copy for each held file, and nothing of one message carried over to another; with a real Postfix."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, NUMBERS, PARENTS, SENDER, Office, letter
from support.factories import transaction
from undisclosed.incidents.records import Incident, State, parts_for

DELAY = timedelta(seconds=30)

EVERYBODY = (*PARENTS[:3], COLLEAGUE)


@contextmanager
def under(office: Office, action: str) -> Iterator[Office]:
    """Another action for the rule, as an administrator changes it: milter and steward use the new file."""
    gateway = office.gateway
    gateway.configure(gateway.policy(action, hold={"delay": f"{DELAY.seconds}s"}))
    gateway.milter.reload()
    other = Office(gateway)
    try:
        yield other
    finally:
        other.journal.close()
        gateway.configure(gateway.policy("quarantine"))
        gateway.milter.reload()


def send(office: Office, number: int, **fields: str) -> bool:
    """Send a letter; whether Postfix accepted it."""
    return office.gateway.send(letter(number, **fields), sender=SENDER, to=EVERYBODY).accepted


def incidents(office: Office, number: int) -> list[Incident]:
    """The incidents about letters with this number, the oldest first."""
    found = office.journal.incidents.search()
    return [incident for incident in reversed(found) if incident.message_id == f"<letter-{number}@council.test>"]


def mark_told(office: Office, incident: Incident) -> None:
    """Mark the first notice of an incident as sent to its sender."""
    [first, *_] = office.journal.notices.of(incident.id)
    office.journal.notices.mark_sent([first.id], "sender", "<told@council.test>", datetime.now(UTC))


def owed(office: Office, incident: Incident) -> list[tuple[str, int]]:
    """The notices about an incident: kind, and number of copies that it tells of."""
    return [(notice.kind, len(notice.copies)) for notice in office.journal.notices.of(incident.id)]


@contextmanager
def locked(office: Office, seconds: float) -> Iterator[None]:
    """Somebody else, a backup perhaps, holds the journal's lock for so long; the block runs meanwhile."""
    path = office.context.policy.journal.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)) as database:
        database.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds, database.execute, ["COMMIT"])
        timer.start()
        try:
            yield
        finally:
            timer.join()


@pytest.mark.parametrize("seconds", [3.0, 3.4])
def test_a_locked_journal_makes_no_second_copy(office: Office, seconds: float) -> None:
    """Held-mail review, finding 10 A: locked between record and filing. A release then went to everybody twice."""
    number = next(NUMBERS)
    with Steward(office.gateway.config, directory=office.gateway.state):
        assert send(office, number)
        with locked(office, seconds):
            pass

        def is_held() -> bool:
            return [found.state for found in incidents(office, number)] == [State.HELD]

        until(is_held, what="the message to be held")
        [incident] = incidents(office, number)
        assert len(incident.copies) == 1
        done = office.gateway.command("held", "release", incident.reference, "--as", "bcc")
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(office.journal.incidents.get(incident.id).copies) == 1
    assert office.received() == dict.fromkeys(EVERYBODY, 1)


def test_a_record_that_comes_after_the_steward_adds_no_second_copy(office: Office) -> None:
    """Held-mail review, finding 10 A: the milter's disk was slow, and the steward had found the message before."""
    number = next(NUMBERS)
    with locked(office, 8):  # longer than the milter waits: it holds the message without a record
        assert send(office, number)
    office.round()
    until(lambda: office.journal.inbox.is_empty(), what="the record to be filed")
    office.round()
    [incident] = incidents(office, number)
    assert len(incident.copies) == 1
    assert office.answer_to(incident) == "done"
    assert office.received() == dict.fromkeys(EVERYBODY, 1)


def test_two_texts_with_one_message_id_are_two_messages(office: Office) -> None:
    """Milter reports, row 8: the release of "Trip" sent "Exclusions, confidential" too."""
    number = next(NUMBERS)
    assert send(office, number, Subject="Trip")
    assert send(office, number, Subject="Exclusions, confidential")
    office.round()
    trip, exclusions = incidents(office, number)
    assert (trip.subject, exclusions.subject) == ("Trip", "Exclusions, confidential")
    assert trip.reference != exclusions.reference
    assert owed(office, trip) == owed(office, exclusions) == [("held", 1)]
    assert office.answer_to(trip) == "done"
    assert (office.state(trip), office.state(exclusions)) == (State.RELEASED, State.HELD)
    assert office.received() == dict.fromkeys(EVERYBODY, 1)


@pytest.mark.parametrize("verb", ["release", "delete"])
def test_a_message_that_comes_after_the_end_of_the_first_is_told_of(office: Office, verb: str) -> None:
    """Milter reports, row 9, and a part that an upstream server hands over late: it was held without a word."""
    number = next(NUMBERS)
    assert send(office, number)
    office.round()
    [incident] = incidents(office, number)
    mark_told(office, incident)
    assert office.answer_to(incident, verb) == "done"
    assert office.gateway.send(letter(number), sender=SENDER, to=PARENTS[6:8]).accepted
    office.round()
    [incident] = incidents(office, number)
    assert [copy.state for copy in incident.copies] == [
        State.RELEASED if verb == "release" else State.DELETED,
        State.HELD,
    ]
    assert [kind for kind, _ in owed(office, incident)].count("held") == 2


def test_a_message_sent_again_under_another_rule_is_held_and_told_of(office: Office) -> None:
    """Held-mail review, finding 4: refused, then the rule was changed; it was held and deleted without a word."""
    number = next(NUMBERS)
    with under(office, "reject") as refusing:
        assert not send(refusing, number)
    assert send(office, number)
    office.round()
    [incident] = incidents(office, number)
    assert [copy.action.value for copy in incident.copies] == ["reject", "quarantine"]
    assert (incident.state, owed(office, incident)) == (State.HELD, [("held", 1)])


def test_a_delay_counts_from_the_arrival_of_the_copy(office: Office) -> None:
    """Held-mail review, finding 4: the second copy left after 0.3 s, and nobody could stop it."""
    number = next(NUMBERS)
    with under(office, "delay") as delaying:
        assert send(delaying, number)
        delaying.round()
        [incident] = incidents(delaying, number)
        mark_told(delaying, incident)
        assert delaying.answer_to(incident, "delete") == "done"
        back = timedelta(seconds=20)
        shift(delaying, incident, back)
        assert send(delaying, number)
        delaying.round()
        delaying.round(DELAY - back)
        [incident] = incidents(delaying, number)
        first, second = incident.copies
        assert second.leaves == second.arrived + DELAY
        assert (first.state, second.state) == (State.DELETED, State.HELD)
        assert owed(delaying, incident).count(("delayed", 1)) == 2
        delaying.round(DELAY + timedelta(seconds=1))
        assert delaying.state(incident) is State.RELEASED
    assert office.received() == dict.fromkeys(EVERYBODY, 1)


def shift(office: Office, incident: Incident, back: timedelta) -> None:
    """Let an incident and its copies have been recorded earlier."""
    path = office.context.policy.journal.url.removeprefix("sqlite:///")
    values: Mapping[str, Any] = {"at": _stored(incident.at - back), "id": incident.id}
    with closing(sqlite3.connect(path, timeout=10)) as database, database:
        database.execute("UPDATE incident SET at = :at WHERE id = :id", values)
        database.execute("UPDATE queue_copy SET arrived = :at WHERE incident_id = :id", values)


def _stored(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def test_a_message_without_a_message_id_has_one_copy(office: Office) -> None:
    """The steward and the milter see the same header, also where Postfix itself adds the field."""
    began = datetime.now(UTC)
    for fields in ({"Message-ID": ""}, {"Message-ID": "  "}):
        text = letter(next(NUMBERS), **fields).replace(b"Message-ID: \n", b"")
        assert office.gateway.send(text, sender=SENDER, to=EVERYBODY).accepted
    office.round()
    office.round()
    held = office.journal.incidents.search(since=began)
    assert [len(incident.copies) for incident in held] == [1, 1]
    assert [copy.state for incident in held for copy in incident.copies] == [State.HELD] * 2


def test_a_repeat_is_listed_as_such_and_released_once(office: Office) -> None:
    """Milter reports, row 13: a client that got no answer sent again; 24 recipients were listed, and all got two."""
    number = next(NUMBERS)
    assert send(office, number)
    assert send(office, number)
    office.round()
    office.round()
    [incident] = incidents(office, number)
    first, repeat = incident.copies
    assert (first.repeat_of, repeat.repeat_of) == (None, first.id)
    assert incident.recipients == len(EVERYBODY)
    assert owed(office, incident) == [("held", 2)]
    requests = office.ask_all(incident)
    with office.steward() as steward:
        for seconds in range(3):
            steward.round(datetime.now(UTC) + timedelta(seconds=seconds))
    assert [copy.state for copy in incidents(office, number)[0].copies] == [State.RELEASED, State.DELETED]
    answers = [office.answer(request) for request in requests]
    assert [state for state, _ in answers] == ["done", "done"]
    assert "it repeats the copy of" in answers[1][1]
    assert office.received() == dict.fromkeys(EVERYBODY, 1)
    assert office.on_hold() == []


def test_a_repeat_that_comes_after_the_release_is_not_sent(office: Office) -> None:
    """`split` and `delay` release by themselves, perhaps before the client sends again."""
    number = next(NUMBERS)
    with under(office, "split") as splitting:
        for _ in range(2):
            assert send(splitting, number)
            splitting.round()
            splitting.round()
        [incident] = incidents(splitting, number)
        assert [copy.state for copy in incident.copies] == [State.RELEASED, State.DELETED]
    assert office.received() == dict.fromkeys(EVERYBODY, 1)


@pytest.mark.parametrize("differs", ["text", "recipients"])
def test_a_copy_that_only_looks_like_a_repeat_is_sent(office: Office, differs: str) -> None:
    """With another text, which the command says, or for other recipients."""
    number = next(NUMBERS)
    assert send(office, number)
    text, to = letter(number), EVERYBODY
    if differs == "text":
        text += b"PS\n"
    else:
        to = (*PARENTS[1:3], COLLEAGUE)
    assert office.gateway.send(text, sender=SENDER, to=to).accepted
    office.round()
    office.round()
    [incident] = incidents(office, number)
    assert [copy.repeat_of for copy in incident.copies] == [None, None]
    first, second = office.ask_all(incident)
    office.round()
    assert ("its text differs from the copy of" in office.answer(second)[1]) is (differs == "text")
    assert "differs" not in office.answer(first)[1]
    assert office.received() == {person: 2 if person in to else 1 for person in EVERYBODY}


def test_a_repeat_waits_for_a_release_that_was_interrupted(office: Office) -> None:
    """Some recipients have the message: nobody but the first copy knows who."""
    number = next(NUMBERS)
    assert send(office, number)
    assert send(office, number)
    office.round()
    office.round()
    [incident] = incidents(office, number)
    first, repeat = incident.copies
    office.journal.held.record_accepted(first.id, parts_for("bcc", [0], len(EVERYBODY)))
    office.journal.held.set_state(first.id, State.RELEASING)
    [request] = office.journal.held.ask([repeat.id], verb="release", mode="bcc", actor="ann", reason="")
    office.round()
    state, why = office.answer(request)
    assert (state, "was interrupted" in why) == ("failed", True)
    assert office.received() == {}
    office.ask_all(incident)
    office.round()
    office.round()
    assert [copy.state for copy in incidents(office, number)[0].copies] == [State.RELEASED, State.DELETED]
    assert office.received() == dict.fromkeys(EVERYBODY[1:], 1)


def test_two_requests_for_one_held_file_send_it_once(office: Office) -> None:
    """Held-mail review, finding 10: a second copy of one queue file, however it came about, is not sent as well."""
    incident = office.held()
    [copy] = incident.copies
    other = office.journal.filing.record(
        transaction(
            gateway=copy.gateway, queue_id=copy.queue_id, message_id=None, at=copy.arrived, reference="2222-2222"
        )
    )
    office.journal.held.set_state(other.id, State.HELD, size=copy.size)
    first, second = office.journal.held.ask(
        [copy.id, other.id], verb="release", mode="bcc", actor="ann", reason="a test"
    )
    office.round()
    assert office.answer(first)[0] == "done"
    assert office.answer(second) == ("refused", "another request for the same held file is being carried out")
    assert office.received() == dict.fromkeys(EVERYBODY, 1)
