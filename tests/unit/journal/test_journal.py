"""The journal in SQLite and in PostgreSQL: records, merged incidents, requests, notices and pruning."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.factories import strangers, transaction
from support.journals import MakeJournal
from undisclosed.addresses import addresses
from undisclosed.incidents.records import (
    AcceptedPart,
    AmbiguousError,
    NotFoundError,
    State,
    UnrecordedMail,
    parts_for,
)
from undisclosed.journal import changes
from undisclosed.journal.journal import Journal
from undisclosed.policy import Action
from undisclosed.policy.actions import DELIVERED_TREATMENTS

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def unrecorded(**over: Any) -> UnrecordedMail:
    """Held mail that the steward found; each keyword replaces a field."""
    fields: dict[str, Any] = {
        "reference": "K7QF-3M2D",
        "gateway": "mx1.council.test",
        "queue_id": "4dX1c23kLmz9Q",
        "message_id": "<1@council.test>",
        "sender": "clerk@council.test",
        "recipients": 2,
        "arrived": NOON,
        "size": 4711,
        "automatic": False,
    }
    return UnrecordedMail(**{**fields, **over})


def test_a_transaction_is_read_back_as_it_was_recorded(journal: Journal) -> None:
    """All its fields, in the incident, its copy and the first event."""
    copy = journal.filing.record(transaction(obstacle="signed", login="clerk"))
    [incident] = journal.incidents.search()
    assert incident.copies == (copy,)
    assert (copy.gateway, copy.queue_id, copy.client) == ("mx1.council.test", "4dX1c23kLmz9Q", "127.0.0.1")
    assert (copy.state, copy.recipients, copy.arrived, copy.size, copy.until) == (State.PENDING, 2, NOON, None, None)
    assert (incident.reference, incident.at, incident.sender) == ("K7QF-3M2D", NOON, "clerk@council.test")
    assert (incident.rule, incident.action) == ("too many in sight", Action.QUARANTINE)
    assert (incident.count, incident.organisations, incident.named, incident.per_field) == (2, 2, 1, {"to": 2})
    assert (incident.subject, incident.obstacle, incident.automatic) == ("School admissions", "signed", False)
    assert incident.reason == "2 external addresses, the limit is 1"
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
    """The sender sent it again, and gets notices again. The reference finds the newest incident."""
    journal.filing.record(transaction())
    later = journal.filing.record(transaction(at=NOON + timedelta(minutes=61)))
    assert len(journal.incidents.search()) == 2
    assert journal.incidents.find("K7QF-3M2D").id == later.incident_id


def test_messages_without_an_id_are_never_merged(journal: Journal) -> None:
    """Postfix uses a short queue id again: another message then gets the same reference."""
    journal.filing.record(transaction(message_id=None))
    journal.filing.record(transaction(message_id=None))
    assert len(journal.incidents.search()) == 2


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


def test_incidents_are_filtered_and_the_newest_come_first(journal: Journal) -> None:
    """By sender (a glob in any case; % and _ are ordinary characters), rule, time, state and number."""
    for number, (sender, rule, treatment) in enumerate(
        [
            ("clerk@council.test", "a", "hold"),
            ("head_1@council.test", "b", "reject"),
            ("head-1@other.test", "b", "hold"),
        ]
    ):
        journal.filing.record(
            transaction(
                reference=f"2222-222{number + 2}",
                message_id=f"<{number}@council.test>",
                queue_id=f"4dX{number}",
                sender=sender,
                rule=rule,
                treatment=treatment,
                at=NOON + timedelta(hours=number),
            )
        )

    def found(**filters: Any) -> list[str]:
        return [incident.sender for incident in journal.incidents.search(**filters)]

    assert found() == ["head-1@other.test", "head_1@council.test", "clerk@council.test"]
    assert found(sender="*@COUNCIL.test") == ["head_1@council.test", "clerk@council.test"]
    assert found(sender="head_1@*") == ["head_1@council.test"]
    assert found(sender="%") == []
    assert found(rule="b", limit=1) == ["head-1@other.test"]
    assert found(since=NOON + timedelta(hours=1)) == ["head-1@other.test", "head_1@council.test"]
    assert found(states={State.REJECTED}) == ["head_1@council.test"]
    assert found(states={State.PENDING, State.REJECTED}) == found()


def test_an_incidents_state_is_that_of_its_least_final_copy(journal: Journal) -> None:
    """An incident is held while one copy is; the filter by state agrees."""
    first = journal.filing.record(transaction())
    second = journal.filing.record(transaction(gateway="mx2", queue_id="4dX2"))
    assert journal.held.set_state(first.id, State.RELEASED)
    assert journal.held.set_state(second.id, State.HELD)
    assert journal.incidents.find("K7QF").state is State.HELD
    assert [len(journal.incidents.search(states=[state])) for state in (State.HELD, State.RELEASED)] == [1, 0]
    assert journal.held.set_state(second.id, State.DELETED)
    assert journal.incidents.find("K7QF").state is State.RELEASED


@pytest.mark.parametrize("prefix", ["K7QF-3M2D", "k7qf3m2d", "K7", "k7qf-", " k7qf-3 "])
def test_a_reference_is_found_by_its_beginning(journal: Journal, prefix: str) -> None:
    """In any case, with and without the dash, with blanks around it."""
    journal.filing.record(transaction())
    journal.filing.record(transaction(reference="ZZZZ-2222", message_id="<2@council.test>"))
    assert journal.incidents.find(prefix).reference == "K7QF-3M2D"


@pytest.mark.parametrize("prefix", ["", "-", "X", "K7QF-3M2D2", "%", "_", "K7QF-3M2%", "'"])
def test_other_text_is_not_a_reference(journal: Journal, prefix: str) -> None:
    """Patterns of SQL and the empty text find no incident."""
    journal.filing.record(transaction())
    with pytest.raises(NotFoundError):
        journal.incidents.find(prefix)


def test_a_beginning_of_several_references_is_ambiguous(journal: Journal) -> None:
    """The error names them."""
    journal.filing.record(transaction())
    journal.filing.record(transaction(reference="K7QF-4444", message_id="<2@council.test>"))
    with pytest.raises(AmbiguousError, match="K7QF-3M2D, K7QF-4444"):
        journal.incidents.find("k7qf")


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


def test_held_mail_without_a_record_is_adopted_once(journal: Journal) -> None:
    """As quarantined by no rule; found again, it is the same copy."""
    copy = journal.filing.adopt(unrecorded())
    assert journal.filing.adopt(unrecorded()) == copy
    [incident] = journal.incidents.search()
    assert (incident.adopted, incident.rule, incident.action, incident.count) == (True, "", Action.QUARANTINE, 0)
    assert (copy.state, copy.size, copy.until) == (State.HELD, 4711, None)
    assert [event.actor for event in journal.incidents.events(incident.id)] == ["steward"]


def test_the_milters_record_of_adopted_mail_completes_it(journal: Journal) -> None:
    """A record that is filed after the steward has found the message adds no second copy.

    The copy is pending again: the steward's next round adds its notice, its release and the end of its hold.
    """
    found = journal.filing.adopt(unrecorded())
    copy = journal.filing.record(transaction())
    [incident] = journal.incidents.search()
    assert (copy, incident.copies) == (replace(found, state=State.PENDING), (copy,))
    assert (incident.adopted, incident.rule, incident.count) == (False, "too many in sight", 2)
    assert len(journal.incidents.exposed(incident.id)) == 2
    assert journal.filing.adopt(unrecorded()).id == copy.id


def test_the_record_of_adopted_mail_that_was_not_to_be_held_leaves_it_held(journal: Journal) -> None:
    """A person held it: its rule asks for no notice and no release of held mail."""
    found = journal.filing.adopt(unrecorded())
    assert journal.filing.record(transaction(treatment="warn")) == found


def test_the_record_of_adopted_mail_that_is_being_released_does_not_stop_the_release(journal: Journal) -> None:
    """Some of its recipients may have it already."""
    found = journal.filing.adopt(unrecorded())
    journal.held.set_state(found.id, State.RELEASING)
    assert journal.filing.record(transaction()).state is State.RELEASING


def test_accepted_parts_of_a_release_are_recorded_once(journal: Journal) -> None:
    """Recorded again, a part is left as it is; each copy has its own parts."""
    first, second = journal.filing.record(transaction()), journal.filing.record(transaction(queue_id="4dX2"))
    for places in ([1, 3], [2], [3]):
        journal.held.record_accepted(first.id, parts_for("split", places, 5))
    assert journal.held.accepted_parts(first.id) == {AcceptedPart("split", place, place, 5) for place in (1, 2, 3)}
    assert journal.held.accepted_parts(second.id) == set()


def test_a_reader_files_the_transactions_in_the_inbox(make_journal: MakeJournal) -> None:
    """So are transactions of a milter that was killed after it had put them; once, with several readers at a time."""
    make_journal().inbox.put([transaction()])
    readers = [make_journal() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda reader: reader.incidents.find("K7QF"), readers))
    assert [len(incident.copies) for incident in found] == [1] * 4
    [event] = readers[0].incidents.events(found[0].id)
    assert (event.actor, event.what) == ("milter", "recorded")
    assert readers[0].inbox.file() == 0


@pytest.mark.parametrize("form", ["hashed", "plain", "none"])
def test_a_filed_transaction_equals_one_that_was_recorded_at_once(make_journal: MakeJournal, form: str) -> None:
    """In every field; addresses in the form that the setting says."""
    journal = make_journal(addresses=form)
    put_down = transaction(visible=tuple(addresses("ann@home.example, bob@home.example")))
    journal.filing.record(put_down)
    other = replace(put_down, reference="ZZZZ-ZZZZ")
    journal.inbox.put([other])
    [second, first] = [journal.incidents.find("ZZZZ"), journal.incidents.find("K7QF")]
    assert replace(second, id=0, copies=(), reference="") == replace(first, id=0, copies=(), reference="")
    assert replace(second.copies[0], id=0, incident_id=0) == replace(first.copies[0], id=0, incident_id=0)
    assert journal.incidents.exposed(second.id) == journal.incidents.exposed(first.id)
    assert journal.incidents.events(second.id)[0].detail == journal.incidents.events(first.id)[0].detail


@pytest.mark.parametrize(("treatment", "state"), [("rewrite", State.NEVER_QUEUED), ("hold", State.NEVER_QUEUED)])
def test_a_message_that_postfix_did_not_get_is_marked(journal: Journal, treatment: str, state: State) -> None:
    """The record stays, with that state; another message with the same queue id is not changed."""
    one = transaction(treatment=treatment)
    journal.inbox.put([one])
    other = journal.filing.record(
        transaction(treatment=treatment, message_id="<other@council.test>", reference="ZZZZ-ZZZZ")
    )
    assert journal.inbox.mark_not_queued(one, "answered with a temporary failure")
    assert journal.incidents.find("K7QF").state is state
    assert journal.incidents.find("ZZZZ").copies[0].state is other.state
    assert not journal.inbox.mark_not_queued(one, "twice")


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
    assert [request.id for request in journal.held.requests(gateway="mx1.council.test", states=["done"])] == [
        everywhere.id
    ]
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
    [answered] = journals[0].held.requests(gateway=copy.gateway, states=["done", "failed"])
    assert answered.state == "done"


def test_a_notice_of_each_kind_is_due_once(journal: Journal) -> None:
    """Several copies make one notice; sent or suppressed, it is not due again."""
    copy = journal.filing.record(transaction())
    assert journal.notices.add(copy.incident_id, "held", NOON)
    assert not journal.notices.add(copy.incident_id, "held", NOON)
    assert journal.notices.add(copy.incident_id, "reminder", NOON + timedelta(days=13))
    assert journal.notices.due(NOON - timedelta(seconds=1)) == []
    [due] = journal.notices.due(NOON)
    assert (due.kind, due.state, due.sent_at) == ("held", "due", None)
    assert journal.notices.mark_sent(due.id)
    assert not journal.notices.mark_sent(due.id)
    assert not journal.notices.add(copy.incident_id, "held", NOON)
    [reminder] = journal.notices.due(NOON + timedelta(days=13))
    assert journal.notices.mark_suppressed(reminder.id, "the sender is automatic")
    assert journal.notices.due(NOON + timedelta(days=99)) == []
    assert [(event.what, event.why) for event in journal.incidents.events(copy.incident_id)[1:]] == [
        ("notice sent", ""),
        ("notice suppressed", "the sender is automatic"),
    ]


def test_an_event_is_kept_with_its_details(journal: Journal) -> None:
    """Text that is not UTF-8 is replaced."""
    copy = journal.filing.record(transaction())
    journal.held.add_event(copy.incident_id, copy.id, "steward", "sent twice", "no answer \udcff", recipients=3)
    event = journal.incidents.events(copy.incident_id)[-1]
    assert (event.copy_id, event.what, event.why, event.detail) == (
        copy.id,
        "sent twice",
        "no answer \ufffd",
        {"recipients": 3},
    )


def test_old_incidents_are_pruned_unless_mail_is_held(make_journal: MakeJournal) -> None:
    """With all their rows in other tables; an incident with held mail is kept at any age."""
    journal = make_journal(retention_days=30)
    for number in range(3):
        copy = journal.filing.record(
            transaction(
                reference=f"2222-222{number + 2}", message_id=f"<{number}@council.test>", queue_id=f"4dX{number}"
            )
        )
        journal.held.ask(copy.incident_id, verb="delete", mode=None, actor="ann", reason="", copy_id=copy.id)
        journal.notices.add(copy.incident_id, "held", NOON)
        journal.held.record_accepted(copy.id, parts_for("bcc", range(2), 2))
    journal.held.set_state(1, State.DELETED)
    journal.held.set_state(2, State.RELEASED)
    assert journal.prune(NOON + timedelta(days=30)) == 0
    assert journal.prune(NOON + timedelta(days=30, seconds=1)) == 2
    [left] = journal.incidents.search()
    assert left.id == 3
    assert (journal.incidents.events(1), journal.incidents.exposed(1), journal.held.accepted_parts(1)) == (
        [],
        [],
        set(),
    )
    assert [notice.incident_id for notice in journal.notices.due(NOON)] == [3]


def test_wait_ends_at_a_request(make_journal: MakeJournal) -> None:
    """A request by another process ends the wait at once; without one it lasts its whole time."""
    journal, other = make_journal(), make_journal()
    copy = journal.filing.record(transaction())
    assert journal.wait(30)  # the first one returns at once
    began = time.monotonic()
    assert not journal.wait(0.3)
    assert time.monotonic() - began >= 0.3
    with ThreadPoolExecutor() as pool:
        news = pool.submit(journal.wait, 30)
        other.held.ask(copy.incident_id, verb="delete", mode=None, actor="ann", reason="")
        assert news.result(10)
    assert not journal.wait(0)


def test_a_change_between_two_waits_is_not_missed(make_journal: MakeJournal) -> None:
    """A message recorded while the steward makes its round, or at the last moment of a wait, makes another round."""
    journal, other = make_journal(), make_journal()
    journal.wait(30)
    other.filing.record(transaction())
    assert journal.wait(10)


def test_a_change_during_the_query_of_a_wait_is_not_missed(
    make_journal: MakeJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In PostgreSQL its notification arrives with the answer to the query; psycopg dropped it before 3.2.4."""
    monkeypatch.setattr(changes, "PING_INTERVAL", 0.0)
    journal, other = make_journal(), make_journal()
    journal.wait(30)
    other.filing.record(transaction())
    assert journal.wait(0)
