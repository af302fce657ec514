"""Processes as /proc shows them, and children that end with this process."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from lab.waiting import until


class Process(NamedTuple):
    """One process: its id, its parent's and its session's."""

    pid: int
    parent: int
    session: int


def running() -> Iterator[Process]:
    """Every process of this machine but for zombies (proc(5))."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        # The command in parentheses may contain blanks and parentheses: fields are counted from the last one.
        state, parent, _group, session, *_ = stat.rpartition(")")[2].split()
        if state not in "ZX":
            yield Process(int(entry.name), int(parent), int(session))


def children(pid: int) -> list[int]:
    """The ids of the running children of a process, the oldest first."""
    return sorted(process.pid for process in running() if process.parent == pid)


def session(leader: int) -> list[int]:
    """The ids of the running processes of a session. A child of `start` leads one that has all its descendants."""
    return sorted(process.pid for process in running() if process.session == leader)


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    return any(process.pid == pid for process in running())


@contextmanager
def suspended(*pids: int) -> Iterator[None]:
    """SIGSTOP these processes for as long as the block lasts; it begins once every thread of theirs is stopped."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: all(map(_is_suspended, pids)), what="every thread of a process to be stopped")
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _is_suspended(pid: int) -> bool:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
    except (FileNotFoundError, ProcessLookupError):
        return False  # a thread ended meanwhile
    return set(states) <= set("TZX")


def start(
    command: Sequence[str],
    *,
    user: str | None = None,
    group: str | None = None,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; it gets SIGTERM if the thread that started it dies.

    setpriv(1) asks the kernel for that (PR_SET_PDEATHSIG) and then becomes the command, so that the child's id is the
    command's. A Ctrl-C on the terminal does not reach it: the caller ends it, in order. With `user` the child
    has that user's rights and `group`'s, and no supplementary groups.
    """
    rights = [f"--reuid={user}", f"--regid={group or user}", "--clear-groups"] if user else []
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", *rights, "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not subprocess.DEVNULL else output,
        env=dict(environment) if environment is not None else None,
        start_new_session=True,
    )


GUARD = "trap 'kill -TERM $!' TERM; setsid -- \"$@\" & wait $!; wait $!"
"""Runs a command in its own session and forwards SIGTERM. The first `wait` returns at the signal, the second at the
end of the command."""


def start_guarded(
    command: Sequence[str], *, environment: Mapping[str, str], output: IO[bytes] | int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a command below a shell that ends it with SIGTERM if the thread that started it dies.

    For a program that changes its user, as Postfix's master does: the kernel then clears the signal that `start` set
    (prctl(2)). The command is the child of the process that is returned, and leads a session of its own.
    """
    return start(["sh", "-c", GUARD, "guard", *command], environment=environment, output=output)


def end(child: subprocess.Popen[bytes], *, within: float, leader: int | None = None) -> int:
    """SIGTERM to the child, wait for it and for all of its session, and return its exit status.

    `within` is in seconds; after that the rest of the session is killed and TimeoutError raised, so that a program that
    does not end fails the test and leaves nothing running. `leader` names the session of a guarded command.
    """
    sessions = [child.pid] if leader is None else [child.pid, leader]

    def members() -> list[int]:
        return [pid for number in sessions for pid in session(number)]

    if child.poll() is None:
        child.terminate()
    try:
        child.wait(within)
        until(lambda: not members(), within=within, what=f"the processes of {child.args!r} to end")
    except (subprocess.TimeoutExpired, TimeoutError) as error:
        for pid in members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        child.wait()
        raise TimeoutError(f"{child.args!r} did not end within {within:g} s and was killed") from error
    return child.returncode


def reserve_port() -> int:
    """A TCP port on 127.0.0.1 for a server to listen on; no other program is given it while this process runs.

    The port stays bound to a socket that does not listen. A server may bind it as well, because both sockets have
    SO_REUSEADDR (Postfix and libmilter set it); the kernel does not choose it for a bind to any free port. Without the
    reservation another test run, or the source port of any connection, may take the port before the server does.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    atexit.register(reservation.close)
    port: int = reservation.getsockname()[1]
    return port
