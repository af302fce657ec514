"""Which senders get a notice and when, how due notices are dispatched, and what sendmail(1) is called with."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from lab import processes
from lab.waiting import until
from support.factories import policy, transaction
from support.notice_factories import SENT, STATES, copy, incident, notice, words
from undisclosed.incidents.records import NoticeKind, State, parts_for
from undisclosed.journal.journal import Journal
from undisclosed.notices import Dispatcher, DispatchStatus, NoticeError, send
from undisclosed.notices.eligibility import MAX_NOTICES, Timeliness, is_within_limit, timeliness, why_suppressed
from undisclosed.notices.template_files import shipped
from undisclosed.notices.templates import KINDS
from undisclosed.policy import Action, Policy

TEMPLATES = shipped(("en",))
MINUTE = timedelta(minutes=1)


# -- eligibility


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ({}, None),
        ({"sender": "Clerk@Staff.Council.Test"}, None),
        ({"sender": '"the clerk"@council.test'}, None),
        ({"sender": "siân@council.test"}, None),
        ({"sender": ""}, "the null sender is never written to"),
        ({"automatic": True}, "the message was automatic or of a list"),
        ({"action": Action.REJECT}, "notices.after does not name reject"),
        ({"sender": "parent@family.test"}, "the sender is not of the organisation"),
        ({"sender": "officer@partner.test"}, "the sender is not of the organisation"),
        ({"sender": "clerk@council.test.example"}, "the sender is not of the organisation"),
        ({"sender": "clerk"}, "the envelope sender is no address that can be written to"),
        ({"sender": "a@family.test,b@council.test"}, "the envelope sender is no address that can be written to"),
        ({"sender": "-t@council.test"}, "the envelope sender is no address that can be written to"),
        ({"sender": "a@family.test b@council.test"}, "the envelope sender is no address that can be written to"),
        ({"sender": "@family.test:b@council.test"}, "the envelope sender is no address that can be written to"),
        ({"sender": '"a@family.test,b"@council.test'}, "the envelope sender is no address that can be written to"),
        ({"sender": "x" * 250 + "@council.test"}, "the envelope sender is no address that can be written to"),
        ({"copies": (copy(State.MONITORED),)}, "in monitor mode nothing was done to the message"),
    ],
)
def test_senders_who_get_no_notice(over: dict[str, Any], reason: str | None) -> None:
    """Outside senders, automatic messages, actions that notices.after leaves out: each with its reason."""
    own = policy(organisation={"partner_domains": ["partner.test"]})
    assert why_suppressed(own, incident(**over)) == reason


def test_notices_after() -> None:
    """Only the actions that it names cause a notice; it may be empty."""
    only = policy(notices={"after": ["warn"]})
    assert why_suppressed(only, incident(action=Action.WARN)) is None
    assert why_suppressed(only, incident(action=Action.QUARANTINE)) == "notices.after does not name quarantine"
    assert why_suppressed(policy(notices={"after": []}), incident()) is not None


def test_the_default_of_notices_after() -> None:
    """It names the actions that have a first notice."""
    assert {action for action in Action if action.effect.first_notice} == set(policy().notices.after)


@pytest.mark.parametrize("kind", KINDS)
def test_a_notice_is_sent_only_while_it_is_true(kind: NoticeKind) -> None:
    """In its own state: now; while pending: not yet; for a message that was never queued: never."""
    assert timeliness(incident(STATES[kind]), kind) is Timeliness.NOW
    assert timeliness(incident(State.PENDING), kind) is Timeliness.NOT_YET
    for state in (State.NEVER_QUEUED, State.REJECTED, State.MONITORED):
        assert timeliness(incident(state), kind) is Timeliness.TOO_LATE


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("held", State.RELEASED, Timeliness.TOO_LATE),
        ("held", State.DELETED, Timeliness.TOO_LATE),
        ("reminder", State.RELEASING, Timeliness.NOT_YET),
        ("reminder", State.EXPIRED, Timeliness.TOO_LATE),
        ("released", State.HELD, Timeliness.NOT_YET),
        ("released", State.RELEASING, Timeliness.NOT_YET),
        ("released", State.RELEASED_BY_HAND, Timeliness.NOW),
        ("released", State.DELETED, Timeliness.TOO_LATE),
        ("split", State.HELD, Timeliness.NOT_YET),
        ("expired", State.RELEASED, Timeliness.TOO_LATE),
    ],
)
def test_a_notice_after_a_later_change(kind: NoticeKind, state: State, expected: Timeliness) -> None:
    """`held` is too late for a message that is gone; `released` waits for the release."""
    assert timeliness(incident(state), kind) is expected


def test_the_limit_for_one_sender() -> None:
    """Notices of the last hour count; older ones and those in the future do not."""
    times = [SENT - MINUTE * number for number in range(MAX_NOTICES)]
    assert not is_within_limit(times, SENT)
    assert is_within_limit(times[1:], SENT)
    assert is_within_limit(times, SENT + timedelta(minutes=61 - MAX_NOTICES))
    assert is_within_limit([SENT + MINUTE] * MAX_NOTICES, SENT)


# -- the dispatcher


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
    copy = journal.filing.record(transaction(at=SENT, **over))
    journal.held.set_state(copy.id, state)
    assert journal.notices.add(copy.incident_id, kind, SENT)
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
    """It goes to the sender, is recorded as an event, and is no longer due."""
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
    incident_id = add_due_notice(journal, state=state, automatic=True)
    assert dispatch(dispatcher(journal, box)) == [(DispatchStatus.SUPPRESSED, "the message was automatic or of a list")]
    assert notice_events(journal, incident_id) == [("notice suppressed", "the message was automatic or of a list")]
    assert box.sent == []


def test_the_notice_names_the_mode_of_the_release(journal: Journal, box: Box) -> None:
    """It is read from the accepted parts."""
    released = journal.filing.record(transaction(at=SENT))
    journal.held.record_accepted(released.id, parts_for("bcc", range(2), 2))
    journal.held.set_state(released.id, State.RELEASED)
    journal.notices.add(released.incident_id, "released", SENT)
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


# -- sendmail(1)


def program(path: Path, script: str) -> Path:
    """A shell script in place of sendmail(1)."""
    file = path / "sendmail"
    file.write_text(f"#!/bin/sh\ncd {path}\n{script}\n")
    file.chmod(0o755)
    return file


def test_how_sendmail_is_called(tmp_path: Path) -> None:
    """With the null sender, the recipient after `--`, the message with LF, and an empty environment."""
    sendmail = program(tmp_path, 'printf "%s\\n" "$@" >arguments; env >environment; cat >message')
    message = notice("held")
    send(message, "clerk@council.test", sendmail, Path("/etc/postfix-out"))
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ["-C", "/etc/postfix-out", "-i", "-f", "<>", "--", "clerk@council.test"]
    assert (tmp_path / "message").read_bytes() == message.as_bytes()
    assert b"\r" not in message.as_bytes()
    assert "HOME=" not in (tmp_path / "environment").read_text()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat >/dev/null; echo 'queue file\nwrite error' >&2; exit 75", "ended with status 75: queue file write error"),
        ("exit 1", "ended with status 1: no message"),
        ("kill -9 $$", "ended with status -9"),
    ],
)
def test_a_sendmail_that_fails(tmp_path: Path, script: str, said: str) -> None:
    """The error has its status and its message, also if it never reads its input."""
    with pytest.raises(NoticeError, match=said):
        send(notice("held"), "clerk@council.test", program(tmp_path, script))


def test_a_sendmail_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Its child postdrop(1) holds the pipe open."""
    script = "echo $$ >parent; sh -c 'echo $$ >child; exec sleep 60'; exit 0"
    sendmail = program(tmp_path, script)
    child = tmp_path / "child"
    for timeout in (0.5, 5.0, 50.0):
        with pytest.raises(NoticeError, match=rf"did not end within {timeout:g} s"):
            send(notice("held"), "clerk@council.test", sendmail, timeout=timeout)
        if child.exists() and child.read_text():
            break  # else the machine was too busy to start the child in that time
    pids = [int(file.read_text()) for file in (tmp_path / "parent", child)]
    until(lambda: not any(map(processes.is_running, pids)), what="both processes to end")


def test_a_missing_sendmail(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(NoticeError, match="sendmail cannot be started: No such file"):
        send(notice("held"), "clerk@council.test", tmp_path / "sendmail")


@pytest.mark.parametrize("sender", ["", "a@council.test,b@family.test", "a@council.test b@family.test", "clerk"])
def test_sendmail_is_never_given_two_addresses(tmp_path: Path, sender: str) -> None:
    """It would read several addresses in one argument."""
    with pytest.raises(NoticeError, match="no address"):
        send(notice("held"), sender, program(tmp_path, "touch called"))
    assert list(tmp_path.iterdir()) == [tmp_path / "sendmail"]
