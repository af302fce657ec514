"""One SMTP session: many messages with one log line each, and a temporary refusal after every failure."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from support.factories import policy, rule, strangers
from support.recorders import SessionRecorder
from undisclosed import log
from undisclosed.decision.obstacles import INVITATION
from undisclosed.milter.answers import Accept, Answer, Continue, Hold, Refuse, Rewrite, Skip
from undisclosed.milter.session import Runtime, Session, Snapshot
from undisclosed.policy import Action

MANY = ", ".join(strangers(11))
KEY = b"0" * 32

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The logged events."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def open_session(recorder: SessionRecorder | None = None, **over: Any) -> tuple[Runtime, Session]:
    """A session of a client on this host, under a policy made of `over`."""
    runtime = Runtime(Snapshot(policy(**over), KEY, "mx1"), log.get(), recorder or SessionRecorder())
    session = Session(runtime)
    session.connect("127.0.0.1", 40000)
    return runtime, session


def send(
    session: Session,
    *fields: tuple[str, str],
    queue_id: str = "4dX1",
    body: bytes = b"",
    sender: str = "<clerk@council.test>",
) -> Answer:
    """Play one message to its final answer, as callbacks.py does."""
    session.mail(sender, "")
    session.rcpt("<parent@family.test>")
    for name, value in fields:
        session.header(name, value)
    answer = session.end_of_header(queue_id)
    if isinstance(answer, Continue):
        if body and session.body(body) == Continue():
            session.body(b"")
        answer = session.end_of_message()
    session.answered(answer)
    return answer


def test_each_message_of_a_session_gets_its_own_verdict(lines: Lines) -> None:
    """No state of one message is left when the next one begins."""
    _, session = open_session()
    first = send(session, ("To", MANY), queue_id="4dX1")
    second = send(session, ("To", "parent@family.test"), queue_id="4dX2")
    third = send(session, ("To", MANY), queue_id="4dX3")
    assert [type(answer) for answer in (first, second, third)] == [Refuse, Accept, Refuse]
    assert [(line["queue_id"], line["outcome"], line["count"]) for line in lines] == [
        ("4dX1", "rejected", 11),
        ("4dX2", "accepted", 1),
        ("4dX3", "rejected", 11),
    ]


def test_the_line_of_a_message_names_no_recipient(lines: Lines) -> None:
    """The log holds no address of a recipient."""
    _, session = open_session()
    send(session, ("To", MANY))
    assert len(lines) == 1
    assert "@family" not in repr(lines)
    assert lines[0]["sender"] == "clerk@council.test"
    refusal = send(session, ("To", MANY))
    assert isinstance(refusal, Refuse)
    assert lines[0]["reference"] in refusal.reply.lines[-1]


@pytest.mark.parametrize(
    ("action", "expected"), [("warn", Accept), ("rewrite", Rewrite), ("quarantine", Hold), ("reject", Refuse)]
)
def test_an_action_becomes_its_answer(action: str, expected: type, lines: Lines) -> None:
    """Each action that a rule may ask for has one answer."""
    _, session = open_session(rules=[rule(action=action)])
    assert type(send(session, ("To", MANY))) is expected
    assert lines[0]["action"] == action


@pytest.mark.parametrize("action", [action for action in Action if action.effect.treatment is not None])
def test_no_message_is_delivered_changed_or_warned_about_without_its_record(action: Action, lines: Lines) -> None:
    """After a failed record, 451 for an action that delivers; every other one refuses or holds as before."""
    _, session = open_session(SessionRecorder(fails=True), rules=[rule(action=action.value)])
    answer = send(session, ("To", MANY))
    assert (isinstance(answer, Refuse) and answer.reply.code == 451) is action.effect.delivers
    assert not isinstance(answer, Accept | Rewrite)
    assert lines[-1]["journal"] == "failed"


@pytest.mark.parametrize("action", ["warn", "rewrite", "quarantine", "reject"])
def test_monitor_mode_only_records(action: str, lines: Lines) -> None:
    """The line has the action that enforce mode would take; the message passes."""
    _, session = open_session(mode="monitor", rules=[rule(action=action)])
    assert send(session, ("To", MANY)) == Accept()
    assert (lines[0]["action"], lines[0]["outcome"], lines[0]["mode"]) == (action, "accepted", "monitor")


def test_monitor_mode_reads_the_body_where_the_decision_depends_on_it(lines: Lines) -> None:
    """Monitor mode logs the action that enforce mode would take."""
    _, session = open_session(mode="monitor", rules=[rule(action="rewrite")])
    fields = (("To", MANY), ("MIME-Version", "1.0"), ("Content-Type", "multipart/mixed; boundary=x"))
    send(session, *fields, body=b"--x\r\nContent-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR\r\n--x--\r\n")
    assert (lines[0]["action"], lines[0]["outcome"]) == ("quarantine", "accepted")


def test_a_failure_in_a_stage_without_an_answer_refuses_at_the_end_of_the_header(lines: Lines) -> None:
    """libmilter ignores the failure there, and the message must not pass. The next message is decided as usual."""
    _, session = open_session()
    session.mail("<clerk@council.test>", "")
    session.failed(MemoryError("no room for the field"))
    with pytest.raises(MemoryError) as caught:
        session.end_of_header("4dX1")
    answer = session.fault("end_of_header", caught.value)
    assert isinstance(answer, Refuse)
    assert answer.reply.code == 451
    assert (lines[0]["event"], lines[0]["queue_id"], lines[0]["answer"]) == ("message_failed", "4dX1", "tempfail")
    assert "no room for the field" in lines[0]["reason"]
    assert send(session, ("To", "parent@family.test")) == Accept()


def test_a_failure_before_any_message_refuses_all_of_the_session(lines: Lines) -> None:
    """The client's address was not understood, so that no message of this client can be decided."""
    _, session = open_session()
    session.failed(ValueError("no such client"))
    session.mail("<clerk@council.test>", "")
    with pytest.raises(ValueError, match="no such client"):
        session.end_of_header("4dX1")


