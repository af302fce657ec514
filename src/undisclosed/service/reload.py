"""The result of a reload: a service writes it to its runtime directory, `undisclosed reload` asks for it and reads it.

SIGHUP carries no number, and two of them may arrive as one. So each result has the time at which the service began to
read its configuration (CLOCK_MONOTONIC, the same clock for all processes). It answers every reload that was asked for
before that time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

DIRECTORY: Final = "reload"
"""The directory in RUNTIME_DIRECTORY that the service writes to. The steward gives up root's rights; systemd gives
RUNTIME_DIRECTORY itself back to root with each command of the unit, but not its contents (systemd.exec(5))."""

ANSWER_TIMEOUT: Final = 8.0
"""Seconds to wait for a result: with the start of the command itself it ends within ten. A worker that does not take
the new configuration is killed after five, and replaced."""

POLL_INTERVAL: Final = 0.05
"""Seconds between two looks for a result."""

MAX_SIZE: Final = 1 << 20
"""Bytes of a result that are read: root reads what a process without rights wrote."""


class NoReloadResultError(Exception):
    """No result can be had; the text says why and where to look."""


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """The result of one reload."""

    began: int
    """The time at which the service began to read its configuration (time.monotonic_ns())."""
    refused: str = ""
    """The reason why the new configuration was refused; empty if it is in force."""
    restart: tuple[str, ...] = ()
    """Settings that have changed and that only a restart puts in force."""
    pid: int = 0
    """The service's process; `write` fills it in."""


class ReloadResultFile:
    """The file with the last result, in the directory that systemd names in RUNTIME_DIRECTORY."""

    def __init__(self, runtime_directory: Path | None) -> None:
        """Without a runtime directory nothing is written, and there is nothing to read."""
        self._path = runtime_directory / DIRECTORY / "result.json" if runtime_directory else None

    @classmethod
    def of_this_service(cls) -> Self:
        """The file of the service that the environment belongs to."""
        first = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        return cls(Path(first) if first else None)

    @property
    def is_available(self) -> bool:
        """Whether the service has a runtime directory."""
        return self._path is not None

    def prepare(self, uid: int = -1, gid: int = -1) -> None:
        """Make the directory of the file, for this user only. If it fails, only the results of reloads are missing."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            os.chown(self._path.parent, uid, gid, follow_symlinks=False)

    def write(self, result: ReloadResult) -> None:
        """Replace the result, whole or not at all. A failure is ignored: the log has the result as well."""
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps({**asdict(result), "pid": os.getpid()}))
            temporary.replace(self._path)

    def read(self) -> ReloadResult | None:
        """The last result; None where there is none."""
        if self._path is None:
            return None
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                written = json.loads(file.read(MAX_SIZE))
            restart = tuple(map(str, written["restart"]))
            return ReloadResult(int(written["began"]), str(written["refused"]), restart, int(written["pid"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None


def request(pid: int, result_file: ReloadResultFile) -> ReloadResult:
    """Have the service with this process id read its configuration again, and return the result.

    Raises NoReloadResultError if the service is gone or does not answer in ANSWER_TIMEOUT seconds.
    """
    if not result_file.is_available:
        raise NoReloadResultError(
            "RUNTIME_DIRECTORY is not set, so the result cannot be read: reload by `systemctl reload`, or send SIGHUP "
            "and look in the log for `reloaded` or `reload_refused`"
        )
    asked = time.monotonic_ns()
    deadline = time.monotonic() + ANSWER_TIMEOUT
    _signal(pid, signal.SIGHUP)
    while time.monotonic() < deadline:
        result = result_file.read()
        if result is not None and result.pid == pid and result.began >= asked:
            return result
        _signal(pid, 0)
        time.sleep(POLL_INTERVAL)
    raise NoReloadResultError(
        f"process {pid} has not answered within {ANSWER_TIMEOUT:g} seconds: it may take the new configuration later; "
        "look in the log for `reloaded` or `reload_refused`"
    )


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise NoReloadResultError(f"process {pid} is gone: start the service again, and look in its log") from None
    except PermissionError:
        raise NoReloadResultError(f"process {pid} belongs to another user: reload by `systemctl reload`") from None
