"""Ways in which the journal's file cannot be written, each for as long as its block lasts."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from lab import processes
from lab.milter import Milter
from support.limits import limited

Breaking = Callable[[Path, Milter], AbstractContextManager[None]]
"""Takes the directory in which the journal is, and the milter that writes it."""

NAMES = ("journal.db", "journal.db-wal", "journal.db-shm")


@contextmanager
def locked(directory: Path, milter: Milter) -> Iterator[None]:
    """Another program holds the write lock."""
    with closing(sqlite3.connect(directory / "journal.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def full(directory: Path, milter: Milter, *, log: int = 65536) -> Iterator[None]:
    """The disk is full: no file of a worker may grow, but the log by so many bytes (setrlimit(2), EFBIG)."""
    room = milter.log_file.stat().st_size + log
    assert (directory / "journal.db-wal").stat().st_size > room
    with limited(milter.workers(), "fsize", room):
        yield


@contextmanager
def moved_away(directory: Path, milter: Milter) -> Iterator[None]:
    """The file is missing; at the end it is put back."""
    with _replaced(directory, milter, lambda _: None):
        yield


@contextmanager
def not_a_database(directory: Path, milter: Milter) -> Iterator[None]:
    """Another file is in its place; at the end the journal is put back."""
    with _replaced(directory, milter, lambda _: b"Dear all, " * 1000):
        yield


@contextmanager
def corrupt(directory: Path, milter: Milter) -> Iterator[None]:
    """A file whose first page is sound and whose others are not, as a failing disk or a bad backup leaves it."""

    def spoilt(journal: Path) -> bytes:
        content = _copy(journal)
        page = int.from_bytes(content[16:18])
        return content[:page] + random.Random(3).randbytes(len(content) - page)

    with _replaced(directory, milter, spoilt):
        yield


@contextmanager
def read_only(directory: Path, milter: Milter) -> Iterator[None]:
    """SQLite may read the file and not write it: the file says that its writer must be newer (format, offset 18).

    Rights would not do, where the tests run as root.
    """

    def newer(journal: Path) -> bytes:
        content = _copy(journal)
        return content[:18] + b"\3" + content[19:]

    with _replaced(directory, milter, newer):
        yield


@contextmanager
def _replaced(directory: Path, milter: Milter, by: Callable[[Path], bytes | None]) -> Iterator[None]:
    """Replace the journal, and put it back at the end; suspended meanwhile, the workers never see a part of it."""
    away, path = directory / "away", directory / "journal.db"
    away.mkdir()
    with processes.suspended(*milter.workers()):
        for name in NAMES:
            (directory / name).rename(away / name)
        journal = away / "journal.db"
        if (content := by(journal)) is not None:
            path.write_bytes(content)
            os.chown(path, journal.stat().st_uid, journal.stat().st_gid)
            path.chmod(journal.stat().st_mode)
    try:
        yield
    finally:
        with processes.suspended(*milter.workers()):
            for name in NAMES:
                (directory / name).unlink(missing_ok=True)
                if (away / name).exists():
                    (away / name).rename(directory / name)
        away.rmdir()


def _copy(journal: Path) -> bytes:
    """The bytes of the journal, with its log merged into one file."""
    copy = journal.with_name("copy")
    with closing(sqlite3.connect(journal)) as source:
        source.execute("VACUUM INTO ?", (str(copy),))
    content = copy.read_bytes()
    copy.unlink()
    return content