def test_a_failure_of_the_milter_passes_in_monitor_mode(lines: Lines) -> None:
    """Monitor mode never delays mail; the failure is in the log."""
    _, session = open_session(mode="monitor")
    session.mail("<clerk@council.test>", "")
    assert session.fault("end_of_header", RuntimeError("boom")) == Accept()
    assert lines[0]["answer"] == "accept"


@pytest.mark.parametrize("stage", ["rcpt", "header", "end_of_header", "body", "end_of_message"])
def test_a_stage_without_a_message_is_an_error(stage: str) -> None:
    """A peer that leaves out MAIL gets no answer but a temporary refusal."""
    _, session = open_session()
    arguments = {"rcpt": ("a",), "header": ("a", "b"), "end_of_header": ("4dX1",), "body": (b"",), "end_of_message": ()}
    with pytest.raises(RuntimeError):
        getattr(session, stage)(*arguments[stage])


def test_a_message_keeps_the_policy_it_began_with(lines: Lines) -> None:
    """A reload between MAIL and the end of the header changes the next message, not this one."""
    runtime, session = open_session()
    session.mail("<clerk@council.test>", "")
    session.rcpt("<parent@family.test>")
    runtime.snapshot = Snapshot(policy(rules=[rule(more_than_addresses=1000)]), KEY, "mx1")
    session.header("To", MANY)
    assert isinstance(session.end_of_header("4dX1"), Refuse)
    session.abort()
    assert send(session, ("To", MANY)) == Accept()


def test_a_client_that_goes_away_before_the_end_of_the_message_is_logged(lines: Lines) -> None:
    """The outcome is not "held": Postfix has no such message."""
    _, session = open_session(rules=[rule(action="quarantine")])
    session.mail("<clerk@council.test>", "")
    session.rcpt("<parent@family.test>")
    session.header("To", MANY)
    assert session.end_of_header("4dX1") == Continue()
    session.abort()
    assert [line["outcome"] for line in lines] == ["client_gone"]


def _at_body(action: str) -> Session:
    """A session at the beginning of the body of a multipart."""
    _, session = open_session(rules=[rule(action=action)])
    session.mail("<clerk@council.test>", "")
    for name, value in (("To", MANY), ("MIME-Version", "1.0"), ("Content-Type", "multipart/mixed; boundary=x")):
        session.header(name, value)
    assert session.end_of_header("4dX1") == Continue()
    return session


