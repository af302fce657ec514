"""Notices, events and pruning of the journal; in SQLite and in PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.factories import transaction
from support.journals import MakeJournal
from undisclosed.incidents.records import STEWARD, State, parts_for
from undisclosed.journal.filing import CONFIRMATION_TIME
from undisclosed.journal.journal import Journal
from undisclosed.policy import Action

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def mark_sent(journal: Journal, *notice_ids: int) -> None:
    """Mark these notices as sent to their sender, in one message."""
    journal.notices.mark_sent(notice_ids, "sender", f"<{min(notice_ids)}@council.test>", NOON)


def test_the_messages_that_were_sent_are_counted_in_the_journal(journal: Journal) -> None:
    """A summary is one message; those to the administrator, and those of long ago, do not count."""
    copies = [journal.filing.record(transaction(reference=f"2222-000{n}", queue_id=f"4dX{n}")) for n in range(4)]
    ids = [notice.id for notice in journal.notices.due(NOON)]
    mark_sent(journal, *ids[:2])
    mark_sent(journal, ids[2])
    journal.notices.mark_sent(ids[3:], "administrator", "<digest@council.test>", NOON)
    assert journal.notices.told_since(NOON) == []
    told = journal.notices.told_since(NOON - timedelta(seconds=1))
    assert sorted((sent.message_id, sent.at, sent.incident_id) for sent in told) == [
        (f"<{ids[0]}@council.test>", NOON, copies[0].incident_id),
        (f"<{ids[2]}@council.test>", NOON, copies[2].incident_id),
    ]
    assert journal.notices.last_digest("mx1.council.test") == NOON
    assert journal.notices.last_digest("mx2.council.test") is None


def test_an_addressee_can_be_known_before_the_notice_is_sent(journal: Journal) -> None:
    """The administrator's digest comes once a day; until then the notice is due."""
    journal.filing.record(transaction())
    [notice] = journal.notices.due(NOON)
    journal.notices.assign(notice.id, "administrator")
    [assigned] = journal.notices.due(NOON)
    assert (assigned.addressee, assigned.sent_at) == ("administrator", None)
    assert journal.notices.last_digest("mx1.council.test") is None


def test_a_notice_of_each_kind_is_due_once(journal: Journal) -> None:
    """The first is owed from the record on; sent or suppressed, it is not due again."""
    copy = journal.filing.record(transaction())
    assert not journal.notices.add(copy, "held", NOON)
    assert journal.notices.add(copy, "reminder", NOON + timedelta(minutes=1))
    assert journal.notices.due(NOON - timedelta(seconds=1)) == []
    [due] = journal.notices.due(NOON)
    assert (due.kind, due.state, due.sent_at, due.addressee, due.copies) == ("held", "due", None, None, (copy.id,))
    journal.notices.mark_sent([due.id], "administrator", "<digest@council.test>", NOON)
    journal.notices.mark_sent([due.id], "sender", "<held@council.test>", NOON)
    assert not journal.notices.add(copy, "held", NOON)
    [reminder] = journal.notices.due(NOON + timedelta(minutes=1))
    journal.notices.mark_suppressed(reminder.id, "the sender is automatic")
    assert journal.notices.due(NOON + timedelta(days=99)) == []
    assert [
        (notice.kind, notice.state, notice.addressee, notice.sent_in) for notice in journal.notices.of(copy.incident_id)
    ] == [("held", "sent", "administrator", "<digest@council.test>"), ("reminder", "suppressed", None, None)]
    assert [(event.what, event.why) for event in journal.incidents.events(copy.incident_id)[1:]] == [
        ("notice sent", ""),
        ("notice suppressed", "the sender is automatic"),
    ]


@pytest.mark.parametrize(
    ("over", "kind"),
    [
        ({"action": Action.QUARANTINE}, "held"),
        ({"action": Action.DELAY}, "delayed"),
        ({"action": Action.SPLIT}, "split"),
        ({"action": Action.REWRITE, "treatment": "rewrite"}, "rewritten"),
        ({"action": Action.WARN, "treatment": "warn"}, "warned"),
        ({"action": Action.REJECT, "treatment": "reject"}, None),
        ({"action": Action.REJECT, "treatment": "hold"}, "held"),
        ({"action": Action.DELAY, "treatment": "monitor"}, None),
    ],
)
def test_the_first_notice_is_owed_with_the_record(journal: Journal, over: dict[str, Any], kind: str | None) -> None:
    """Held-mail review, finding 13: nobody has to look for it later. A refusal tells its sender itself."""
    copy = journal.filing.record(transaction(**over))
    assert [notice.kind for notice in journal.notices.of(copy.incident_id)] == ([kind] if kind else [])


