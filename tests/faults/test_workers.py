"""Workers and the supervisor: killed at any moment, stopped, kept away."""

from __future__ import annotations

import os
import random
import signal
import subprocess

import pytest

from faults.relay import Relay
from faults.trial import Trial
from lab import processes
from lab.milter import Milter, console_script
from lab.waiting import until
from live_postfix.load import RECIPIENTS, sender

EVENTS = {
    "connect": "C",
    "mail": "M",
    "rcpt": "R",
    "header": "L",
    "end of header": "N",
    "body": "B",
    "end of message": "E",
}
"""The stages of the milter protocol, and the letters of their packets."""

ANSWERS = {"hold": "q", "edit": "m"}
"""The answers of the milter before its final one."""


def kill_all(milter: Milter) -> None:
    """kill -9 of every worker, at once."""
    for pid in milter.workers():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("stage_of_message", [*EVENTS, *ANSWERS])
def test_the_workers_are_killed_at(relay: Relay, trial: Trial, stage_of_message: str) -> None:
    """kill -9 of all workers with a message at each stage, or between an edit or a hold and the final answer."""
    arm, letter = (
        (relay.at_event, EVENTS[stage_of_message])
        if stage_of_message in EVENTS
        else (relay.at_answer, ANSWERS[stage_of_message])
    )
    with trial.load(per_session=4) as load:
        load.go_on(8)
        arm(letter, lambda: kill_all(trial.milter))
        until(lambda: relay.has_struck, what="a message to get to that stage")
        trial.recover()
        load.go_on(8)
    killed(trial, 2)
    assert trial.codes()[451]
    what = (
        f"at {stage_of_message}" if stage_of_message in EVENTS else f"between {stage_of_message} and the final answer"
    )
    trial.report(f"All workers killed (`kill -9`), a message {what}", "by itself: the supervisor starts new ones")


def killed(trial: Trial, workers: int) -> None:
    """Wait until the supervisor has logged that so many workers were killed: others may answer before that."""
    until(
        lambda: len(trial.logged(event="worker_died", reason="killed by SIGKILL")) >= workers,
        what=f"{workers} deaths in the log",
    )
    assert len(trial.logged(event="worker_died")) == workers


def test_a_worker_is_killed_again_and_again(trial: Trial) -> None:
    """kill -9 in the middle of sessions, at any moment: each message is refused, held, rewritten or deferred."""
    killed_again_and_again(trial)
    trial.report("One worker after another killed (`kill -9`), four times", "by itself: the supervisor starts new ones")


def killed_again_and_again(trial: Trial) -> None:
    """Kill a worker four times under load, and wait until both are there again."""
    chance = random.Random(5)
    with trial.load(clients=5, pause=0) as load:
        for _ in range(4):
            load.go_on(30)
            os.kill(chance.choice(until(trial.milter.workers, what="a worker")), signal.SIGKILL)
        load.go_on(30)
    killed(trial, 4)
    # Whether a worker had a message in hand when it was killed, and 451 was the answer to it, is a matter of chance.
    assert {250, 550} <= set(load.codes()) <= {250, 451, 550}
    until(lambda: len(trial.milter.workers()) == 2, what="both workers to be back")
    trial.recover()


def test_a_worker_is_frozen(trial: Trial) -> None:
    """A stopped worker does not answer: Postfix waits, the other workers go on; once it continues, all mail passes."""
    [frozen, _] = trial.milter.workers()
    with trial.load() as load:
        load.go_on(8)
        os.kill(frozen, signal.SIGSTOP)
        try:
            load.go_on(8)
        finally:
            os.kill(frozen, signal.SIGCONT)
        trial.recover()
    assert set(load.codes()) <= {250, 451, 550}  # 451 if it was stopped while it wrote to the journal
    trial.report("One worker stands still for a moment (`SIGSTOP`)", "by itself: waiting messages are answered")


def test_the_supervisor_is_killed(trial: Trial) -> None:
    """kill -9 of the supervisor: its workers end, mail waits, and another one takes the place."""
    supervisor_killed(trial)
    trial.report(
        "The supervisor killed (`kill -9`)",
        "its workers end; systemd starts another",
    )


