"""The dispatcher: it sends due notices once, tries again after a failure, and records each result."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest

from support.factories import policy, transaction
from support.notice_factories import SENT, shipped, words
from undisclosed.incidents.automatic import Automatic
from undisclosed.incidents.records import REDIRECTED, NoticeKind, State, parts_for
from undisclosed.journal.journal import Journal
from undisclosed.notices import Dispatcher, DispatchStatus, NoticeError, variables
from undisclosed.notices.pacing import MAX_NOTICES
from undisclosed.policy import Action, Policy

TEMPLATES = shipped(("en",))
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Box:
    """Stands for sendmail(1): keeps the notices and their recipients, or fails with `error`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, EmailMessage]] = []
        self.error = ""

    def __call__(self, message: EmailMessage, sender: str) -> None:
        if self.error:
            raise NoticeError(self.error)
        self.sent.append((sender, message))


def add_due_notice(
    journal: Journal, kind: NoticeKind = "held", state: State = State.HELD, due: datetime = SENT, **over: Any
) -> int:
    """Record an incident in some state with a due notice; returns its id."""
    reference = over.get("reference", "K7QF-3M2D")
    facts = {"treatment": "reject", "queue_id": f"4dX1{reference}", **over}  # rejected: without a first notice
    copy = journal.filing.record(transaction(at=SENT, **facts))
    journal.held.set_state(copy.id, state)
    assert journal.notices.add(copy, kind, due)
    return copy.incident_id


def add_several(journal: Journal, count: int, due: datetime = SENT, first: int = 0, **over: Any) -> list[int]:
    """The same for so many incidents, with references from 2222-0000 on."""
    return [
        add_due_notice(journal, due=due, reference=f"2222-{number:04}", message_id=f"<{number}@council.test>", **over)
        for number in range(first, first + count)
    ]


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
    assert message["Subject"] == "Not sent: “School admissions” is on hold (K7QF-3M2D)"
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


def test_a_notice_that_the_policy_silences_is_an_event(journal: Journal, box: Box) -> None:
    """With its reason."""
    incident_id = add_due_notice(journal)
    own = policy(notices={"after": ["warn"]})
    assert dispatch(dispatcher(journal, box), own=own) == [(DispatchStatus.SENT, "")]
    [copy] = journal.incidents.get(incident_id).copies
    journal.held.set_state(copy.id, State.DELETED)
    journal.notices.add(copy, "deleted", SENT)
    why = "notices.after does not name quarantine"
    assert dispatch(dispatcher(journal, box), own=own) == [(DispatchStatus.SUPPRESSED, why)]
    assert notice_events(journal, incident_id)[1:] == [("notice suppressed", why)]
    assert len(box.sent) == 1


@pytest.mark.parametrize(("kind", "state"), [("deleted", State.DELETED), ("released", State.RELEASED)])
def test_the_end_of_a_message_of_which_nobody_was_told_is_told(
    journal: Journal, box: Box, kind: NoticeKind, state: State
) -> None:
    """It was deleted or released before the first notice, which would not be true any more, whatever `after` says."""
    add_due_notice(journal, kind, state)
    assert dispatch(dispatcher(journal, box), own=policy(notices={"after": []})) == [(DispatchStatus.SENT, "")]


def test_the_notice_names_the_mode_of_the_release(journal: Journal, box: Box) -> None:
    """The mode is read from the accepted parts."""
    released = journal.filing.record(transaction(at=SENT, treatment="reject"))
    journal.held.record_accepted(released.id, parts_for("bcc", range(2), 2))
    journal.held.set_state(released.id, State.RELEASED)
    journal.notices.add(released, "released", SENT)
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SENT, "")]
    assert "outside the organisation hidden" in words(box.sent[0][1])


def test_the_notice_says_that_a_release_was_redirected(journal: Journal, box: Box) -> None:
    """The release has put it down as an event."""
    released = journal.filing.record(transaction(at=SENT, treatment="reject"))
    journal.held.add_event(released.incident_id, released.id, "steward", REDIRECTED)
    journal.held.set_state(released.id, State.RELEASED)
    journal.notices.add(released, "released", SENT)
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SENT, "")]
    assert "none of its 2 recipients gets it" in words(box.sent[0][1])


