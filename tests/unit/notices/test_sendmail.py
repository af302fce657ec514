"""Who gets a notice and when, and how notices that are due are sent, once and only while they are true."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from lab.waiting import until
from support.factories import policy, transaction
from support.notice_factories import SENT, STATES, copy, incident, notice, words
from undisclosed.incidents.records import NoticeKind, State
from undisclosed.journal.journal import Journal
from undisclosed.notices import FIRST_KIND, Courier, Fate, NoticeError, send, suppressed
from undisclosed.notices.eligibility import MOST, Moment, moment, within_limit
from undisclosed.notices.template_files import shipped
from undisclosed.notices.templates import KINDS
from undisclosed.policy import Action, Policy

WORDS = shipped(("en",))
MINUTE = timedelta(minutes=1)


# -- who gets one


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
def test_who_gets_no_notice(over: dict[str, Any], reason: str | None) -> None:
    """Nobody outside, nothing automatic, no one for whom the policy wants none; and the reason is said."""
    own = policy(organisation={"partner_domains": ["partner.test"]})
    assert suppressed(own, incident(**over)) == reason


def test_the_policy_says_after_which_actions() -> None:
    """`notices.after`, empty too."""
    only = policy(notices={"after": ["warn"]})
    assert suppressed(only, incident(action=Action.WARN)) is None
    assert suppressed(only, incident(action=Action.QUARANTINE)) == "notices.after does not name quarantine"
    assert suppressed(policy(notices={"after": []}), incident()) is not None


def test_every_action_that_lets_mail_on_or_holds_it_has_a_first_notice() -> None:
    """What the default of `notices.after` names is what there are words for."""
    assert set(FIRST_KIND) == set(policy().notices.after)


@pytest.mark.parametrize("kind", KINDS)
def test_a_notice_is_sent_only_while_it_is_true(kind: NoticeKind) -> None:
    """In its own state now; before the hold queue is seen, not yet; about a message that never came, never."""
    assert moment(incident(STATES[kind]), kind) is Moment.NOW
    assert moment(incident(State.PENDING), kind) is Moment.NOT_YET
    for state in (State.NEVER_QUEUED, State.REJECTED, State.MONITORED):
        assert moment(incident(state), kind) is Moment.TOO_LATE


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("held", State.RELEASED, Moment.TOO_LATE),
        ("held", State.DELETED, Moment.TOO_LATE),
        ("reminder", State.RELEASING, Moment.NOT_YET),
        ("reminder", State.EXPIRED, Moment.TOO_LATE),
        ("released", State.HELD, Moment.NOT_YET),
        ("released", State.RELEASING, Moment.NOT_YET),
        ("released", State.RELEASED_BY_HAND, Moment.NOW),
        ("released", State.DELETED, Moment.TOO_LATE),
        ("split", State.HELD, Moment.NOT_YET),
        ("expired", State.RELEASED, Moment.TOO_LATE),
    ],
)
def test_a_notice_that_was_overtaken(kind: NoticeKind, state: State, expected: Moment) -> None:
    """`held` about a message that is gone would be a lie; `released` waits until it is."""
    assert moment(incident(state), kind) is expected


def test_a_sender_gets_so_many_an_hour() -> None:
    """Counted over the hour before; older ones and those of a clock gone wrong do not count."""
    times = [SENT - MINUTE * number for number in range(MOST)]
    assert not within_limit(times, SENT)
    assert within_limit(times[1:], SENT)
    assert within_limit(times, SENT + timedelta(minutes=61 - MOST))
    assert within_limit([SENT + MINUTE] * MOST, SENT)


# -- the courier


class Box:
    """Where notices go: what was sent, to whom; or the error that every one of them meets."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, EmailMessage]] = []
        self.broken = ""

    def __call__(self, message: EmailMessage, sender: str) -> None:
        if self.broken:
            raise NoticeError(self.broken)
        self.sent.append((sender, message))


def due(journal: Journal, kind: NoticeKind = "held", state: State = State.HELD, **over: Any) -> int:
    """Record an incident in some state, of which a notice is due; returns its id."""
    one = journal.record(transaction(at=SENT, **over))
    journal.set_state(one.id, state)
    assert journal.add_notice(one.incident_id, kind, SENT)
    return one.incident_id