def supervisor_killed(trial: Trial) -> None:
    """Kill the supervisor under load, see that no worker stays, and start another one."""
    with trial.load() as load:
        load.go_on(12)
        workers = trial.milter.workers()
        trial.milter.kill()
        assert not [pid for pid in workers if processes.is_running(pid)]
        begun = load.begun
        load.go_on(12)
        assert {answer.code for answer in load.answers if answer.number >= begun} == {451}
        trial.start()
        trial.recover()
        load.go_on(8)


def test_the_milter_is_stopped(trial: Trial) -> None:
    """SIGTERM: the milter answers its messages and ends; then all mail is deferred, and no message passes."""
    with trial.load() as load:
        load.go_on(20)
        assert trial.milter.stop() == 0
        begun = load.begun
        load.go_on(12)
        assert {answer.code for answer in load.answers if answer.number >= begun} == {451}
        assert {250, 550} <= {answer.code for answer in load.answers if answer.number < begun}
        trial.start()
        trial.recover()
    assert not trial.logged(event="worker_killed")
    trial.report("The milter stopped (`SIGTERM`), and started again", "when it is started again")


def test_sighup_reaches_all_processes(trial: Trial) -> None:
    """`systemctl kill -s HUP`: the supervisor reloads, the workers ignore it, and no message fails (OpenDMARC#322)."""
    with trial.load() as load:
        load.go_on(8)
        workers = trial.milter.workers()
        for pid in (*workers, trial.milter.pid):
            os.kill(pid, signal.SIGHUP)
        until(lambda: trial.logged(event="reloaded"), what="the reload")
        load.go_on(8)
        assert sorted(trial.milter.workers()) == sorted(workers)
        trial.recover()
    assert {answer.code for answer in load.answers} <= {250, 550}
    trial.report("`SIGHUP` to the supervisor and all workers", "nothing to do: the workers ignore it")


def test_sendmail_waits_for_the_milter(trial: Trial) -> None:
    """Mail through sendmail(1) stays in maildrop while the milter does not run; then its rule applies."""
    postfix = trial.stage.postfix
    trial.milter.stop()
    refusals = "milter-reject|connect to Milter service"
    before = len(postfix.log_lines(refusals))
    postfix.sendmail(["-i", "-f", sender("rewrite"), *RECIPIENTS], trial.letter(1, "rewrite"))
    until(lambda: len(postfix.log_lines(refusals)) > before, what="a failed first attempt")
    assert (trial.stage.sink.deliveries, trial.stage.held()) == ((), [])
    trial.start()
    trial.took(1, "rewrite")
    trial.recover()
    trial.report(
        "The milter away while a program hands mail to sendmail(1)",
        "by itself: it waits in `maildrop` and is judged later; mail over SMTP is judged as usual",
    )


def test_two_supervisors_on_one_socket(trial: Trial) -> None:
    """The second supervisor prints the reason and ends; the first goes on without a failed message."""
    with trial.load() as load:
        load.go_on(8)
        second = subprocess.run(
            [str(console_script()), "run", "--config", str(trial.gateway.config)],
            capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        load.go_on(8)
    assert second.returncode == 1
    assert "another undisclosed runs" in second.stderr
    trial.recover()
    assert set(trial.codes()) == {250, 550}
    trial.report(
        "A second supervisor started on the same socket",
        "nothing to do: it reports `another undisclosed runs` and ends",
    )


def test_the_socket_is_gone(trial: Trial) -> None:
    """The file was removed: the milter makes a new one, and no message passes without a decision meanwhile.

    Clients that connect before that get 451; a quick supervisor leaves no time for it.
    """
    socket = trial.stage.postfix.queue_dir / "undisclosed" / "milter.sock"
    with trial.load(per_session=4) as load:
        load.go_on(8)
        socket.unlink()
        until(lambda: trial.logged(event="socket_put_back"), what="the socket to be put back")
        trial.recover()
        load.go_on(8)
    assert len(trial.logged(event="socket_put_back")) == 1
    assert not trial.logged(event="worker_died")
    assert {250, 550} <= set(load.codes()) <= {250, 451, 550}
    trial.report("The socket's file removed", "by itself: the supervisor makes it again")