def test_of_two_gateways_one_sends_the_notice(journal: Journal, box: Box) -> None:
    """A message that came through two gateways with one journal causes one notice."""
    journal.gateways.record("mx1.council.test", "mx1", SENT)
    add_due_notice(journal)
    second = journal.filing.record(
        transaction(at=SENT, gateway="mx2.council.test", queue_id="4dX2", treatment="reject")
    )
    journal.held.set_state(second.id, State.HELD)
    assert not journal.notices.add(second, "held", SENT) or len(journal.notices.due(SENT)) == 1
    assert dispatch(dispatcher(journal, box, "mx2.council.test")) == []
    assert dispatch(dispatcher(journal, box, "mx1.council.test")) == [(DispatchStatus.SENT, "")]


# -- who is told


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"sender": "bounce-77@esp.example"}, "clerk@council.test"),
        ({"sender": "bounce-77@esp.example", "author": None, "login": "desk@council.test"}, "desk@council.test"),
    ],
)
def test_a_sender_behind_an_outside_envelope_sender_is_told(
    journal: Journal, box: Box, over: dict[str, Any], expected: str
) -> None:
    """Milter reports, 21 and 22: nobody was told, and the message was deleted after 14 days."""
    add_due_notice(journal, **over)
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SENT, "")]
    [(to, message)] = box.sent
    assert (to, message["To"]) == (expected, expected)


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ({"automatic": Automatic.LIST}, "the message is automatic"),
        ({"sender": "bounce-77@esp.example", "author": None}, "neither its sender, From nor login is an internal"),
        ({"rule": ""}, "no rule holds the message"),
    ],
)
def test_the_administrator_is_told_where_no_sender_can_be(
    journal: Journal, box: Box, over: dict[str, Any], why: str
) -> None:
    """At once the first time, and the log has a line (hostile review, 12)."""
    incident_id = add_due_notice(journal, **over)
    [first, second] = dispatcher(journal, box).dispatch(policy(), TEMPLATES, SENT)
    assert (first.status, first.kind, first.references) == (DispatchStatus.FOR_ADMINISTRATOR, "held", ("K7QF-3M2D",))
    assert why in first.why
    assert (second.status, second.kind, second.references) == (DispatchStatus.SENT, "digest", ("K7QF-3M2D",))
    [(to, message)] = box.sent
    assert to == "postmaster@council.test"
    assert "K7QF-3M2D" in words(message)
    assert notice_events(journal, incident_id) == [("notice sent", "")]
    [told] = journal.notices.of(incident_id)
    assert (told.state, told.addressee, told.sent_in) == ("sent", "administrator", message["Message-ID"])


def test_one_digest_a_day(journal: Journal, box: Box) -> None:
    """Later mail waits for the next one, also over a restart; the log names it at once, and only once."""
    add_several(journal, 2, automatic=Automatic.NULL_SENDER)
    dispatch(dispatcher(journal, box))
    add_several(journal, 3, due=SENT + HOUR, first=2, automatic=Automatic.NULL_SENDER)
    later = dispatch(dispatcher(journal, box), SENT + HOUR)
    assert [status for status, _ in later] == [DispatchStatus.FOR_ADMINISTRATOR] * 3
    assert dispatch(dispatcher(journal, box), SENT + 23 * HOUR) == []
    assert dispatch(dispatcher(journal, box), SENT + 24 * HOUR) == [(DispatchStatus.SENT, "")]
    assert [message["Subject"] for _, message in box.sent] == [
        "For the administrator: 2 messages whose senders were not told",
        "For the administrator: 3 messages whose senders were not told",
    ]


def test_what_is_owed_for_more_than_14_days_goes_to_the_administrator(journal: Journal, box: Box) -> None:
    """The steward was away for long (hostile review, 13)."""
    add_due_notice(journal, "rewritten", State.DELIVERED, action=Action.REWRITE)
    dispatch(dispatcher(journal, box), SENT + timedelta(days=14, minutes=1))
    [(to, message)] = box.sent
    assert to == "postmaster@council.test"
    assert "Sent with the addresses hidden (1)" in words(message)


