"""Reads main.cf and master.cf, and replaces them under Postfix's own lock; keeps attach's record beside main.cf.

A file is whole at every moment: its new text is written to a temporary file, synced and renamed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

RECORD: Final = "undisclosed-attach.json"
"""The name of attach's record, in Postfix's configuration directory."""

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another program that edits the same file."""


class PostfixError(Exception):
    """A command cannot work on a Postfix: the file or directory, the problem and the remedy."""

    def __init__(self, file: Path, problem: str, fix: str) -> None:
        super().__init__(f"{file}: {problem}; {fix}")
        self.file = file
        self.problem = problem
        self.fix = fix


def read_file(file: Path) -> bytes:
    """The bytes of a file. Raises PostfixError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise PostfixError(file, f"cannot be read ({error.strerror})", "run the command as root") from error


def read_record(directory: Path) -> bytes | None:
    """The record that attach has left in the directory; None if there is none. Raises PostfixError."""
    file = directory / RECORD
    return read_file(file) if file.exists() else None


@contextmanager
def locked(file: Path, directory: Path) -> Iterator[Writer]:
    """The right to replace main.cf or master.cf of a configuration directory. Raises PostfixError.

    The lock is the one of postconf(1): an flock on main.cf.tmp, which then replaces main.cf (edit_file.c). So no other
    program that follows this protocol changes the file between our reading and our replacing it.
    """
    target = file.resolve()
    check_writable(directory, target.parent)
    temporary = target.with_name(target.name + ".tmp")
    try:
        fd = _open_locked(temporary)
        writer = Writer(target, temporary, fd, directory / RECORD)
        try:
            yield writer
        finally:
            if not writer.replaced:
                temporary.unlink(missing_ok=True)
            os.close(fd)
    except OSError as error:
        file = Path(error.filename or target)
        raise PostfixError(file, f"cannot be written ({error.strerror})", "run the command as root") from error


def check_writable(*directories: Path) -> None:
    """Raise PostfixError unless files in these directories can be replaced: the directories must be writable."""
    for directory in directories:
        if not os.access(directory, os.W_OK | os.X_OK):
            fix = "run the command as root, or with --dry-run"
            raise PostfixError(directory, "this user may not write here", fix)


class Writer:
    """The right to replace a file once, and to write or remove attach's record."""

    def __init__(self, target: Path, temporary: Path, fd: int, record: Path) -> None:
        self._target = target
        self._temporary = temporary
        self._fd = fd
        self._record = record
        self.replaced = False

    def replace(self, text: bytes) -> None:
        """Replace the file; owner, group, mode and extended attributes stay the same."""
        old = self._target.stat()
        _write(self._fd, text)
        os.fchown(self._fd, old.st_uid, old.st_gid)
        shutil.copystat(self._target, self._temporary)
        os.utime(self._temporary)
        os.fsync(self._fd)
        self._temporary.replace(self._target)
        self.replaced = True
        _sync_directory(self._target.parent)

    def write_record(self, record: bytes) -> None:
        """Write the record, with the permissions of main.cf.

        It is written before main.cf: an unneeded record is harmless, a missing one leaves detach without the old text.
        """
        old = self._target.stat()
        temporary = self._record.with_name(self._record.name + ".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            _write(fd, record)
            os.fchown(fd, old.st_uid, old.st_gid)
            os.fchmod(fd, stat.S_IMODE(old.st_mode) & 0o666)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(self._record)
        _sync_directory(self._record.parent)

    def remove_record(self) -> None:
        """Remove the record, if there is one."""
        self._record.unlink(missing_ok=True)
        _sync_directory(self._record.parent)


def _open_locked(temporary: Path) -> int:
    """Open and lock main.cf.tmp as edit_file_open() of Postfix does; one that a crash left is emptied and used."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened = os.fstat(fd)
            with suppress(FileNotFoundError):
                named = temporary.stat()  # another file, if the last holder has renamed the one that we opened
                if (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino):
                    if stat.S_ISREG(opened.st_mode) and opened.st_nlink == 1 and stat.S_IMODE(opened.st_mode) == 0o600:
                        os.ftruncate(fd, 0)
                        return fd
                    temporary.unlink()
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                fix = "wait for the other postconf or attach to end, then run the command again"
                problem = f"another program is editing {temporary.stem}"
                raise PostfixError(temporary, problem, fix) from None
            time.sleep(0.02)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _write(fd: int, content: bytes) -> None:
    with os.fdopen(os.dup(fd), "wb") as stream:
        stream.write(content)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
