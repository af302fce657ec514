"""Supervisor and workers: killed, stopped, reloaded, orphaned."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from miltertest import MilterError

from lab import processes
from lab.milter import Milter, console_script
from lab.postgres import Postgres
from lab.waiting import until
from support.factories import rule, strangers
from wire.loads import held
from wire.mta import Mta
from wire.running import Running, Start

ORDINARY = (("From", "clerk@council.test"), ("To", "parent@family.test"))
MANY = (("From", "clerk@council.test"), ("To", ", ".join(strangers(11))))


def answers(running: Running) -> bool:
    """Whether a new session gets its answer."""
    try:
        with Mta(running.address).connect() as mta:
            return mta.send(MANY).word == "reject"
    except (OSError, MilterError):
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMIN + 1])
@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_a_worker_that_dies_is_replaced_and_the_socket_stays(start: Start, kind: str, number: int) -> None:
    """Killing each worker once leaves the socket in place, and new workers answer on it."""
    running = start(kind)
    before = running.milter.workers()
    for pid in before:
        os.kill(pid, number)
        assert until(lambda: answers(running), what="an answer while a worker is away")

    def replaced() -> bool:
        return len(set(running.milter.workers()) - set(before)) == 2

    until(replaced, what="two new workers")
    wait_for_deaths(running, 2)
    assert answers(running)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_workers_is_ignored(start: Start, number: signal.Signals) -> None:
    """`systemctl kill -s HUP` reaches them too: they died, and a message under way got 451 (OpenDMARC#322)."""
    running = start()
    before = running.milter.workers()
    with Mta(running.address).connect() as mta:
        mta.envelope("clerk@council.test", ["parent@family.test"])
        mta.header(MANY)
        for pid in before * 3:
            os.kill(pid, number)
        verdict = mta.end_of_header()
    assert verdict is not None
    assert verdict.word == "reject"
    running.configure(rules=[rule(more_than_addresses=11)])
    assert running.milter.reload_command().returncode == 0
    with Mta(running.address).connect() as mta:
        assert mta.send(MANY).word == "accept"
    assert sorted(running.milter.workers()) == sorted(before)
    assert running.milter.log(event="worker_died") == []


def test_sighup_to_all_processes_reloads(start: Start) -> None:
    """The supervisor acts on it, the workers do not, and a message under way is answered."""
    running = start()
    before = running.milter.workers()
    with Mta(running.address).connect() as mta:
        mta.envelope("clerk@council.test", ["parent@family.test"])
        mta.header(MANY)
        running.configure(rules=[rule(more_than_addresses=11)])
        for pid in (*before, running.milter.pid):
            os.kill(pid, signal.SIGHUP)
        until(lambda: running.milter.log(event="reloaded"), what="the end of the reload")
        verdict = mta.end_of_header()
        assert mta.send(MANY).word == "accept"
    assert verdict is not None
    assert verdict.word == "reject"
    assert sorted(running.milter.workers()) == sorted(before)


def test_workers_that_die_during_a_reload_are_replaced(start: Start) -> None:
    """The supervisor gets the reload, both deaths and both ends of file in one select(), and goes on."""
    running = start()
    before = running.milter.workers()
    with processes.suspended(running.milter.pid):
        running.milter.signal(signal.SIGHUP)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: all(map(is_dead, before)), what="both deaths")
    until(lambda: len(set(running.milter.workers()) - set(before)) == 2, what="two new workers")
    until(lambda: running.milter.notifications().count("READY=1") == 2, what="the end of the reload")
    assert until(lambda: answers(running), what="an answer")
    assert running.milter.stop() == 0