def test_of_a_split_by_a_person_one_notice_tells(journal: Journal, box: Box) -> None:
    """The first notice about `split` is true as well then: it would say the same."""
    copy = journal.filing.record(transaction(at=SENT, action=Action.SPLIT))
    journal.notices.add(copy, "released", SENT)
    journal.held.record_accepted(copy.id, parts_for("split", range(2), 2))
    journal.held.set_state(copy.id, State.RELEASED)
    statuses = [status for status, _ in dispatch(dispatcher(journal, box))]
    assert sorted(statuses) == [DispatchStatus.SENT, DispatchStatus.SUPPRESSED]
    assert len(box.sent) == 1


# -- how many


def test_past_twenty_an_hour_the_rest_is_summed_up(journal: Journal, box: Box) -> None:
    """25 held at once: 20 notices, and one about the other five; nothing is suppressed (walk as users, 13).

    Addresses are compared in any case; other senders are not concerned. A restart does not begin anew.
    """
    for number in range(25):
        add_several(journal, 1, first=number, sender="CLERK@council.test" if number % 2 else "clerk@council.test")
    add_due_notice(journal, sender="mayor@council.test", reference="3333-3333")
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SENT, "")] * (MAX_NOTICES + 1)
    assert dispatch(dispatcher(journal, box), SENT + MINUTE) == []
    [summary] = dispatcher(journal, box).dispatch(policy(), TEMPLATES, SENT + 5 * MINUTE)
    assert (summary.status, summary.kind, len(summary.references)) == (DispatchStatus.SENT, "summary", 5)
    to, message = box.sent[-1]
    assert (to.casefold(), message["Subject"]) == (
        "clerk@council.test",
        "Not sent: 5 more of your messages are on hold",
    )
    assert all(reference in words(message) for reference in summary.references)


def test_what_comes_after_the_summary_is_told_later(journal: Journal, box: Box) -> None:
    """Once the hour is over: each alone, if there is room."""
    add_several(journal, 22)
    dispatch(dispatcher(journal, box))
    dispatch(dispatcher(journal, box), SENT + 5 * MINUTE)
    add_several(journal, 2, due=SENT + 10 * MINUTE, first=22)
    assert dispatch(dispatcher(journal, box), SENT + 59 * MINUTE) == []
    assert dispatch(dispatcher(journal, box), SENT + HOUR) == [(DispatchStatus.SENT, "")] * 2
    assert len(box.sent) == 23


def test_what_is_owed_for_more_than_a_day_is_one_summary(journal: Journal, box: Box) -> None:
    """The steward was away for 25 hours: rewritten and held mail in one notice (hostile review, 13)."""
    add_due_notice(journal, "rewritten", State.DELIVERED, action=Action.REWRITE, reference="3333-3333")
    add_several(journal, 2)
    assert dispatch(dispatcher(journal, box), SENT + 25 * HOUR) == [(DispatchStatus.SENT, "")]
    [(_, message)] = box.sent
    assert message["Subject"] == "What became of 3 more of your messages"
    assert all(reference in words(message) for reference in ("3333-3333", "2222-0000", "2222-0001"))
    assert journal.notices.due(SENT + 25 * HOUR) == []


def test_a_summary_that_cannot_be_sent_is_tried_again(journal: Journal, box: Box) -> None:
    """As a whole, after a pause; what is new meanwhile is not kept waiting."""
    add_several(journal, 3)
    gateway, now = dispatcher(journal, box), SENT + 25 * HOUR
    box.error = "disk full"
    assert dispatch(gateway, now) == [(DispatchStatus.FAILED, "disk full")]
    box.error = ""
    assert dispatch(gateway, now + timedelta(seconds=59)) == []
    add_several(journal, 1, due=now, first=3)
    assert dispatch(gateway, now + timedelta(seconds=59)) == [(DispatchStatus.SENT, "")]
    [summary] = gateway.dispatch(policy(), TEMPLATES, now + MINUTE)
    assert (summary.kind, len(summary.references)) == ("summary", 3)


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
    assert (result.status, result.references) == (DispatchStatus.SENT, ("K7QF-3M2D",))
    assert len(box.sent) == 1
    assert notice_events(journal, incident_id) == [("notice sent", "")]


