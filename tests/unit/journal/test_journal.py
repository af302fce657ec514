"""Notices, events and pruning of the journal; in SQLite and in PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from support.factories import transaction
from support.journals import MakeJournal
from undisclosed.incidents.records import (
    State,
    parts_for,
)
from undisclosed.journal.journal import Journal

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


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
