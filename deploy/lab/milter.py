"""The milter as a service manager runs it: a child process with a notification socket."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from lab import processes
from lab.waiting import DEADLINE, until

STOPS_WITHIN = 30.0
"""Seconds in which it has to end. It kills its own workers after 9; the rest is for a busy machine."""


def console_script() -> Path:
    """The `undisclosed` command of this virtual environment."""
    return Path(sys.executable).with_name("undisclosed")


@functools.cache
def unprivileged_user() -> tuple[str, str] | None:
    """An unprivileged user and group for the milter, or None if they cannot read the checkout.

    That is so for a checkout below /root, which only root may enter.
    """
    user, group = "nobody", "nogroup"
    probe = subprocess.run(
        ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--",
         sys.executable, "-c", "import undisclosed.cli"],
        cwd="/", env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    return (user, group) if probe.returncode == 0 else None


def upgrade_journal(config: Path) -> None:
    """`undisclosed journal upgrade`, as an administrator does before the first start. Raises RuntimeError."""
    done = subprocess.run(
        [str(console_script()), "journal", "upgrade", "--config", str(config)],
        cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"journal upgrade ended with {done.returncode}:\n{done.stdout}{done.stderr}")


class Milter:
    """`undisclosed run --config FILE` as a child. A context manager; it ends with the thread that started it.

    `directory` is for its log (`milter.log`) and its notification socket; the user must be able to enter it. `user` is
    its user and group; None: those of this process.
    """

    name = "milter"

    def __init__(self, config: Path, *, directory: Path, user: tuple[str, str] | None = None) -> None:
        self.config = config
        self.log_file = directory / f"{self.name}.log"
        self._notify_path = directory / f"notify-{self.name}"
        self._runtime_directory = directory / f"run-{self.name}"
        self._user = user
        self._manager: socket.socket | None = None
        self._said: list[str] = []
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The supervisor's process id. Raises RuntimeError if it was not started."""
        if self._child is None:
            raise RuntimeError(f"this {self.name} is not running")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the supervisor was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start, and wait until it is ready. Raises RuntimeError with its log if it does not become ready."""
        self._listen()
        with self.log_file.open("wb") as log:
            self._child = child = self._spawn(log)
        try:
            until(
                lambda: self.has_said("READY=1") or child.poll() is not None,
                what=f"the {self.name} to be ready",
            )
        finally:
            if not self.has_said("READY=1"):
                self.kill()
        if self._child is None:
            raise RuntimeError(f"the {self.name} did not start:\n" + self.log_file.read_text(errors="replace"))

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "NOTIFY_SOCKET": str(self._notify_path),
            "RUNTIME_DIRECTORY": str(self._runtime_directory),
        }

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        user, group = self._user or (None, None)
        command = [str(console_script()), "run", "--config", str(self.config)]
        return processes.start(command, user=user, group=group, environment=self._environment(), output=log)

    def stop(self) -> int | None:
        """SIGTERM, and wait until it and its workers have ended; returns its exit status, None if it does not run.

        Raises TimeoutError if they need more than 30 s; then they are killed.
        """
        child, self._child = self._child, None
        try:
            return processes.end(child, within=STOPS_WITHIN) if child is not None else None
        finally:
            self._close()

    def _close(self) -> None:
        if self._manager is not None:
            self._manager.close()
        self._manager = None
        self._notify_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """Send SIGKILL to the supervisor alone, and wait until its workers have ended too.

        Raises TimeoutError, and kills them, if they do not end.
        """
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self.stop()

    # -- as its service manager

    def _listen(self) -> None:
        self._notify_path.unlink(missing_ok=True)
        self._said = []
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._manager.bind(str(self._notify_path))
        self._notify_path.chmod(0o666)
        self._runtime_directory.mkdir(mode=0o711, exist_ok=True)
        if self._user:
            shutil.chown(self._runtime_directory, *self._user)

    def notifications(self) -> list[str]:
        """Every line that it has sent to its service manager, such as `READY=1` (sd_notify(3))."""
        while self._manager is not None:
            try:
                self._said += self._manager.recv(65536).decode().splitlines()
            except BlockingIOError:
                break
        return list(self._said)

    def has_said(self, line: str) -> bool:
        """Whether it has sent this line to its service manager."""
        return line in self.notifications()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    def reload(self) -> None:
        """Send SIGHUP, and wait until it is ready again, with the new configuration or still with the old one."""
        before = self.notifications().count("READY=1")
        self.signal(signal.SIGHUP)
        until(lambda: self.notifications().count("READY=1") > before, what="the milter to have reloaded")

    def reload_command(self) -> subprocess.CompletedProcess[str]:
        """`undisclosed reload PID`, as the unit's ExecReload runs it; a reload takes effect before it ends."""
        return subprocess.run(
            [str(console_script()), "reload", str(self.pid)],
            cwd="/", env=self._environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def start_or_reload(self) -> None:
        """Start it, or reload it if it runs. Raises RuntimeError with the reason if the configuration is refused."""
        if not self.is_running:
            self.start()
            return
        refused = len(self.log(event="reload_refused"))
        self.reload()
        if reasons := self.log(event="reload_refused")[refused:]:
            raise RuntimeError(f"the milter refused to reload: {reasons[0]['reason']}")

    def workers(self) -> list[int]:
        """The process ids of the running workers, the oldest first."""
        return processes.children(self.pid)

    # -- its log

    def log(self, **having: object) -> list[dict[str, Any]]:
        """The logged events that have these values: `log(event="message", action="reject")`.

        A line that is not a JSON object, such as a traceback, becomes `{"event": "unstructured", "text": …}`: no test
        overlooks it.
        """
        complete = self.log_file.read_text(errors="replace").rpartition("\n")[0]  # not a line that is being written
        events = [_event(line) for line in complete.splitlines()]
        return [event for event in events if having.items() <= event.items()]

    def wait_for_log(
        self, wanted: Callable[[Mapping[str, Any]], bool], *, within: float = DEADLINE, what: str = "an event"
    ) -> dict[str, Any]:
        """Wait for an event for which `wanted` is true, and return the first. Raises TimeoutError."""
        return until(
            lambda: [event for event in self.log() if wanted(event)], within=within, what=f"{what} in the milter's log"
        )[0]


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"event": "unstructured", "text": line}