def test_a_message_that_was_delivered_at_once_is_told_when_it_is_seen_to_be_queued(journal: Journal) -> None:
    """Held-mail review, finding 14: the milters behind ours have not answered yet. After ten seconds it is told."""
    copy = journal.filing.record(transaction(action=Action.REWRITE, treatment="rewrite"))
    assert journal.queue_facts.unconfirmed(copy.gateway) == [copy]
    assert journal.notices.due(NOON) == []
    assert [notice.kind for notice in journal.notices.due(NOON + CONFIRMATION_TIME)] == ["rewritten"]
    journal.queue_facts.confirm(copy, now=NOON)
    assert [notice.kind for notice in journal.notices.due(NOON)] == ["rewritten"]
    assert journal.queue_facts.unconfirmed(copy.gateway) == []
    [confirmed] = journal.incidents.get(copy.incident_id).copies
    assert confirmed.confirmed


def test_a_message_that_a_later_milter_refused_is_not_told(journal: Journal) -> None:
    """Held-mail review, finding 14: its sender has the refusal."""
    copy = journal.filing.record(transaction(action=Action.WARN, treatment="warn"))
    assert journal.queue_facts.never_queued(copy, "a milter behind ours refused it", now=NOON)
    assert not journal.queue_facts.never_queued(copy, "again", now=NOON)
    assert journal.incidents.get(copy.incident_id).state is State.NEVER_QUEUED
    assert journal.notices.of(copy.incident_id) == []


def test_a_copy_follows_the_new_name_of_its_queue_file(journal: Journal) -> None:
    """users-walk 4: Postfix renames queue files."""
    copy = journal.filing.record(transaction())
    journal.queue_facts.follow(copy, "1AEAE384132", 4321, "renamed", now=NOON)
    [now] = journal.incidents.get(copy.incident_id).copies
    assert (now.queue_id, now.size, now.state) == ("1AEAE384132", 4321, State.PENDING)
    assert journal.incidents.events(copy.incident_id)[-1].detail == {"before": copy.queue_id}


def test_a_copy_that_waited_for_the_lack_of_a_line_goes_on(journal: Journal) -> None:
    """It is pending again, and owes the notice of its rule. One that waits for another reason by now is left."""
    copy = journal.filing.record(transaction(action=Action.DELAY))
    journal.held.wait_for_person(copy, "late", now=NOON)
    journal.held.set_state(copy.id, State.HELD)
    [waiting] = journal.incidents.get(copy.incident_id).copies
    journal.queue_facts.act_again(replace(waiting, waits="another"), "came", now=NOON)
    assert journal.incidents.get(copy.incident_id).copies == (waiting,)
    journal.queue_facts.act_again(waiting, "came", now=NOON)
    [again] = journal.incidents.get(copy.incident_id).copies
    assert (again.waits, again.state) == (None, State.PENDING)
    assert [notice.kind for notice in journal.notices.due(NOON)] == ["delayed"]


def test_a_copy_joins_the_notice_of_another_that_is_open(journal: Journal) -> None:
    """An upstream server hands a message over in parts: one notice tells of all, also of a part that comes late."""
    first = journal.filing.record(transaction())
    second = journal.filing.record(transaction(queue_id="4dX2"))
    [notice] = journal.notices.due(NOON)
    assert notice.copies == (first.id, second.id)
    mark_sent(journal, notice.id)
    third = journal.filing.record(transaction(queue_id="4dX3"))
    [sent] = journal.notices.of(first.incident_id)
    assert (sent.state, sent.copies) == ("sent", (first.id, second.id, third.id))


def test_a_copy_under_another_rule_is_told_like_a_first(journal: Journal) -> None:
    """Held-mail review, finding 4: a message was refused, the rule was changed, and it was sent again."""
    journal.filing.record(transaction(treatment="reject", action=Action.REJECT))
    held = journal.filing.record(transaction(queue_id="4dX2"))
    delayed = journal.filing.record(transaction(queue_id="4dX3", action=Action.DELAY))
    assert [(notice.kind, notice.copies) for notice in journal.notices.due(NOON)] == [
        ("held", (held.id,)),
        ("delayed", (delayed.id,)),
    ]
    [incident] = journal.incidents.search()
    assert [copy.action.value for copy in incident.copies] == ["reject", "quarantine", "delay"]


