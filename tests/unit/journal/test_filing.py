"""Filing: transactions and found mail become copies of incidents; in SQLite and in PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.factories import strangers, transaction
from support.journals import MakeJournal
from undisclosed.addresses import addresses
from undisclosed.incidents.records import QueueCopy, State, UnrecordedMail
from undisclosed.journal.journal import Journal
from undisclosed.policy import Action
from undisclosed.policy.actions import DELIVERED_TREATMENTS

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def unrecorded(**over: Any) -> UnrecordedMail:
    """Held mail that the steward found; each keyword replaces a field."""
    fields: dict[str, Any] = {
        "reference": "K7QF-3M2D",
        "identity": "identity of K7QF-3M2D",
        "gateway": "mx1.council.test",
        "queue_id": "4dX1c23kLmz9Q",
        "message_id": "<1@council.test>",
        "sender": "clerk@council.test",
        "author": "clerk@council.test",
        "recipients": 2,
        "recipients_hash": "1f" * 16,
        "arrived": NOON,
        "size": 4711,
        "subject": "School admissions",
        "automatic": None,
    }
    return UnrecordedMail(**{**fields, **over})


def state_of(journal: Journal, copy: QueueCopy) -> State:
    """The state of a copy now."""
    [found] = [one for one in journal.incidents.get(copy.incident_id).copies if one.id == copy.id]
    return found.state


def test_a_transaction_is_read_back_as_it_was_recorded(journal: Journal) -> None:
    """All its fields, in the incident, its copy and the first event."""
    copy = journal.filing.record(transaction(obstacle="signed", login="clerk"))
    [incident] = journal.incidents.search()
    assert incident.copies == (copy,)
    assert (copy.gateway, copy.queue_id, copy.client) == ("mx1.council.test", "4dX1c23kLmz9Q", "127.0.0.1")
    assert (copy.state, copy.recipients, copy.arrived, copy.size, copy.until) == (State.PENDING, 2, NOON, None, None)
    assert (incident.reference, incident.at, incident.sender) == ("K7QF-3M2D", NOON, "clerk@council.test")
    assert (incident.author, incident.login, incident.message_id) == ("clerk@council.test", "clerk", "<1@council.test>")
    assert (copy.rule, copy.action, copy.obstacle) == ("too many in sight", Action.QUARANTINE, "signed")
    assert (incident.count, incident.organisations, incident.named, incident.per_field) == (2, 2, 1, {"to": 2})
    assert (incident.subject, incident.automatic, incident.adopted) == ("School admissions", None, False)
    assert copy.reason == "2 external addresses, the limit is 1"
    [event] = journal.incidents.events(incident.id)
    assert (event.copy_id, event.actor, event.what, event.at) == (copy.id, "milter", "recorded", NOON)
    assert event.detail["login"] == "clerk"
    assert event.detail["treatment"] == "hold"


@pytest.mark.parametrize(
    ("treatment", "state"),
    [
        ("hold", State.PENDING),
        ("reject", State.REJECTED),
        ("rewrite", State.DELIVERED),
        ("warn", State.DELIVERED),
        ("monitor", State.MONITORED),
    ],
)
def test_the_treatment_gives_a_copy_its_first_state(journal: Journal, treatment: str, state: State) -> None:
    """Held mail is pending until the steward has seen it in the hold queue."""
    assert journal.filing.record(transaction(treatment=treatment)).state is state
    assert (state is State.DELIVERED) is (treatment in DELIVERED_TREATMENTS)


def test_transactions_of_one_message_are_one_incident(journal: Journal) -> None:
    """They may come from several gateways, up to an hour earlier or later: clocks may differ."""
    first = journal.filing.record(transaction())
    second = journal.filing.record(
        transaction(gateway="mx2.council.test", queue_id="4dX2", at=NOON - timedelta(minutes=59))
    )
    third = journal.filing.record(transaction(queue_id="4dX3", at=NOON + timedelta(minutes=59)))
    [incident] = journal.incidents.search()
    assert incident.copies == (first, second, third)
    assert [event.copy_id for event in journal.incidents.events(incident.id)] == [first.id, second.id, third.id]


def test_the_same_message_hours_later_is_another_incident(journal: Journal) -> None:
    """An hour after the first transaction: the sender sent it again, and gets notices again."""
    journal.filing.record(transaction())
    journal.filing.record(transaction(queue_id="4dX2", at=NOON + timedelta(minutes=59)))
    journal.filing.record(transaction(queue_id="4dX3", at=NOON + timedelta(minutes=61)))
    assert [len(incident.copies) for incident in journal.incidents.search()] == [1, 2]
    assert len(journal.notices.due(NOON + timedelta(hours=2))) == 2


@pytest.mark.parametrize("treatment", ["hold", "reject", "rewrite"])
def test_recipients_of_a_repeated_transaction_are_counted_once(journal: Journal, treatment: str) -> None:
    """Milter reports, row 13: a client that got no answer sends again, and people send a refused message again."""
    for number, to in enumerate(("1f", "1f", "2e")):
        journal.filing.record(transaction(treatment=treatment, queue_id=f"4dX{number}", recipients_hash=to))
    [incident] = journal.incidents.search()
    assert (len(incident.copies), incident.recipients) == (3, 4)


def test_two_messages_with_one_message_id_are_two_incidents(journal: Journal) -> None:
    """Milter reports, row 8: "Trip" and "Exclusions", whose program gives each message the same Message-ID."""
    trip = journal.filing.record(transaction(subject="Trip"))
    exclusions = journal.filing.record(transaction(reference="ZZZZ-2222", queue_id="4dX2", subject="Exclusions"))
    assert trip.incident_id != exclusions.incident_id
    assert [notice.copies for notice in journal.notices.due(NOON)] == [(trip.id,), (exclusions.id,)]


def test_messages_without_an_id_are_never_merged(journal: Journal) -> None:
    """Postfix uses a short queue id again: another message then gets the same reference, and the first one is gone."""
    first, second = (journal.filing.record(transaction(message_id=None)) for _ in range(2))
    assert state_of(journal, first) is State.NEVER_QUEUED
    journal.held.set_state(second.id, State.HELD)
    journal.filing.record(transaction(message_id=None))
    assert state_of(journal, second) is State.GONE
    assert [notice.kind for notice in journal.notices.of(second.incident_id)] == ["held", "gone"]
    assert len(journal.incidents.search()) == 3


def test_a_queue_id_that_is_used_again_is_another_message(journal: Journal) -> None:
    """Even while the first one is still held."""
    first = journal.filing.record(transaction())
    second = journal.filing.record(transaction(reference="ZZZZ-2222", message_id="<2@council.test>"))
    assert first.incident_id != second.incident_id
    assert len(journal.incidents.search()) == 2


def test_gateways_that_record_at_the_same_moment_make_one_incident(make_journal: MakeJournal) -> None:
    """Eight at the same time, as when a relay sends one message through all; each records its copy."""
    journals = [make_journal() for _ in range(8)]
    start = threading.Barrier(8)

    def record(number: int) -> None:
        start.wait()
        journals[number].filing.record(transaction(gateway=f"mx{number}", queue_id=f"4dX{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(8)))
    [incident] = journals[0].incidents.search()
    assert sorted(copy.gateway for copy in incident.copies) == [f"mx{number}" for number in range(8)]


HOSTILE = "line\nend \0 \x1b[2J \udcff \u202e =cmd|' /C calc'!A0 '); DROP TABLE incident; --"


def test_any_text_of_a_message_can_be_recorded(journal: Journal) -> None:
    """Control characters and SQL are kept as text; NUL and bytes that are not UTF-8 are replaced."""
    everywhere = dict.fromkeys(("sender", "subject", "message_id", "client", "login", "reason", "obstacle"), HOSTILE)
    journal.filing.record(transaction(**everywhere, queue_id=HOSTILE))
    [incident] = journal.incidents.search()
    spelled = HOSTILE.replace("\0", "\ufffd").replace("\udcff", "\ufffd")
    assert (incident.sender, incident.subject, incident.message_id) == (spelled, spelled, spelled)
    assert incident.copies[0].queue_id == spelled


def test_a_long_subject_is_cut(journal: Journal) -> None:
    """A header field may have 60,000 bytes; a list shows the first few."""
    journal.filing.record(transaction(subject="s" * 60_000))
    assert journal.incidents.search()[0].subject == "s" * 998


@pytest.mark.parametrize("form", ["hashed", "plain", "none"])
def test_addresses_are_recorded_as_the_setting_says(make_journal: MakeJournal, form: str) -> None:
    """As keyed hashes, plainly, or not at all; two spellings of an address are one address."""
    journal = make_journal(addresses=form)
    visible = tuple(addresses("Parent1@FAMILY1.test, parent1@family1.test, parent2@family2.test"))
    copy = journal.filing.record(transaction(visible=visible))
    exposed = journal.incidents.exposed(copy.incident_id)
    if form == "plain":
        assert exposed == ["parent1@family1.test", "parent2@family2.test"]
    elif form == "none":
        assert exposed == []
    else:
        assert len(exposed) == len(set(exposed)) == 2
        assert all(len(text) == 64 and "parent" not in text for text in exposed)
        other = journal.filing.record(
            transaction(message_id="<2@council.test>", reference="ZZZZ-2222", visible=visible[:1])
        )
        assert journal.incidents.exposed(other.incident_id)[0] in exposed


def test_many_addresses_are_recorded_at_once(journal: Journal) -> None:
    """Older versions of SQLite take at most 999 parameters in one statement."""
    visible = tuple(address for text in strangers(2600) for address in addresses(text))
    copy = journal.filing.record(transaction(visible=visible, count=2600))
    assert len(journal.incidents.exposed(copy.incident_id)) == 2600


def test_subjects_are_left_out_where_the_setting_says_so(make_journal: MakeJournal) -> None:
    """`journal.subjects = false`."""
    journal = make_journal(subjects=False)
    journal.filing.record(transaction())
    assert journal.incidents.search()[0].subject is None


def test_held_mail_without_a_record_is_adopted_once(journal: Journal) -> None:
    """As quarantined by no rule; found again, it is the same copy."""
    copy = journal.filing.adopt(unrecorded())
    assert journal.filing.adopt(unrecorded()) == copy
    [incident] = journal.incidents.search()
    assert (incident.adopted, copy.rule, copy.action, incident.count) == (True, "", Action.QUARANTINE, 0)
    assert (copy.state, copy.size, copy.until) == (State.HELD, 4711, None)
    assert [event.actor for event in journal.incidents.events(incident.id)] == ["steward"]
    assert len(journal.notices.due(datetime.now(UTC))) == 1


def test_the_milters_record_of_adopted_mail_completes_it(journal: Journal) -> None:
    """A record that is filed after the steward has found the message adds no second copy.

    The copy is pending again: the steward's next round adds its notice, its release and the end of its hold.
    """
    found = journal.filing.adopt(unrecorded())
    copy = journal.filing.record(transaction())
    [incident] = journal.incidents.search()
    assert incident.copies == (copy,)
    assert (copy.id, copy.state, copy.waits, copy.size) == (found.id, State.PENDING, None, 4711)
    assert (incident.adopted, copy.rule, incident.count) == (False, "too many in sight", 2)
    assert [notice.kind for notice in journal.notices.due(datetime.now(UTC))] == ["held"]
    assert len(journal.incidents.exposed(incident.id)) == 2
    assert journal.filing.adopt(unrecorded()).id == copy.id


def test_the_record_of_adopted_mail_that_was_not_to_be_held_leaves_it_held(journal: Journal) -> None:
    """A person held it: its rule asks for no notice and no release of held mail."""
    found = journal.filing.adopt(unrecorded())
    warned = journal.filing.record(transaction(treatment="warn"))
    [held] = [copy for copy in journal.incidents.search()[0].copies if copy.id != warned.id]
    assert held == found


def test_the_record_of_adopted_mail_that_is_being_released_does_not_stop_the_release(journal: Journal) -> None:
    """Some of its recipients may have it already."""
    found = journal.filing.adopt(unrecorded())
    journal.held.set_state(found.id, State.RELEASING)
    assert journal.filing.record(transaction()).state is State.RELEASING


def test_a_record_that_comes_after_the_steward_found_the_message_adds_no_copy(journal: Journal) -> None:
    """Held-mail review, 10 A: the journal was locked for three seconds; a release then sent everything twice."""
    found = journal.filing.record_found(transaction(at=NOON - timedelta(seconds=2), action=Action.DELAY))
    late = journal.filing.record(transaction(action=Action.DELAY))
    [incident] = journal.incidents.search()
    assert (late.id, len(incident.copies), incident.adopted) == (found.id, 1, False)
    assert [(notice.kind, notice.copies) for notice in journal.notices.due(NOON)] == [("delayed", (found.id,))]


def test_the_steward_finds_the_milters_copy(journal: Journal) -> None:
    """The record was filed a moment before."""
    recorded = journal.filing.record(transaction())
    assert journal.filing.record_found(transaction(at=NOON - timedelta(seconds=2))) == recorded
    assert journal.filing.adopt(unrecorded(arrived=NOON - timedelta(seconds=2))) == recorded


def test_the_database_refuses_a_second_open_copy_of_a_queue_file(make_journal: MakeJournal) -> None:
    """Eight that record and find one held message at the same moment, with and without a Message-ID: one copy."""
    journals = [make_journal() for _ in range(8)]
    for message_id in ("<1@council.test>", None):
        start = threading.Barrier(8)

        def file(number: int, message_id: str | None = message_id, start: threading.Barrier = start) -> QueueCopy:
            filing = journals[number].filing
            start.wait()
            if number % 2:
                return filing.record_found(transaction(message_id=message_id))
            return filing.adopt(unrecorded(message_id=message_id))

        with ThreadPoolExecutor(8) as pool:
            ids = {copy.id for copy in pool.map(file, range(8))}
        assert len(ids) == 1


def test_found_mail_that_waits_is_told_like_a_quarantine(journal: Journal) -> None:
    """Mail of a delaying rule that the milter could not record: the steward must not send it alone."""
    found = journal.filing.record_found(transaction(action=Action.DELAY), waits="it has no record of the milter")
    assert (found.adopted, found.waits) == (True, "it has no record of the milter")
    assert [notice.kind for notice in journal.notices.due(datetime.now(UTC))] == ["held"]


def test_the_administrator_is_owed_a_notice_of_adopted_mail(journal: Journal) -> None:
    """From the moment it was found: it may have been on hold for weeks. A person held it, or the journal failed."""
    adopted = journal.filing.adopt(unrecorded())
    [notice] = journal.notices.due(datetime.now(UTC))
    assert (notice.kind, notice.copies) == ("held", (adopted.id,))
    assert datetime.now(UTC) - notice.due < timedelta(minutes=1)
    assert journal.incidents.search()[0].subject == "School admissions"


def test_the_sender_of_adopted_mail_is_told_once_the_milters_record_comes(journal: Journal) -> None:
    """The administrator was told before, since no rule seemed to hold the message."""
    journal.filing.adopt(unrecorded())
    [first] = journal.notices.due(datetime.now(UTC))
    journal.notices.mark_sent([first.id], "administrator", "<digest@council.test>", NOON)
    copy = journal.filing.record(transaction())
    assert [(notice.kind, notice.copies) for notice in journal.notices.due(NOON)] == [("held", (copy.id,))]
