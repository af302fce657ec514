"""The dispatcher: it sends due notices once, tries again after a failure, and records each result."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest

from support.factories import policy, transaction
from support.notice_factories import SENT, shipped, words
from undisclosed.incidents.automatic import Automatic
from undisclosed.incidents.records import NoticeKind, State, parts_for
from undisclosed.journal.journal import Journal
from undisclosed.notices import Dispatcher, DispatchStatus, NoticeError
from undisclosed.notices.eligibility import MAX_NOTICES
from undisclosed.policy import Policy

TEMPLATES = shipped(("en",))
MINUTE = timedelta(minutes=1)


class Box:
    """Stands for sendmail(1): keeps the notices and their recipients, or fails with `error`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, EmailMessage]] = []
        self.error = ""

    def __call__(self, message: EmailMessage, sender: str) -> None:
        if self.error:
            raise NoticeError(self.error)
        self.sent.append((sender, message))


def add_due_notice(journal: Journal, kind: NoticeKind = "held", state: State = State.HELD, **over: Any) -> int:
    """Record an incident in some state with a due notice; returns its id."""
    over = {"treatment": "reject", "queue_id": f"4dX{over.get('reference', '')}", **over}  # without a first notice
    copy = journal.filing.record(transaction(at=SENT, **over))
    journal.held.set_state(copy.id, state)
    assert journal.notices.add(copy, kind, SENT)
    return copy.incident_id


def notice_events(journal: Journal, incident_id: int) -> list[tuple[str, str]]:
    """The journal's events about notices, with their reasons."""
    return [
        (event.what, event.why) for event in journal.incidents.events(incident_id) if event.what.startswith("notice")
    ]


@pytest.fixture
def box() -> Box:
    """A working sendmail(1)."""
    return Box()


def dispatcher(journal: Journal, box: Box, gateway: str = "mx1.council.test") -> Dispatcher:
    """The dispatcher of a gateway."""
    return Dispatcher(journal, gateway, box)


def dispatch(gateway: Dispatcher, now: datetime = SENT, own: Policy | None = None) -> list[tuple[DispatchStatus, str]]:
    """Dispatch once; the status of each notice, and the reason."""
    return [(result.status, result.why) for result in gateway.dispatch(own or policy(), TEMPLATES, now)]


def test_a_due_notice_is_sent_once(journal: Journal, box: Box) -> None:
    """The notice goes to the sender, is recorded as an event, and is no longer due."""
    incident_id = add_due_notice(journal)
    gateway = dispatcher(journal, box)
    assert dispatch(gateway) == [(DispatchStatus.SENT, "")]
    assert dispatch(gateway, SENT + MINUTE) == []
    [(to, message)] = box.sent
    assert (to, message["To"]) == ("clerk@council.test", "clerk@council.test")
    assert message["Subject"] == "Not sent: your message is on hold (K7QF-3M2D)"
    assert notice_events(journal, incident_id) == [("notice sent", "")]


def test_a_notice_that_is_not_due_waits(journal: Journal, box: Box) -> None:
    """A notice may be recorded before it is due."""
    add_due_notice(journal)
    assert dispatch(dispatcher(journal, box), SENT - MINUTE) == []


def test_a_notice_waits_until_it_is_true(journal: Journal, box: Box) -> None:
    """`held` is sent once the steward has seen the message in the hold queue."""
    incident_id = add_due_notice(journal, state=State.PENDING)
    gateway = dispatcher(journal, box)
    assert dispatch(gateway) == []
    [pending] = journal.incidents.get(incident_id).copies
    journal.held.set_state(pending.id, State.HELD)
    assert dispatch(gateway) == [(DispatchStatus.SENT, "")]


def test_a_notice_that_came_too_late_is_suppressed(journal: Journal, box: Box) -> None:
    """The event names the state of the message."""
    incident_id = add_due_notice(journal, state=State.DELETED)
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SUPPRESSED, "by now the message is deleted")]
    assert notice_events(journal, incident_id) == [("notice suppressed", "by now the message is deleted")]
    assert box.sent == []