def test_a_notice_recorded_by_a_clock_that_was_ahead_is_sent(journal: Journal, box: Box) -> None:
    """Not only in a year."""
    add_due_notice(journal, due=SENT + timedelta(days=365))
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SENT, "")]


def test_a_clock_that_was_set_back_does_not_stop_the_next_attempt(journal: Journal, box: Box) -> None:
    """The time of the attempt is far in the future then."""
    add_due_notice(journal)
    gateway = dispatcher(journal, box)
    box.error = "disk full"
    assert dispatch(gateway, SENT + timedelta(days=1)) == [(DispatchStatus.FAILED, "disk full")]
    box.error = ""
    assert dispatch(gateway, SENT + MINUTE) == [(DispatchStatus.SENT, "")]


def test_a_notice_that_fails_in_a_way_nobody_foresaw_does_not_stop_the_others(journal: Journal) -> None:
    """It is tried again later, as one that sendmail(1) refused."""
    sent = Box()

    def send(message: EmailMessage, to: str) -> None:
        if "2222-2222" in str(message["Subject"]):
            raise UnicodeError("surrogates not allowed")
        sent(message, to)

    for reference in ("2222-2222", "3333-3333"):
        add_due_notice(journal, reference=reference)
    gateway = Dispatcher(journal, "mx1.council.test", send)
    assert dispatch(gateway) == [(DispatchStatus.FAILED, "UnicodeError: surrogates not allowed")]
    assert dispatch(gateway) == [(DispatchStatus.SENT, "")]
    assert len(sent.sent) == 1


@pytest.mark.parametrize(("actor", "waits"), [("ann", True), ("steward", False)])
def test_the_notice_of_an_end_does_not_wait_for_the_stewards_own_release(
    journal: Journal, box: Box, actor: str, *, waits: bool
) -> None:
    """Of another copy of the message: one that some recipients have got is tried without end."""
    add_due_notice(journal, "released", State.RELEASED)
    other = journal.filing.record(transaction(queue_id="4dX9", at=SENT, action=Action.SPLIT))
    journal.held.ask([other.id], verb="release", mode="split", actor=actor, reason="")
    sent = [status for status, _ in dispatch(dispatcher(journal, box)) if status is DispatchStatus.SENT]
    assert sent == ([] if waits else [DispatchStatus.SENT])


def test_each_reminder_in_a_digest_is_listed_with_its_day(
    journal: Journal, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is only counted ("and 2 more") would let its message expire: it waits for the next digest."""
    monkeypatch.setattr(variables, "MAX_LISTED", 3)
    add_several(journal, 4, automatic=Automatic.LIST)
    for incident in journal.incidents.search():
        journal.expiring.add_reminder(incident.copies[0], SENT)
    gateway = dispatcher(journal, box)
    for day, left in ((0, 1), (1, 0)):
        dispatch(gateway, SENT + timedelta(days=day))
        assert len([due for due in journal.notices.due(SENT) if due.kind == "reminder"]) == left
        text = box.sent[day][1].get_body(("plain",))
        assert text is not None
        listed = [line for line in text.get_content().splitlines() if line.startswith("- 2222")]
        assert len(listed) == (3 if day == 0 else 1)


def test_a_gateway_sends_the_notice_about_its_own_copy_where_the_others_steward_is_away(
    journal: Journal, box: Box
) -> None:
    """One message by two gateways: one notice tells of both copies, and not only when the first gateway is back."""
    first = journal.filing.record(transaction(at=SENT))
    second = journal.filing.record(transaction(at=SENT, gateway="mx2.council.test", queue_id="4dX2"))
    journal.held.set_state(second.id, State.HELD)
    assert first.incident_id == second.incident_id
    other = dispatcher(journal, box, "mx2.council.test")
    journal.gateways.record("mx1.council.test", "mx1", SENT)
    assert dispatch(other, SENT + 10 * MINUTE) == []
    assert dispatch(other, SENT + 11 * MINUTE) == [(DispatchStatus.SENT, "")]
    journal.held.set_state(first.id, State.HELD)
    assert dispatch(dispatcher(journal, box), SENT + 12 * MINUTE) == []