@pytest.mark.parametrize("action", ["rewrite", "split", "delay"])
def test_the_body_is_read_to_its_end_where_recipients_are_hidden(lines: Lines, action: str) -> None:
    """An invitation may be in the last part (hostile review, 3)."""
    session = _at_body(action)
    for _ in range(40):
        assert session.body(b"line\r\n" * 10_000) == Continue()
    assert session.body(b"--x\r\nContent-Type: text/calendar\r\n\r\n--x--\r\n") == Continue()
    assert isinstance(session.end_of_message(), Hold)
    assert [(line["action"], line["obstacle"]) for line in lines] == []
    session.answered(Hold("x"))
    assert [(line["action"], line["obstacle"]) for line in lines] == [("quarantine", INVITATION.text)]


def test_no_more_of_a_body_is_read_than_matters(lines: Lines) -> None:
    """A hold needs no body, and an obstacle that was found needs no more of it."""
    assert _at_body("quarantine").body(b"anything") == Skip()
    session = _at_body("rewrite")
    assert session.body(b"--x\r\nContent-Type: text/calendar\r\n\r\n" + b"line\r\n" * 10_000) == Continue()
    assert session.body(b"line\r\n" * 10_000) == Skip()
    assert session.body(b"sent all the same") == Skip()
    assert isinstance(session.end_of_message(), Hold)


def test_mail_through_sendmail_is_answered_in_one_line(lines: Lines) -> None:
    """The bounce repeats the whole reply for each recipient, with line ends as underscores (port 0: sendmail(1))."""
    _, session = open_session()
    session.connect("127.0.0.1", 0)
    answer = send(session, ("To", MANY))
    assert isinstance(answer, Refuse)
    assert answer.in_one_line


def test_the_header_of_a_message_that_cannot_be_outgoing_is_not_kept(lines: Lines) -> None:
    """The header of incoming mail is not kept, whatever its size, and passes unchanged."""
    _, session = open_session()
    session.connect("192.0.2.7", 40000)
    session.mail("<stranger@family.test>", "")
    for _ in range(20):
        session.header("X", "y" * 100_000)
    assert session.end_of_header("4dX1") == Accept()


def _send_too_large(session: Session, sender: str = "<clerk@council.test>") -> Answer:
    """Send a header of 1.1 MB."""
    return send(session, *[("To", "y" * 100_000)] * 11, sender=sender)


def test_a_header_that_is_too_large_is_refused_for_good(lines: Lines) -> None:
    """451 would keep mail by sendmail(1) in maildrop for ever (hostile review, 18). The next message is decided."""
    _, session = open_session()
    answer = _send_too_large(session)
    assert isinstance(answer, Refuse)
    assert (answer.reply.code, answer.reply.enhanced, answer.in_one_line) == (550, "5.3.4", False)
    assert lines == [
        {
            "event": "header_too_large",
            "log_level": "warning",
            "queue_id": "4dX1",
            "sender": "clerk@council.test",
            "client": "127.0.0.1",
            "login": "",
            "recipients": 1,
            "characters": 1_100_022,
            "outcome": "rejected",
        }
    ]
    assert send(session, ("To", MANY)) != Accept()


def test_a_header_that_is_too_large_by_sendmail(lines: Lines) -> None:
    """In one line: the bounce repeats the whole reply for each recipient."""
    _, session = open_session()
    session.connect("127.0.0.1", 0)
    answer = _send_too_large(session)
    assert isinstance(answer, Refuse)
    assert (answer.reply.code, answer.in_one_line) == (550, True)


def test_a_header_that_is_too_large_is_held_if_a_bounce_would_reach_nobody(lines: Lines) -> None:
    """sendmail(1) with the null sender: Postfix would discard the bounce, and the message with it."""
    _, session = open_session()
    session.connect("127.0.0.1", 0)
    assert _send_too_large(session, sender="") == Hold("the header is too large, and a bounce would reach nobody")
    assert [(line["event"], line["outcome"]) for line in lines] == [("header_too_large", "held")]


def test_a_header_that_is_too_large_passes_in_monitor_mode(lines: Lines) -> None:
    """Monitor mode refuses nothing; the log says that there was no decision."""
    _, session = open_session(mode="monitor")
    assert _send_too_large(session) == Accept()
    assert [(line["event"], line["outcome"]) for line in lines] == [("header_too_large", "accepted")]