@pytest.mark.parametrize("state", [State.PENDING, State.HELD, State.DELETED])
def test_a_suppressed_notice_is_an_event(journal: Journal, box: Box, state: State) -> None:
    """An automatic message is counted and stopped like any other, but its sender gets no notice."""
    incident_id = add_due_notice(journal, state=state, automatic=Automatic.LIST)
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SUPPRESSED, "the message was automatic or of a list")]
    assert notice_events(journal, incident_id) == [("notice suppressed", "the message was automatic or of a list")]
    assert box.sent == []


def test_the_notice_names_the_mode_of_the_release(journal: Journal, box: Box) -> None:
    """The mode is read from the accepted parts."""
    released = journal.filing.record(transaction(at=SENT, treatment="reject"))
    journal.held.record_accepted(released.id, parts_for("bcc", range(2), 2))
    journal.held.set_state(released.id, State.RELEASED)
    journal.notices.add(released, "released", SENT)
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SENT, "")]
    assert "outside the organisation hidden" in words(box.sent[0][1])


def test_of_two_gateways_one_sends_the_notice(journal: Journal, box: Box) -> None:
    """A message that came through two gateways with one journal causes one notice."""
    add_due_notice(journal)
    second = journal.filing.record(transaction(at=SENT, gateway="mx2.council.test", queue_id="4dX2"))
    journal.held.set_state(second.id, State.HELD)
    assert dispatch(dispatcher(journal, box, "mx2.council.test")) == []
    assert dispatch(dispatcher(journal, box, "mx1.council.test")) == [(DispatchStatus.SENT, "")]


def test_further_notices_to_one_sender_are_suppressed(journal: Journal, box: Box) -> None:
    """Addresses are compared in any case; other senders are not concerned, and after an hour the limit is free."""
    for number in range(MAX_NOTICES + 1):
        sender = "CLERK@council.test" if number % 2 else "clerk@council.test"
        add_due_notice(journal, sender=sender, message_id=f"<{number}@council.test>", reference=f"2222-{number:04}")
    add_due_notice(journal, sender="mayor@council.test", reference="3333-3333")
    gateway = dispatcher(journal, box)
    outcomes = dispatch(gateway)
    assert outcomes.count((DispatchStatus.SENT, "")) == MAX_NOTICES + 1
    assert outcomes.count((DispatchStatus.SUPPRESSED, f"the sender got {MAX_NOTICES} notices within an hour")) == 1
    add_due_notice(journal, reference="4444-4444")
    assert dispatch(gateway, SENT + timedelta(minutes=61)) == [(DispatchStatus.SENT, "")]


def test_a_notice_that_cannot_be_sent_is_tried_again_later(journal: Journal, box: Box) -> None:
    """The pauses grow; one round ends at the first failure, and the next one continues after that notice."""
    add_due_notice(journal, reference="2222-2222")
    add_due_notice(journal, reference="3333-3333")
    gateway = dispatcher(journal, box)
    box.error = "disk full"
    assert dispatch(gateway) == [(DispatchStatus.FAILED, "disk full")]
    assert dispatch(gateway) == [(DispatchStatus.FAILED, "disk full")]
    assert dispatch(gateway) == []
    assert dispatch(gateway, SENT + MINUTE) == [(DispatchStatus.FAILED, "disk full")]
    box.error = ""
    assert dispatch(gateway, SENT + 2 * MINUTE - timedelta(seconds=1)) == [(DispatchStatus.SENT, "")]
    assert dispatch(gateway, SENT + 3 * MINUTE) == [(DispatchStatus.SENT, "")]
    assert len(box.sent) == 2


def test_a_notice_is_not_sent_again_because_the_journal_failed(
    journal: Journal, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only recording it is repeated."""
    incident_id = add_due_notice(journal)
    gateway = dispatcher(journal, box)

    def fails(*_args: object, **_over: object) -> bool:
        raise OSError("the journal cannot be written")

    with monkeypatch.context() as patched:
        patched.setattr(journal.notices, "mark_sent", fails)
        with pytest.raises(OSError, match="cannot be written"):
            dispatch(gateway)
    [result] = gateway.dispatch(policy(), TEMPLATES, SENT)
    assert (result.status, result.reference) == (DispatchStatus.SENT, "K7QF-3M2D")
    assert len(box.sent) == 1
    assert notice_events(journal, incident_id) == [("notice sent", "")]
