"""The listening socket: opened once by the supervisor, shared by the workers it forks."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import resource
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from undisclosed.milter import callbacks
from undisclosed.policy.sections import MilterSection

WAIT_FOR_PREDECESSOR = 5.0
"""Seconds to wait for a socket or lock in use: the workers of a supervisor that was killed may still be ending."""


class ListenError(Exception):
    """The socket cannot be opened. `fix` says what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}: {fix}")
        self.fix = fix


class NoSuchGroupError(ListenError):
    """`milter.socket_group` names a group that does not exist."""


class Listener:
    """Opens the socket that the configuration names, and removes it again. Only the supervisor has one."""

    def __init__(self, settings: MilterSection) -> None:
        self._settings = settings
        self._path = settings.endpoint.path
        self._lock: IO[str] | None = None
        self._identity: tuple[int, int] | None = None
        self._fd = -1

    def open(self) -> None:
        """Listen, non-blocking. Raises ListenError."""
        _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))  # each session of Postfix needs a descriptor
        before = _listening()
        if self._path is None:
            self._open_inet()
        else:
            self._open_unix(self._path)
        opened = _listening() - before
        if len(opened) != 1:
            raise ListenError("libmilter's listening socket was not found", "report this as a bug")
        self._fd = opened.pop()
        with socket.socket(fileno=os.dup(self._fd)) as listening:
            # In blocking mode a worker that loses the race for a connection would hang in accept(2) and not stop.
            listening.setblocking(False)
            if self._path is None:  # accepted sockets inherit TCP_NODELAY; without it a message may wait 40 ms (Nagle)
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close_lock(self) -> None:
        """Close the lock file. Each worker does: the lock ends with the supervisor, not with its last worker."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def in_place(self) -> bool:
        """Whether the socket's file is still the one that was made: it may have been removed or replaced."""
        return self._path is None or self._identity == _identity(self._path)

    def put_back(self) -> None:
        """Make a unix socket that was removed again, for workers that are forked from now on. Raises ListenError.

        The new socket takes the old one's descriptor, the only thing that libmilter knows of it. Another file in its
        place is left alone.
        """
        path = self._path
        if path is None:
            return
        if path.exists() or path.is_symlink():
            raise ListenError(f"{path} is not the socket of this milter", "move it away, or restart the milter")
        self.close_lock()  # its file may have been removed as well
        self._bind_unix(path, self._listen_again)

    def _listen_again(self, name: str) -> None:
        with socket.socket(socket.AF_UNIX) as new_socket:
            new_socket.bind(name)
            new_socket.listen(callbacks.BACKLOG)
            new_socket.setblocking(False)
            os.dup2(new_socket.fileno(), self._fd)

    def remove(self) -> None:
        """Remove the unix socket, if it is still the one that was made, and release the lock."""
        if self._path is not None and self._identity is not None and self._identity == _identity(self._path):
            self._path.unlink(missing_ok=True)
        self._identity = None
        self.close_lock()

    def _open_inet(self) -> None:
        deadline = time.monotonic() + WAIT_FOR_PREDECESSOR
        while True:
            try:
                callbacks.open_socket(self._settings.socket)
            except OSError as error:
                if time.monotonic() > deadline:
                    fix = "see with `ss -ltnp` what listens there, or change milter.socket"
                    raise ListenError(f"cannot listen at {self._settings.socket}", fix) from error
                time.sleep(0.1)
            else:
                return

    def _open_unix(self, path: Path) -> None:
        self._bind_unix(path, lambda name: callbacks.open_socket(f"unix:{name}"))

    def _bind_unix(self, path: Path, listen: Callable[[str], None]) -> None:
        """Bind under a temporary name and rename: libmilter unlinks the name it knows when a worker stops."""
        if not path.parent.is_dir():
            fix = f"make it: install -d -m 2750 -o undisclosed -g postfix {path.parent}"
            raise ListenError(f"the directory {path.parent} of milter.socket does not exist", fix)
        self._take_lock(path)
        if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"{path} exists and is no socket", "move it away, or change milter.socket")
        temporary = path.with_name(f".{path.name[:8]}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        umask = os.umask(0o177)
        try:
            listen(str(temporary))
        except OSError as error:
            fix = f"its owner must be the milter's user (this is uid {os.geteuid()}), or change milter.socket"
            raise ListenError(f"cannot make a socket in {path.parent}", fix) from error
        finally:
            os.umask(umask)
        try:
            if self._settings.socket_group:
                os.chown(temporary, -1, _group(self._settings.socket_group))
            temporary.chmod(int(self._settings.socket_mode, 8))
            self._identity = _identity(temporary)
            temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            fix = "check milter.socket_group, milter.socket_mode and the directory's owner"
            raise ListenError(f"cannot put {path} in place ({error.strerror})", fix) from error

    def _take_lock(self, path: Path) -> None:
        name = path.with_name(path.name + ".lock")
        deadline = time.monotonic() + WAIT_FOR_PREDECESSOR
        try:
            self._lock = name.open("a")
        except OSError as error:
            fix = f"let this user (uid {os.geteuid()}) write to {path.parent}"
            raise ListenError(f"cannot open {name} ({error.strerror})", fix) from error
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES) or time.monotonic() > deadline:
                    fix = "stop it first, or give this one a milter.socket of its own"
                    raise ListenError(f"another undisclosed runs on {path}", fix) from error
                time.sleep(0.1)
            else:
                return


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        fix = "name an existing group in milter.socket_group, or leave it empty"
        raise NoSuchGroupError(f"there is no group {name!r}", fix) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _listening() -> set[int]:
    """The file descriptors of this process that listen. pymilter does not say which one libmilter opened."""
    listening = set()
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        try:
            candidate = socket.socket(fileno=fd)
        except OSError:  # closed meanwhile, or no socket
            continue
        try:
            if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listening.add(fd)
        finally:
            candidate.detach()  # leave the descriptor open
    return listening
