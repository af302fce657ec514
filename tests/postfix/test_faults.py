"""Whatever fails under load: nothing leaks, nothing that was taken is lost, and mail flows again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from factories import rule
from lab import processes
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.waiting import until
from postfix.load import KINDS, RECIPIENTS, RULES, Answer, Load, letter, sender, wrongs
from postfix.stage import Stage, attached

RIGHT = {"ordinary": 250, "rewrite": 250, "quarantine": 250, "reject": 550}
"""What a client is told where nothing fails."""


@pytest.fixture(scope="module", params=["unix", "inet"])
def attached_stage(request: pytest.FixtureRequest, installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Stage]:
    """The gateway of this file's tests, on each kind of socket."""
    socket = "unix" if request.param == "unix" else f"inet:{processes.free_port()}@127.0.0.1"
    with attached(installed_postfix, outside, socket=socket) as stage:
        yield stage


@pytest.fixture
def stage(attached_stage: Stage) -> Stage:
    """The gateway, with a rule for each kind of message, and a milter that was started just now."""
    attached_stage.gateway.milter.stop()
    attached_stage.policy("reject", rules=RULES)
    return attached_stage


def one_of_each(stage: Stage, first: int) -> list[Answer]:
    """A message of each kind, one after the other."""
    answers = []
    for number, kind in enumerate(KINDS, first):
        outcome = stage.gateway.send(letter(number, kind), sender=sender(kind), to=RECIPIENTS)
        answers.append(Answer(number, kind, outcome.final.code))
    return answers


def as_ever(stage: Stage, first: int) -> bool:
    """Whether each kind of message is answered as if nothing had ever failed."""
    return all(answer.code == RIGHT[answer.kind] for answer in one_of_each(stage, first))


def test_a_worker_killed_again_and_again(stage: Stage) -> None:
    """kill -9 in the middle of sessions: each message is refused, held, hidden or told to come back."""
    milter = stage.gateway.milter
    chance = random.Random(5)
    with Load(stage.postfix.port, clients=5) as load:
        for _ in range(6):
            load.go_on(40)
            os.kill(chance.choice(until(milter.workers, within=20, what="a worker")), signal.SIGKILL)
        load.go_on(40)
    assert wrongs(stage, load.answers) == []
    assert len(milter.log(event="worker_died", how="killed by SIGKILL")) == 6
    assert {250, 451, 550} <= set(load.codes())
    until(lambda: len(milter.workers()) == 2, within=20, what="both workers to be back")
    assert as_ever(stage, 1_000_000)


def test_a_new_policy_under_load(stage: Stage) -> None:
    """SIGHUP with a sound file: no session drops, no message fails, and what begins later is judged by it."""
    with Load(stage.postfix.port, kinds=("reject",), per_session=10**6) as load:
        assert {answer.code for answer in load.go_on(40)} == {550}
        stage.gateway.configure(stage.gateway.policy("rewrite"))
        stage.gateway.milter.reload()
        later = load.go_on(100)
        # What a client had begun before the reload ends under the policy it began with: one message each at most.
        assert [answer.code for answer in later].count(550) <= load.clients
    assert load.sessions == load.clients
    assert set(load.codes()) == {250, 550}
    assert wrongs(stage, [answer._replace(kind="rewrite") for answer in load.answers if answer.code == 250]) == []


def test_a_broken_policy_under_load(stage: Stage) -> None:
    """SIGHUP with a broken file: the log says why, and every message goes on being judged by the old one."""
    with Load(stage.postfix.port, per_session=10**6) as load:
        load.go_on(20)
        for broken in ("rules = 7", '[[rules]]\nname = "x"\naction = "perhaps"', "\0"):
            stage.gateway.configure(broken)
            stage.gateway.milter.reload()
            load.go_on(20)
    assert len(stage.gateway.milter.log(event="reload_refused")) == 3
    assert load.sessions == load.clients
    assert {(answer.kind, answer.code) for answer in load.answers} == set(RIGHT.items())
    assert wrongs(stage, load.answers) == []


def test_the_milter_is_stopped_under_load(stage: Stage) -> None:
    """SIGTERM: gone within ten seconds, what it had in hand is answered; then all mail waits, and nothing is let by."""
    milter = stage.gateway.milter
    with Load(stage.postfix.port) as load:
        load.go_on(40)
        began = time.monotonic()
        assert milter.stop() == 0
        assert time.monotonic() - began < 10
        begun = load.begun
        load.go_on(40)
    assert not milter.log(event="worker_killed")
    assert wrongs(stage, load.answers) == []
    assert {answer.code for answer in load.answers if answer.number >= begun} == {451}
    assert {250, 550} <= {answer.code for answer in load.answers if answer.number < begun}
    milter.start()
    assert as_ever(stage, 1_000_000)


def test_the_supervisor_is_killed_under_load(stage: Stage) -> None:
    """kill -9 of the supervisor: its workers end, mail waits, and another one takes the place."""
    milter = stage.gateway.milter
    with Load(stage.postfix.port) as load:
        load.go_on(40)
        workers = milter.workers()
        milter.kill()
        assert not [pid for pid in workers if processes.is_running(pid)]
        load.go_on(20)
        milter.start()
        until(lambda: {answer.code for answer in load.go_on(20)} == {250, 550}, within=20, what="mail to flow again")
    assert wrongs(stage, load.answers) == []
    assert 451 in load.codes()
    assert as_ever(stage, 1_000_000)


def test_without_the_milter_all_mail_waits(stage: Stage) -> None:
    """With the milter away the client is told to come back, in every kind of mail, and nothing of it stays behind."""
    stage.gateway.milter.stop()
    answers = one_of_each(stage, 1)
    assert {answer.code for answer in answers} == {451}
    assert wrongs(stage, answers) == []


def test_sendmail_waits_for_the_milter(stage: Stage) -> None:
    """Mail through sendmail(1) stays in maildrop while the milter is away, and then meets its rule."""
    stage.gateway.milter.stop()
    refusals = "milter-reject|connect to Milter service"
    before = len(stage.postfix.log_lines(refusals))
    stage.postfix.sendmail(["-i", "-f", sender("rewrite"), *RECIPIENTS], letter(1, "rewrite"))
    until(lambda: len(stage.postfix.log_lines(refusals)) > before, within=20, what="a first attempt in vain")
    assert (stage.sink.deliveries, stage.held()) == ((), [])
    stage.gateway.milter.start()
    assert wrongs(stage, [Answer(1, "rewrite", 250)]) == []


def test_two_rules_with_one_name_never_get_into_force(stage: Stage) -> None:
    """What check-config refuses, a reload refuses too."""
    stage.gateway.configure(stage.gateway.policy(rules=[rule(), rule()]))
    stage.gateway.milter.reload()
    assert stage.gateway.milter.log(event="reload_refused")
    assert as_ever(stage, 1)
