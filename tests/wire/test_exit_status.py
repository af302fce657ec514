"""Exit statuses of services that cannot start; the reason is last on standard error, and in the status text.

systemd starts a service again after status 1, not after 2 (RestartPreventExitStatus=2).
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.milter import console_script
from lab.postgres import Postgres
from support.factories import strangers
from wire.mta import Mta
from wire.running import Running, Start

MANY = (("From", "clerk@council.test"), ("To", ", ".join(strangers(11))))

CORRECTABLE, PASSING = 2, 1
"""The status for what only an administrator can correct, and for what may pass."""


@dataclass(frozen=True)
class Ended:
    """A service that has ended by itself."""

    status: int
    last_line: str
    status_text: str


USER: dict[str, tuple[str, ...]] = {"run": (), "steward": ("--user", "root")}


def end_of(running: Running, service: str, *options: str) -> Ended:
    """Run a service that is expected not to start."""
    options = options or USER[service]
    path = running.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(path))
        done = subprocess.run(
            [str(console_script()), service, "--config", str(running.config), *options],
            env={"PATH": os.defpath, "NOTIFY_SOCKET": str(path)},
            cwd=Path("/"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        told = manager.recv(4096).decode()
    path.unlink()
    return Ended(done.returncode, done.stderr.splitlines()[-1], told.removeprefix("STATUS="))


def check(ended: Ended, status: int, reason: str) -> None:
    """Check the status, and that standard error and `systemctl status` have the same line."""
    assert ended.status == status
    assert reason in ended.status_text
    text = ended.status_text.removeprefix("not running: ")
    assert ended.last_line == f"undisclosed: not running (exit status {status}): {text}"


@pytest.mark.parametrize("service", ["run", "steward"])
def test_a_broken_file_is_for_an_administrator(start: Start, service: str) -> None:
    """One line has file, line number, setting and remedy. After the correction the next start succeeds."""
    running = start()
    running.milter.stop()
    correct = running.config.read_text()
    running.config.write_text(correct.replace('action = "reject"', 'action = "perhaps"'))
    ended = end_of(running, service)
    check(ended, CORRECTABLE, f"{running.config}, line ")
    assert 'rule 1: action = "perhaps"' in ended.status_text
    assert '; write "accept"' in ended.status_text
    running.config.write_text(correct)
    running.milter.start()


@pytest.mark.parametrize("service", ["run", "steward"])
def test_a_journal_of_another_key_or_version_is_for_an_administrator(start: Start, service: str) -> None:
    """A later attempt would fail as well."""
    running = start()
    running.milter.stop()
    key = running.directory / "key"
    before = key.read_text()
    key.write_text("ab" * 31 + "cd")
    check(end_of(running, service), CORRECTABLE, "another key")
    key.write_text(before)
    (running.directory / "journal.db").unlink()
    check(end_of(running, service), CORRECTABLE, "run `undisclosed journal upgrade`")


def test_a_group_that_does_not_exist_is_for_an_administrator(start: Start) -> None:
    """`milter.socket_group` names a missing group: exit status 2."""
    running = start()
    running.milter.stop()
    running.configure(milter={"socket_group": "no-such-group"})
    check(end_of(running, "run"), CORRECTABLE, "no group 'no-such-group'")


def test_a_user_that_does_not_exist_is_for_an_administrator(start: Start) -> None:
    """`--user` of the unit names a missing user: exit status 2, and no key of root's is left (users' walk, 35)."""
    assert os.geteuid() == 0, "run this test as root: the steward becomes another user only if root starts it"
    running = start()
    running.milter.stop()
    made = [running.directory / "key", *running.directory.glob("gateway-*")]
    for file in made:
        file.unlink()
    check(end_of(running, "steward", "--user", "no-such-user"), CORRECTABLE, "no user 'no-such-user'")
    assert not any(file.exists() for file in made)


@contextmanager
def occupied_port(running: Running) -> Iterator[None]:
    """Another program listens at the port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        running.configure(milter={"socket": f"inet:{other.getsockname()[1]}@127.0.0.1"})
        yield


@contextmanager
def occupied_path(running: Running) -> Iterator[None]:
    """Another milter listens at the path."""
    with running.milter:
        yield


@contextmanager
def no_directory(running: Running) -> Iterator[None]:
    """The directory of the socket does not exist, or not yet."""
    running.configure(milter={"socket": f"unix:{running.directory}/away/milter.sock"})
    yield


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        (occupied_port, "cannot listen at inet:"),
        (occupied_path, "another undisclosed runs on "),
        (no_directory, "of milter.socket does not exist"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_socket_that_cannot_be_had_is_tried_again(
    start: Start, obstacle: Callable[[Running], AbstractContextManager[None]], reason: str
) -> None:
    """The other program may end, and the directory may appear."""
    running = start()
    running.milter.stop()
    with obstacle(running):
        check(end_of(running, "run"), PASSING, reason)


def test_a_journal_whose_directory_is_away_is_tried_again(start: Start, tmp_path: Path) -> None:
    """A file system that is mounted late. The milter starts, and records again once the journal is there."""
    volume = tmp_path / "volume"
    volume.mkdir()
    running = start(journal={"url": f"sqlite:///{volume}/journal.db"})
    running.milter.stop()
    away = volume.rename(volume.with_suffix(".away"))
    check(end_of(running, "steward"), PASSING, "its directory does not exist")
    running.milter.start()
    with Mta(running.address).connect() as mta:
        assert mta.send(MANY).word == "reject"
    away.rename(volume)
    running.milter.wait_for_log(lambda event: event["event"] == "journal_works_again")


def test_a_journal_that_is_away_is_tried_again(start: Start, postgres: Postgres) -> None:
    """The steward can do nothing without a journal, and ends. The milter starts, and refuses what would leak."""
    url = postgres.create("away")
    running = start(journal={"url": url})
    running.milter.stop()
    postgres.stop()
    try:
        check(end_of(running, "steward"), PASSING, "cannot be used")
        running.milter.start()
        with Mta(running.address).connect() as mta:
            assert mta.send(MANY).word == "reject"
    finally:
        postgres.start()
    running.milter.stop()
    postgres.drop("away")