def told(journal: Journal, incident_id: int) -> list[tuple[str, str]]:
    """What the journal says of notices: event and reason."""
    return [(event.what, event.why) for event in journal.events(incident_id) if event.what.startswith("notice")]


@pytest.fixture
def box() -> Box:
    """A place for notices."""
    return Box()


def courier(journal: Journal, box: Box, gateway: str = "mx1.council.test") -> Courier:
    """The courier of a gateway."""
    return Courier(journal, gateway, box)


def deliver(one: Courier, now: datetime = SENT, own: Policy | None = None) -> list[tuple[Fate, str]]:
    """A round: what became of each notice, and why."""
    return [(outcome.fate, outcome.why) for outcome in one.deliver(own or policy(), WORDS, now)]


def test_a_due_notice_is_sent_once(journal: Journal, box: Box) -> None:
    """To the sender; it is an event, and not due any more."""
    incident_id = due(journal)
    one = courier(journal, box)
    assert deliver(one) == [(Fate.SENT, "")]
    assert deliver(one, SENT + MINUTE) == []
    [(to, message)] = box.sent
    assert (to, message["To"]) == ("clerk@council.test", "clerk@council.test")
    assert message["Subject"] == "Not sent: your message is on hold (K7QF-3M2D)"
    assert told(journal, incident_id) == [("notice sent", "")]


def test_a_notice_that_is_not_due_waits(journal: Journal, box: Box) -> None:
    """A reminder is written into the journal long before."""
    due(journal)
    assert deliver(courier(journal, box), SENT - MINUTE) == []


def test_a_notice_waits_until_it_is_true(journal: Journal, box: Box) -> None:
    """`held` is sent when the hold queue has been seen to hold it, and not before."""
    incident_id = due(journal, state=State.PENDING)
    one = courier(journal, box)
    assert deliver(one) == []
    [held] = journal.incident(incident_id).copies
    journal.set_state(held.id, State.HELD)
    assert deliver(one) == [(Fate.SENT, "")]


def test_a_notice_that_came_too_late_is_suppressed(journal: Journal, box: Box) -> None:
    """The event says what had become of the message."""
    incident_id = due(journal, state=State.DELETED)
    assert deliver(courier(journal, box)) == [(Fate.SUPPRESSED, "by now the message is deleted")]
    assert told(journal, incident_id) == [("notice suppressed", "by now the message is deleted")]
    assert box.sent == []


@pytest.mark.parametrize("state", [State.PENDING, State.HELD, State.DELETED])
def test_who_gets_none_is_an_event(journal: Journal, box: Box, state: State) -> None:
    """An automatic message is counted and stopped like any other; its sender is not written to."""
    incident_id = due(journal, state=state, automatic=True)
    assert deliver(courier(journal, box)) == [(Fate.SUPPRESSED, "the message was automatic or of a list")]
    assert told(journal, incident_id) == [("notice suppressed", "the message was automatic or of a list")]
    assert box.sent == []


def test_the_way_of_a_release_is_told(journal: Journal, box: Box) -> None:
    """It is read from the parts that were taken."""
    one = journal.record(transaction(at=SENT))
    journal.take(one.id, "bcc:0-1")
    journal.set_state(one.id, State.RELEASED)
    journal.add_notice(one.incident_id, "released", SENT)
    assert deliver(courier(journal, box)) == [(Fate.SENT, "")]
    assert "outside the organisation hidden" in words(box.sent[0][1])


def test_another_gateway_leaves_it_to_the_one_that_has_the_message(journal: Journal, box: Box) -> None:
    """Two stewards on one journal, one message through both: one notice."""
    due(journal)
    second = journal.record(transaction(at=SENT, gateway="mx2.council.test", queue_id="4dX2"))
    journal.set_state(second.id, State.HELD)
    assert deliver(courier(journal, box, "mx2.council.test")) == []
    assert deliver(courier(journal, box, "mx1.council.test")) == [(Fate.SENT, "")]