def is_dead(pid: int) -> bool:
    """Whether a process is a zombie: it has ended, and its parent has the signal (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def wait_for_deaths(running: Running, number: int) -> None:
    """Wait until the supervisor has logged so many deaths of workers."""
    until(lambda: len(running.milter.log(event="worker_died")) == number, what=f"{number} deaths in the log")


def test_a_worker_that_keeps_dying_is_replaced_after_longer_pauses(start: Start) -> None:
    """The pause doubles, so that a crash at the start of each worker does not load the machine."""
    running = start(milter={"workers": 1})
    for number in (1, 2, 3):
        [pid] = until(running.milter.workers, what="a worker")
        os.kill(pid, signal.SIGKILL)
        wait_for_deaths(running, number)
    assert [event["retry_in"] for event in running.milter.log(event="worker_died")] == [0.1, 0.2, 0.4]
    assert until(lambda: answers(running), what="an answer")


def test_the_supervisor_forks_without_threads(start: Start, postgres: Postgres) -> None:
    """A lock that another thread held at the fork would stay locked in the worker (Python 3.12 and later warn)."""
    url = postgres.create("threads")
    running = start(journal={"url": url})
    [worker, _] = running.milter.workers()
    assert running.milter.reload_command().returncode == 0
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in running.milter.workers(), what="its end")
    assert until(lambda: answers(running), what="an answer")
    assert [entry.name for entry in Path(f"/proc/{running.milter.pid}/task").iterdir()] == [str(running.milter.pid)]
    assert "DeprecationWarning" not in running.milter.log_file.read_text()
    running.milter.stop()
    postgres.drop("threads")


@pytest.mark.parametrize("everywhere", [False, True], ids=["to the supervisor", "to all processes"])
@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_sigterm_lets_callbacks_finish_and_leaves_no_process(start: Start, kind: str, everywhere: bool) -> None:
    """Under load every answer is right or missing, the exit status is 0, and the socket is removed."""
    running = start(kind)
    wrong: list[str] = []
    sent = threading.Semaphore(0)

    def load() -> None:
        try:
            with Mta(running.address).connect() as mta:
                while True:
                    if (word := mta.send(MANY).word) != "reject":
                        wrong.append(word)
                    sent.release()
        except (OSError, MilterError):
            return  # the milter went away between two messages

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        assert sent.acquire(timeout=10)
    workers = running.milter.workers()
    for pid in workers if everywhere else ():
        os.kill(pid, signal.SIGTERM)
    assert running.milter.stop() == 0
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert wrong == []
    assert not [pid for pid in workers if processes.is_running(pid)]
    assert not running.path.exists()
    assert not running.milter.log(event="worker_killed")


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_no_orphan_survives_the_supervisor_and_another_can_start(start: Start, kind: str) -> None:
    """kill -9 of the supervisor ends its workers, and another supervisor can open the socket at once."""
    running = start(kind)
    workers = running.milter.workers()
    running.milter.kill()
    until(lambda: not any(map(processes.is_running, workers)), what="the workers to end")
    running.milter.start()
    assert answers(running)


def test_a_sound_file_is_taken_over_without_dropping_a_session(start: Start) -> None:
    """A session that was open before SIGHUP gets the new policy with its next message."""
    running = start()
    with Mta(running.address).connect() as mta:
        assert mta.send(MANY).word == "reject"
        running.configure(rules=[rule(more_than_addresses=11)])
        running.milter.reload()
        assert mta.send(MANY).word == "accept"
    said = running.milter.notifications()
    assert [line for line in said if "=" in line and not line.startswith(("MONOTONIC", "STATUS"))] == [
        "READY=1",
        "RELOADING=1",
        "READY=1",
    ]


def test_a_broken_file_is_refused_and_the_old_policy_stays(start: Start) -> None:
    """The log has the reason; a file that is missing is refused as well."""
    running = start()
    running.config.write_text("rules = 7")
    running.milter.reload()
    assert "rules" in running.milter.log(event="reload_refused")[0]["reason"]
    assert answers(running)
    running.config.unlink()
    running.milter.reload()
    assert len(running.milter.log(event="reload_refused")) == 2
    assert answers(running)


def test_what_a_reload_cannot_change_is_named(start: Start) -> None:
    """The log names the settings that need a restart."""
    running = start()
    running.configure(milter={"workers": 3}, log={"format": "console"})
    running.milter.reload()
    [event] = running.milter.log(event="restart_needed")
    assert event["settings"] == ["milter.workers", "log.format"]


def test_a_message_under_way_ends_under_the_policy_it_began_with(start: Start) -> None:
    """A reload between MAIL and the end of the header does not change the final answer."""
    running = start(milter={"workers": 1})
    with Mta(running.address).connect() as mta, Mta(running.address).connect() as other:
        mta.envelope("clerk@council.test", ["parent@family.test"])
        mta.header(MANY[:1])
        assert other.send(MANY).word == "reject"  # the events before it were read as well
        running.configure(rules=[rule(more_than_addresses=11)])
        running.milter.reload()
        assert other.send(MANY).word == "accept"
        mta.header(MANY[1:])
        final_answer = mta.end_of_header()
    assert final_answer is not None
    assert final_answer.word == "reject"


def test_the_unix_socket_has_its_mode_and_group(start: Start) -> None:
    """Postfix's group may write to it, others may not; the directory's setgid bit gives the group."""
    running = start(milter={"socket_mode": "0640", "socket_group": "nogroup"})
    found = running.path.stat()
    assert (stat.S_ISSOCK(found.st_mode), stat.S_IMODE(found.st_mode)) == (True, 0o640)
    assert running.path.group() == "nogroup"


def test_a_second_supervisor_is_kept_away(start: Start) -> None:
    """The second supervisor logs the reason and ends, and the first one goes on."""
    running = start()
    second = run(running.config)
    assert second.returncode == 1
    assert "another undisclosed runs" in second.stderr
    assert answers(running)


def test_a_file_in_the_sockets_place_is_not_harmed(tmp_path: Path, start: Start) -> None:
    """The milter does not start and logs the reason; the file is unchanged."""
    running = start()
    running.milter.stop()
    running.path.write_text("precious")
    refused = run(running.config)
    assert refused.returncode == 1
    assert "is no socket" in refused.stderr
    assert running.path.read_text() == "precious"


def test_a_stale_socket_is_replaced(start: Start) -> None:
    """A socket that was left behind at a power loss does not prevent the next start."""
    running = start()
    running.milter.stop()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(running.path))
    running.milter.start()
    assert answers(running)


def test_a_port_that_is_taken_is_named(start: Start) -> None:
    """The error names the socket and what to do."""
    running = start("inet")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        running.configure(milter={"socket": f"inet:{taken.getsockname()[1]}@127.0.0.1"})
        refused = run(running.config)
    assert refused.returncode == 1
    assert "cannot listen at" in refused.stderr
    assert "milter.socket" in refused.stderr


def test_a_frozen_worker_does_not_keep_the_supervisor_from_stopping(start: Start) -> None:
    """A worker that does not answer is killed, and the milter ends within ten seconds."""
    running = start()
    os.kill(running.milter.workers()[0], signal.SIGSTOP)
    assert running.milter.stop() == 0
    assert running.milter.log(event="worker_killed")


def test_a_frozen_worker_does_not_go_on_by_the_old_settings(start: Start) -> None:
    """At a reload it is killed and replaced; the reload is complete only then."""
    running = start()
    [frozen, _] = running.milter.workers()
    os.kill(frozen, signal.SIGSTOP)
    running.configure(rules=[rule(more_than_addresses=11)])
    running.milter.reload()
    assert [event["pid"] for event in running.milter.log(event="worker_frozen")] == [frozen]
    assert frozen not in running.milter.workers()
    for _ in range(4):
        with Mta(running.address).connect() as mta:
            assert mta.send(MANY).word == "accept"


def test_a_socket_that_somebody_removed_is_named_at_reload(start: Start) -> None:
    """Postfix no longer finds the milter: the log has an error."""
    running = start()
    running.path.unlink()
    running.milter.reload()
    assert running.milter.log(event="socket_gone")


def test_a_thousand_sessions_at_once_are_all_answered(start: Start) -> None:
    """No session is refused, and the descriptors of closed ones are released."""
    running = start(milter={"workers": 1})
    before = held(running.milter).sockets
    sessions = [Mta(running.address) for _ in range(1000)]
    for mta in sessions:
        mta.connect()
    assert {mta.send(MANY).word for mta in sessions[::10]} == {"reject"}
    for mta in sessions:
        mta.socket.close()
    until(lambda: held(running.milter).sockets <= before, what="the descriptors to be given back")


def run(config: Path) -> subprocess.CompletedProcess[str]:
    """`undisclosed run` where it is expected to end by itself."""
    return subprocess.run(
        [str(console_script()), "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_milter_needs_no_home(start: Start) -> None:
    """The milter runs with PATH as its only environment variable, as under a hardened service manager."""
    running = start()
    environment = Path(f"/proc/{running.milter.pid}/environ").read_bytes().split(b"\0")
    assert not [variable for variable in environment if variable.startswith(b"HOME=")]
    assert isinstance(running.milter, Milter)
    assert answers(running)
