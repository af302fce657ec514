"""`undisclosed reload`, as ExecReload runs it in both units: the result of the reload, within ten seconds."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import pytest
import structlog

from lab.milter import Milter, console_script
from lab.steward import Steward
from lab.waiting import until
from support import children
from support.factories import rule
from undisclosed import notices
from undisclosed.config.key_file import read_key
from undisclosed.config.load import load
from undisclosed.milter.session import Snapshot
from undisclosed.milter.supervisor import Supervisor
from undisclosed.service.reload import ANSWER_TIMEOUT
from undisclosed.steward import process as steward_process
from undisclosed.steward.context import Context
from wire.mta import Mta
from wire.running import Running, Start
from wire.test_protocol import HEADER

SERVICES = ("milter", "steward")


@contextmanager
def service(start: Start, name: str) -> Iterator[tuple[Running, Milter]]:
    """The milter, or a steward beside it. The steward finds no Postfix: it tries again and again, and still reloads."""
    running = start()
    if name == "milter":
        yield running, running.milter
        return
    with Steward(running.config, directory=running.directory) as steward:
        yield running, steward


@pytest.mark.parametrize("name", SERVICES)
def test_a_correct_file_is_taken(start: Start, name: str) -> None:
    """Exit status 0, and the new configuration is in force when the command ends."""
    with service(start, name) as (running, process):
        running.configure(rules=[rule(more_than_addresses=11)])
        done = process.reload_command()
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "The new configuration is in force.\n"
        assert len(process.log(event="reloaded")) == 1


@pytest.mark.parametrize("name", SERVICES)
def test_a_refused_file_is_an_error_with_its_reason(start: Start, name: str) -> None:
    """Exit status 1, with the file, the line and what to write; the status text for `systemctl status` has it too."""
    with service(start, name) as (running, process):
        running.config.write_text(running.config.read_text().replace('action = "reject"', 'action = "perhaps"'))
        done = process.reload_command()
        assert (done.returncode, done.stdout) == (1, "")
        first, where, *_ = done.stderr.splitlines()
        assert first == "undisclosed: the new configuration is refused, the old one stays in force:"
        assert where.startswith(f"{running.config}, line ")
        assert "perhaps" in where
        status = [line for line in process.notifications() if line.startswith("STATUS=")][-1]
        assert status.startswith("STATUS=reload refused, the old configuration stays in force: ")
        assert "perhaps" in status


@pytest.mark.parametrize(
    ("name", "section", "setting"), [("milter", "milter", "workers"), ("steward", "journal", "retention_days")]
)
def test_a_setting_that_needs_a_restart_is_named(start: Start, name: str, section: str, setting: str) -> None:
    """The rest of the new configuration is in force: exit status 0. It is named at each reload until the restart."""
    with service(start, name) as (running, process):
        running.configure(**{section: {setting: 7}})
        for _ in range(2):
            done = process.reload_command()
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines()[1] == f"Not before a restart: {section}.{setting}"


@pytest.mark.parametrize("name", SERVICES)
def test_each_of_two_reloads_in_a_row_gets_its_own_result(start: Start, name: str) -> None:
    """The result of the reload before is never taken for the answer."""
    with service(start, name) as (running, process):
        correct = running.config.read_text()
        running.config.write_text("rules = 7")
        assert process.reload_command().returncode == 1
        running.config.write_text(correct)
        assert process.reload_command().returncode == 0
        running.config.write_text("rules = 7")
        assert process.reload_command().returncode == 1


def test_reloads_at_the_same_time_are_all_answered(start: Start) -> None:
    """Two signals may arrive as one."""
    running = start()
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(running.directory / "run-milter")}
    command = [str(console_script()), "reload", str(running.milter.pid)]
    commands = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(4)]
    until(lambda: all(process.poll() is not None for process in commands), what="every answer")
    assert [process.returncode for process in commands] == [0] * 4


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_does_not_answer_is_an_error(start: Start, name: str) -> None:
    """A process that is stopped (SIGSTOP): exit status 1, after a wait that leaves the command time to start."""
    assert ANSWER_TIMEOUT < 10
    with service(start, name) as (_, process):
        assert process.reload_command().returncode == 0
        os.kill(process.pid, signal.SIGSTOP)
        try:
            done = process.reload_command()
        finally:
            os.kill(process.pid, signal.SIGCONT)
    assert done.returncode == 1
    assert f"process {process_id(done.stderr)} has not answered within {ANSWER_TIMEOUT:g} seconds" in done.stderr


def serve_with_a_failing_reload(says: Connection, name: str, config: Path) -> None:
    """Run a service whose reload fails by an error that is no ConfigError: SIGHUP once it is ready, then SIGTERM."""
    service_pid = os.getpid()

    def react(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
        says.send(f"{event['event']}: {event.get('reason')}")
        if event["event"] in ("milter_ready", "steward_ready"):
            os.kill(service_pid, signal.SIGHUP)
        elif event["event"] == "reload_refused":
            os.kill(service_pid, signal.SIGTERM)
        return ""

    def fail() -> NoReturn:
        raise RuntimeError("an error that nobody foresaw")

    log: structlog.BoundLogger = structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[react], wrapper_class=structlog.BoundLogger
    )
    policy = load(config)
    key = read_key(policy, create=False)
    if name == "milter":
        Supervisor(Snapshot(policy, key, "mx1"), fail, log).run()
    else:
        settings = steward_process.StewardSettings(Context(policy, key, "mx1"), notices.load(policy, config))
        steward_process.run(settings, fail, "root", log)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_survives_every_failure_of_a_reload(start: Start, name: str) -> None:
    """The error refuses the reload, the service goes on, and it ends only at SIGTERM."""
    running = start()
    running.milter.stop()
    events, status = children.run(serve_with_a_failing_reload, name, running.config)
    assert "reload_refused: an error that nobody foresaw" in events
    assert status == 0


def test_the_words_of_a_reply_are_read_again(start: Start) -> None:
    """They belong to the policy: a new file is in force after a reload, and one with a mistake is refused."""
    running = start(notices={"templates": "words"})
    words = running.config.parent / "words" / "en" / "reply.txt"
    words.parent.mkdir(parents=True)
    words.write_text("Not sent: {count}.\nRing the mail desk, and quote {reference}.\n")
    assert running.milter.reload_command().returncode == 0
    with Mta(running.address).connect() as mta:
        own = mta.send(HEADER).reply
        words.write_text("Not sent.\nQuote {refrence}.\n")
        refused = running.milter.reload_command()
        kept = mta.send(HEADER).reply
    assert own.startswith("550-5.7.0 Not sent: 11.\r\n550 5.7.0 Ring the mail desk, and quote ")
    assert kept == own
    assert refused.returncode == 1
    assert f"{words}, line 2" in refused.stderr
    assert "there is no placeholder {refrence}" in refused.stderr


def process_id(message: str) -> str:
    """The process id in a message."""
    return message.partition("process ")[2].partition(" ")[0]


def test_a_service_that_is_gone_is_an_error() -> None:
    """The command ends at once, and says what to do."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    done = reload(gone.pid, RUNTIME_DIRECTORY="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"process {gone.pid} is gone: start the service again" in done.stderr


def test_without_a_runtime_directory_no_signal_is_sent(start: Start) -> None:
    """The command says how to reload."""
    running = start()
    done = reload(running.milter.pid)
    assert done.returncode == 1
    assert "RUNTIME_DIRECTORY is not set" in done.stderr
    assert "RELOADING=1" not in running.milter.notifications()


def test_the_result_is_for_the_services_user_only(start: Start) -> None:
    """The file quotes the configuration."""
    running = start()
    assert running.milter.reload_command().returncode == 0
    directory = running.directory / "run-milter" / "reload"
    assert directory.stat().st_mode & 0o077 == 0
    assert [path.name for path in directory.iterdir()] == ["result.json"]


def reload(pid: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """`undisclosed reload` with nothing but this in its environment."""
    return subprocess.run(
        [str(console_script()), "reload", str(pid)],
        env={"PATH": os.defpath, **environment},
        cwd=Path("/"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