def test_a_sender_who_gets_too_many_gets_no_more(journal: Journal, box: Box) -> None:
    """In any case of letters; others still get theirs, and an hour later so does this one."""
    for number in range(MOST + 1):
        sender = "CLERK@council.test" if number % 2 else "clerk@council.test"
        due(journal, sender=sender, message_id=f"<{number}@council.test>", reference=f"2222-{number:04}")
    due(journal, sender="mayor@council.test", reference="3333-3333")
    one = courier(journal, box)
    outcomes = deliver(one)
    assert outcomes.count((Fate.SENT, "")) == MOST + 1
    assert outcomes.count((Fate.SUPPRESSED, f"the sender got {MOST} notices within an hour")) == 1
    due(journal, reference="4444-4444")
    assert deliver(one, SENT + timedelta(minutes=61)) == [(Fate.SENT, "")]


def test_a_notice_that_cannot_be_sent_is_tried_again_later(journal: Journal, box: Box) -> None:
    """With longer and longer pauses; one round ends at the first failure, and the next goes on behind it."""
    due(journal, reference="2222-2222")
    due(journal, reference="3333-3333")
    one = courier(journal, box)
    box.broken = "disk full"
    assert deliver(one) == [(Fate.FAILED, "disk full")]
    assert deliver(one) == [(Fate.FAILED, "disk full")]
    assert deliver(one) == []
    assert deliver(one, SENT + MINUTE) == [(Fate.FAILED, "disk full")]
    box.broken = ""
    assert deliver(one, SENT + 2 * MINUTE - timedelta(seconds=1)) == [(Fate.SENT, "")]
    assert deliver(one, SENT + 3 * MINUTE) == [(Fate.SENT, "")]
    assert len(box.sent) == 2


def test_a_notice_is_not_sent_again_because_the_journal_failed(
    journal: Journal, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was handed over; what is left is to write that down."""
    incident_id = due(journal)
    one = courier(journal, box)

    def fails(*_args: object, **_over: object) -> bool:
        raise OSError("the journal cannot be written")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "notice_sent", fails)
        with pytest.raises(OSError, match="cannot be written"):
            deliver(one)
    assert deliver(one) == [(Fate.SENT, "")]
    assert len(box.sent) == 1
    assert told(journal, incident_id) == [("notice sent", "")]


# -- sendmail(1)


def program(path: Path, script: str) -> Path:
    """A shell script in the place of sendmail(1)."""
    file = path / "sendmail"
    file.write_text(f"#!/bin/sh\ncd {path}\n{script}\n")
    file.chmod(0o755)
    return file


def test_what_sendmail_is_given(tmp_path: Path) -> None:
    """The null sender, the recipient behind `--`, the message with LF, and nothing of our own environment."""
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
        ("exit 1", "ended with status 1: it said nothing"),
        ("kill -9 $$", "ended with status -9"),
    ],
)
def test_what_sendmail_says_when_it_fails(tmp_path: Path, script: str, said: str) -> None:
    """Its status and its words; also if it never reads the message."""
    with pytest.raises(NoticeError, match=said):
        send(notice("held"), "clerk@council.test", program(tmp_path, script))


def test_a_sendmail_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """postdrop(1) is its child, and holds the pipe that we would read from."""
    script = "echo $$ >parent; sh -c 'echo $$ >child; exec sleep 60'; exit 0"
    sendmail = program(tmp_path, script)
    with pytest.raises(NoticeError, match=r"did not end within 0\.5 s"):
        send(notice("held"), "clerk@council.test", sendmail, patience=0.5)
    for name in ("parent", "child"):
        pid = int((tmp_path / name).read_text())
        until(lambda pid=pid: not running(pid), within=10, what=f"the {name} to end")  # type: ignore[misc]


def running(pid: int) -> bool:
    """Whether a process still does something: init may be slow to collect a dead one."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    return state != "Z"


def test_a_sendmail_that_is_not_there(tmp_path: Path) -> None:
    """What cannot be started is named."""
    with pytest.raises(NoticeError, match="sendmail cannot be started: No such file"):
        send(notice("held"), "clerk@council.test", tmp_path / "sendmail")


@pytest.mark.parametrize("sender", ["", "a@council.test,b@family.test", "a@council.test b@family.test", "clerk"])
def test_sendmail_is_never_given_two_addresses(tmp_path: Path, sender: str) -> None:
    """It reads several in one argument."""
    with pytest.raises(NoticeError, match="no address"):
        send(notice("held"), sender, program(tmp_path, "touch called"))
    assert list(tmp_path.iterdir()) == [tmp_path / "sendmail"]
