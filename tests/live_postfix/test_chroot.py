"""Postfix as Debian sets it up: smtpd and cleanup see nothing outside the queue directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab import processes
from lab.client import Client
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.waiting import until
from live_postfix.load import KINDS, RECIPIENTS, RULES, Answer, letter, sender, wrongs
from live_postfix.stage import Stage, attached


@pytest.fixture(scope="module", params=["unix", "inet"])
def attached_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A Postfix of its own, chrooted, with the milter attached."""
    socket = "unix" if request.param == "unix" else f"inet:{processes.reserve_port()}@127.0.0.1"
    with (
        Sink() as sink,
        PrivatePostfix(outside=sink.port, chroot=True) as postfix,
        attached(postfix, sink, socket=socket) as stage,
    ):
        yield stage


@pytest.fixture
def stage(attached_stage: Stage) -> Stage:
    """The gateway with a rule for each kind of message; no message is held or delivered."""
    attached_stage.policy("reject", rules=RULES)
    return attached_stage


def test_every_verdict_gets_through(stage: Stage) -> None:
    """The socket that attach wrote is reached from inside: each kind of message meets its rule."""
    answers = []
    with Client(stage.postfix.port) as session:
        smtpd = until(lambda: roots(stage, "smtpd"), what="smtpd")
        for number, kind in enumerate(KINDS):
            outcome = session.send(letter(number, kind), sender=sender(kind), to=RECIPIENTS)
            answers.append(Answer(number, kind, outcome.final.code))
    assert set(smtpd) == {stage.postfix.queue_dir}
    assert [answer.code for answer in answers] == [250, 250, 250, 550]
    assert wrongs(stage, answers) == []


def test_sendmail_meets_its_rule_too(stage: Stage) -> None:
    """cleanup(8) is chrooted as well when mail comes from pickup(8)."""
    for number, kind in enumerate(("rewrite", "quarantine")):
        stage.postfix.sendmail(["-i", "-f", sender(kind), *RECIPIENTS], letter(number, kind))
    assert wrongs(stage, [Answer(0, "rewrite", 250), Answer(1, "quarantine", 250)]) == []


def roots(stage: Stage, name: str) -> list[Path]:
    """The root directories of the processes of one of Postfix's services."""
    found = []
    for pid in processes.children(stage.postfix.master_pid):
        process = Path(f"/proc/{pid}")
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            if (process / "comm").read_text().strip() == name:
                found.append((process / "root").readlink())
    return found
