"""A private PostgreSQL on a unix socket in a temporary directory, without a TCP port; deleted at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self
from urllib.parse import quote

from lab import processes
from lab.waiting import DEADLINE, until


class PostgresError(RuntimeError):
    """PostgreSQL is not installed, or does not start. The text has its output."""


def programs() -> Path:
    """The newest installed server's programs; Debian keeps them out of PATH. Raises PostgresError."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        raise PostgresError("PostgreSQL's server is not installed: apt-get install postgresql")
    return max(found, key=lambda path: int(path.parent.name))


class Postgres:
    """A private cluster. A context manager; it ends with the thread that started it.

    The server refuses to run as root: root starts it as `user`, from Debian's package. Every user of this machine
    may connect as its superuser: it contains test data only.
    """

    def __init__(self, user: str = "postgres") -> None:
        self._user = user if os.geteuid() == 0 else None
        self.directory = Path(tempfile.mkdtemp(prefix="udp"))  # short: sun_path holds 108 bytes
        self.directory.chmod(0o755)
        self._data = self.directory / "data"
        self._log = self.directory / "postgres.log"
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._remove()

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database in this cluster."""
        return f"postgresql+psycopg://postgres@/{database}?host={quote(str(self.directory))}"

    def create(self, database: str, *options: str) -> str:
        """Make an empty database, and return its URL; `options` are those of createdb(1)."""
        self._tool("createdb", *options, database)
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, even with open connections."""
        self._tool("dropdb", "--force", database)

    def _tool(self, name: str, *arguments: str) -> None:
        command = [str(programs() / name), "--host", str(self.directory), "--username", "postgres", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PostgresError(f"{name} {' '.join(arguments)}: {done.stderr}")

    def start(self) -> None:
        """Start the server, and wait until it accepts connections. Raises PostgresError with its log if it does not."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",  # the data is deleted after the test, and need not survive a power cut
            "shared_buffers": "16MB",
        }
        with self._log.open("ab") as log:
            self._child = child = processes.start(
                [
                    *(str(programs() / "postgres"), "-D", str(self._data)),
                    *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
                ],
                user=self._user,
                group=self._group,
                environment=ENVIRONMENT,
                output=log,
            )
        ready = [str(programs() / "pg_isready"), "--quiet", "--host", str(self.directory)]
        until(
            lambda: child.poll() is not None or subprocess.run(ready, check=False).returncode == 0,
            what="PostgreSQL to be ready",
        )
        if child.poll() is not None:
            self._child = None
            raise PostgresError(f"PostgreSQL did not start:\n{self._log.read_text(errors='replace')}")

    def stop(self) -> None:
        """Stop the server at once, as for a restart: clients lose their connections; the data stays."""
        child, self._child = self._child, None
        if child is None:
            return
        self._signal(child, signal.SIGCONT)
        child.send_signal(signal.SIGINT)  # "fast shutdown", postgres(1)
        try:
            child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGQUIT)
            child.wait(DEADLINE)

    def freeze(self) -> None:
        """Send SIGSTOP to every process of the server: connections stay open, and nothing answers."""
        assert self._child is not None
        self._signal(self._child, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue a frozen server."""
        assert self._child is not None
        self._signal(self._child, signal.SIGCONT)

    @staticmethod
    def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
        for pid in (child.pid, *processes.children(child.pid)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    @property
    def _group(self) -> str | None:
        return None if self._user is None else str(pwd.getpwnam(self._user).pw_gid)

    def _make(self) -> None:
        if self._user is not None:
            try:
                shutil.chown(self.directory, self._user)
            except LookupError as error:
                raise PostgresError(f"there is no user {self._user}: apt-get install postgresql") from error
        command = [
            *(str(programs() / "initdb"), "--pgdata", str(self._data), "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
        ]
        with self._log.open("ab") as log:
            child = processes.start(command, user=self._user, group=self._group, environment=ENVIRONMENT, output=log)
            if child.wait(DEADLINE):
                raise PostgresError(f"initdb failed:\n{self._log.read_text(errors='replace')}")

    def _remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