@pytest.mark.parametrize("state", [State.RELEASED, State.DELETED, State.NEVER_QUEUED])
def test_a_copy_after_all_others_were_dealt_with_is_told_like_a_first(journal: Journal, state: State) -> None:
    """Milter reports, row 9: the second message of an incident was held without a word."""
    first = journal.filing.record(transaction())
    mark_sent(journal, journal.notices.due(NOON)[0].id)
    journal.held.set_state(first.id, state)
    second = journal.filing.record(transaction(queue_id="4dX2"))
    assert [notice.copies for notice in journal.notices.due(NOON)] == [(second.id,)]


def test_a_suppressed_notice_tells_of_no_further_copy(journal: Journal) -> None:
    """It was sent to nobody."""
    journal.filing.record(transaction())
    journal.notices.mark_suppressed(journal.notices.due(NOON)[0].id, "a test")
    second = journal.filing.record(transaction(queue_id="4dX2"))
    assert [notice.copies for notice in journal.notices.due(NOON)] == [(second.id,)]


def test_a_copy_that_waits_for_a_person_is_told_like_a_quarantine(journal: Journal) -> None:
    """The steward's own request is withdrawn, and the notice that announced a release is not sent."""
    copy = journal.filing.record(transaction(action=Action.DELAY))
    [own] = journal.held.ask([copy.id], verb="release", mode="bcc", actor=STEWARD, reason="the rule", not_before=NOON)
    assert journal.held.wait_for_person(copy, "placed on hold by hand", actor="ann", now=NOON)
    assert [(notice.kind, notice.copies) for notice in journal.notices.due(NOON)] == [("held", (copy.id,))]
    [incident] = journal.incidents.search()
    assert (incident.copies[0].waits, incident.copies[0].leaves) == ("placed on hold by hand", None)
    assert journal.held.requests(gateway=copy.gateway) == []
    assert [request.state for request in journal.held.answered([own.id])] == ["withdrawn"]
    assert journal.incidents.events(incident.id)[-1].what == "waits for a person"
    journal.held.set_state(copy.id, State.RELEASING)
    assert not journal.held.wait_for_person(copy, "too late", actor="ann", now=NOON)
    assert journal.held.wait_for_person(copy, "Postfix refuses it", now=NOON), "only the steward knows that it stopped"
    journal.held.set_state(copy.id, State.RELEASED)
    assert not journal.held.wait_for_person(copy, "too late", now=NOON)


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


def test_an_incident_of_which_a_notice_is_due_is_kept_for_another_month(make_journal: MakeJournal) -> None:
    """The digest that tells of its end waits for up to a day. A gateway that is gone for good sends none."""
    journal = make_journal(retention_days=1)
    copy = journal.filing.record(transaction(at=NOON))
    journal.held.set_state(copy.id, State.EXPIRED)
    assert journal.prune(NOON + timedelta(days=2)) == 0
    assert journal.prune(NOON + timedelta(days=32)) == 1


def test_old_incidents_are_pruned_unless_mail_is_held(make_journal: MakeJournal) -> None:
    """With all their rows in other tables; an incident with held mail is kept at any age."""
    journal = make_journal(retention_days=30)
    for number in range(3):
        copy = journal.filing.record(
            transaction(
                reference=f"2222-222{number + 2}", message_id=f"<{number}@council.test>", queue_id=f"4dX{number}"
            )
        )
        journal.held.ask([copy.id], verb="delete", mode=None, actor="ann", reason="")
        journal.held.record_accepted(copy.id, parts_for("bcc", range(2), 2))
    journal.held.set_state(1, State.DELETED)
    journal.held.set_state(2, State.RELEASED)
    for notice in journal.notices.due(NOON):
        if notice.incident_id != 3:
            journal.notices.mark_suppressed(notice.id, "dealt with")
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


def test_a_notice_that_is_replaced_while_it_is_sent(journal: Journal) -> None:
    """A person keeps a delayed message while sendmail(1) takes its notice: the new one has an id of its own."""
    copy = journal.filing.record(transaction(action=Action.DELAY))
    [sending] = journal.notices.due(NOON + timedelta(days=1))
    assert journal.held.wait_for_person(copy, "kept by ann", actor="ann", now=NOON)
    mark_sent(journal, sending.id)
    assert [(sending.kind, notice.kind) for notice in journal.notices.due(NOON)] == [("delayed", "held")]
