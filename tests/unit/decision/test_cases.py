"""The cases, played by the session and the core alone, without protocol, socket or log file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog

from support import casefile
from support.casefile import Case, CaseError, Seen
from support.delivered_header import leaks
from support.recorders import SessionRecorder
from undisclosed import log
from undisclosed.config.load import load
from undisclosed.milter.answers import Accept, Answer, Continue, Hold, Refuse, Rewrite, Skip
from undisclosed.milter.session import Runtime, Session, Snapshot

CASES = casefile.every_case()

OUTCOMES: dict[type[Any], str] = {Accept: "accepted", Rewrite: "rewritten", Hold: "held", Refuse: "rejected"}


def play(case: Case, directory: Path) -> tuple[Seen, bytes | None]:
    """The answer of the session, and the message as it would leave (None if it would not)."""
    path = directory / "config.toml"
    case.configure(path)
    with structlog.testing.capture_logs() as lines:
        session = Session(Runtime(Snapshot(load(path), b"0" * 32, "mx1"), log.get(), SessionRecorder()))
        session.connect(case.client, case.port)
        session.mail(f"<{case.sender}>", case.login)
        for recipient in case.recipients:
            session.rcpt(f"<{recipient}>")
        for name, value in casefile.header_events(case.message):
            session.header(name.decode("ascii"), value.decode("utf-8", "surrogateescape"))
        answer, stage = session.end_of_header("4dX1c23kLmz9Q"), "eoh"
        if isinstance(answer, Continue):
            answer, stage = rest(session, casefile.body_events(case.message)), "eom"
        session.answered(answer)
    [line] = lines
    message = None if isinstance(answer, Refuse) else case.message
    if isinstance(answer, Rewrite):
        message = casefile.edited(case.message, answer.edits)
    outcome = OUTCOMES[type(answer)]
    return casefile.seen(case, line, outcome=outcome, stage=stage, reply=spoken(answer), message=message), message


def rest(session: Session, body: list[bytes]) -> Answer:
    """Send the body until the session skips the rest, and the end of the message."""
    for chunk in body:
        if isinstance(session.body(chunk), Skip):
            break
    return session.end_of_message()


def spoken(answer: Answer) -> list[str]:
    """A reply as on the wire."""
    if not isinstance(answer, Refuse):
        return []
    return answer.reply.on_the_wire(answer.in_one_line)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path) -> None:
    """The result is that of the case; after a rewrite no outside address is visible."""
    actual, message = play(case, tmp_path)
    assert actual == casefile.wanted(case)
    if actual.outcome == "rewritten":
        assert message is not None
        assert leaks(message, internal=casefile.internal(case), author=case.expected["author"]) == []


SOUND = """\
It shows something.

-- policy --
mode = "enforce"

-- message --
To: ann@family.test

-- expected --
action: accept
stage: eoh
rule: none
count: 1
"""


@pytest.mark.parametrize(
    ("sound", "broken", "complaint"),
    [
        ("It shows something.", "", "does not say what it shows"),
        ("-- message --", "-- mesage --", "no such section: mesage"),
        ("-- policy --", "-- file --", "no such section: file"),
        ("-- policy --", "-- message --", "two sections message"),
        ("-- policy --", "-- outgoing --", "in another order"),
        ("count: 1", "count: 1\ncuont: 2", "unknown: cuont"),
        ("count: 1", "", "missing: count"),
        ("eoh", "header", "stage is eoh or eom"),
        ("action: accept", "action: rewrite", "has an outgoing section"),
        ("action: accept", "action: send", "send"),
        ('mode = "enforce"', "mode", "line 1"),
    ],
)
def test_a_case_file_with_a_mistake_is_refused(sound: str, broken: str, complaint: str, tmp_path: Path) -> None:
    """A typing error must not make a case test less than it seems to."""
    path = tmp_path / "slip.case"
    path.write_text(SOUND)
    assert casefile.load(path).message == b"To: ann@family.test\n"
    assert sound in SOUND
    path.write_text(SOUND.replace(sound, broken))
    with pytest.raises(CaseError, match=complaint):
        casefile.load(path)
