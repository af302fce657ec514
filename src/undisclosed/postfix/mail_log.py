"""Finds the log of one Postfix instance, and follows it: a file, or the systemd journal.

Postfix says where it logs: `maillog_file`, else syslog, which is /var/log/mail.log, /var/log/maillog or the systemd
journal. Which of them is the one is known only when a line appears in it that was written for this purpose (`mark` of
steward/privileged.py): a file may be left from another year. Reading is bounded: each call reads at most MAX_BYTES, and
the first one goes back at most as far.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from undisclosed.postfix.log_events import LogEvents, LogLine, parse_line
from undisclosed.postfix.postconf import Postconf

SYSLOG_FILES: Final = (Path("/var/log/mail.log"), Path("/var/log/maillog"))
"""The usual files of Debian and of Red Hat."""

LOG_GROUPS: Final = ("adm", "systemd-journal")
"""The groups that may read them."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of a file that one call reads: a second's work, and the log of a day on most hosts."""

MAX_LINE: Final = 16 * 1024
"""The longest line that is read; Postfix itself writes at most 2,000 bytes. What is longer is skipped."""

MAX_ENTRIES: Final = 200_000
"""Entries of the systemd journal that one call reads."""

JOURNAL_TIMEOUT: Final = 20.0
_CHUNK: Final = 1024 * 1024
_ROTATED: Final = re.compile(r"[.-]\d[\d-]*")
"""The endings that logrotate and `postfix logrotate` add to the name; a packed file has more behind it."""

_FACILITIES: Final = {"mail": 2, "user": 1, "daemon": 3} | {f"local{number}": 16 + number for number in range(8)}


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The settings of an instance that say where and under which names it logs."""

    file: Path | None
    """maillog_file; None: syslog."""
    main_name: str
    """syslog_name of main.cf."""
    names: frozenset[str]
    """The same, and that of each service that has its own."""
    facility: str

    def is_ours(self, line: LogLine) -> bool:
        """Whether a program of this instance wrote the line."""
        return line.name in self.names or any(line.name.startswith(f"{name}/") for name in self.names)


def read_settings(postconf: Postconf) -> LogSettings:
    """Ask postconf(1). Raises PostfixError."""
    main = postconf.expanded(["maillog_file", "syslog_name", "syslog_facility"])
    name = main.get("syslog_name") or "postfix"
    names = frozenset({name, *filter(None, postconf.overrides("syslog_name"))})
    file = main.get("maillog_file", "")
    return LogSettings(Path(file) if file else None, name, names, main.get("syslog_facility", "mail"))


class LogSource(Protocol):
    """A place where Postfix may log."""

    @property
    def place(self) -> str:
        """Its name, for a sentence."""

    @property
    def why_unreadable(self) -> str | None:
        """Why the last call could not read it; None if it could."""

    def read(self) -> Iterator[LogLine]:
        """The lines since the last call, in order; at the first call, those of before."""

    def close(self) -> None:
        """Close what is open."""


def sources(settings: LogSettings) -> list[LogSource]:
    """The places where this instance may log, the likeliest first."""
    if settings.file is not None:
        return [LogFile(settings.file)]
    journal = SystemdJournal(settings.facility)
    return [*map(LogFile, SYSLOG_FILES), journal]


class LogFile:
    """A log file, which may be rotated or emptied at any time."""

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self.why_unreadable: str | None = None
        self._path = path
        self._fd: int | None = None
        self._begun = b""
        """The beginning of a line that is not complete yet."""
        self._is_skipping = False
        """Whether the rest of a line is skipped: it is too long, or its beginning was not read."""
        self._is_first = True

    def read(self) -> Iterator[LogLine]:
        """The lines since the last call; at the first call, those of the last MAX_BYTES, of the file before it too."""
        self.why_unreadable = None
        left = MAX_BYTES
        try:
            if self._is_first:
                left = yield from self._read_first()
            while left > 0:
                # Asked before the old file is read to its end: what was written into it until the logger took the new
                # one is then not skipped.
                is_replaced = self._is_replaced()
                left = yield from self._rest(left)
                if left <= 0 or not self._follow(is_replaced=is_replaced):
                    return
        except OSError as error:
            self.why_unreadable = f"{self.place} cannot be read ({(error.strerror or str(error)).lower()})"

    def _read_first(self) -> Generator[LogLine, None, int]:
        """Open the file at MAX_BYTES before its end; if it is shorter, read the end of the one before it first."""
        fd = _open(self._path)
        size = os.fstat(fd).st_size
        left = MAX_BYTES
        if size < MAX_BYTES and (before := _predecessor(self._path)) is not None:
            with suppress(OSError):
                self._open_at_end(_open(before), MAX_BYTES - size)
                left = yield from self._rest(MAX_BYTES - size)
                self.close()
        self._open_at_end(fd, MAX_BYTES)
        self._is_first = False
        return left

    def _open_at_end(self, fd: int, size: int) -> None:
        start = max(0, os.fstat(fd).st_size - size)
        os.lseek(fd, start, os.SEEK_SET)
        self._fd, self._begun, self._is_skipping = fd, b"", start > 0

    def _is_replaced(self) -> bool:
        """Whether the logger writes into a new file with this name.

        logrotate makes the new file at once, and the logger writes into the old one until it is told.
        """
        assert self._fd is not None
        now = os.fstat(self._fd)
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False  # it is being rotated
        return (named.st_dev, named.st_ino) != (now.st_dev, now.st_ino) and named.st_size > 0

    def _follow(self, *, is_replaced: bool) -> bool:
        """Whether there is more to read: in a new file with this name, or in the same one, which was emptied."""
        assert self._fd is not None
        if is_replaced:
            fd = _open(self._path)
            self.close()
            self._fd, self._begun, self._is_skipping = fd, b"", False
            return True
        if os.fstat(self._fd).st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._begun, self._is_skipping = b"", False
            return True
        return False

    def _rest(self, left: int) -> Generator[LogLine, None, int]:
        """The lines up to the end of the open file; returns how many bytes of `left` remain."""
        assert self._fd is not None
        while left > 0 and (chunk := os.read(self._fd, min(_CHUNK, left))):
            left -= len(chunk)
            *complete, rest = (self._begun + chunk).split(b"\n")
            for line in complete:
                if self._is_skipping:
                    self._is_skipping = False
                elif found := parse_line(line.decode("utf-8", "replace")):
                    yield found
            self._begun = rest
            if len(rest) > MAX_LINE:
                self._begun, self._is_skipping = b"", True
        return left

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _open(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # maillog_file = /dev/stdout
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no file")
    return fd


def _predecessor(path: Path) -> Path | None:
    """The last file that was rotated away and not packed yet."""
    found = []
    for other in path.parent.iterdir():
        if other.name.startswith(path.name) and _ROTATED.fullmatch(other.name.removeprefix(path.name)):
            with suppress(OSError):
                found.append((other.stat().st_mtime, other))
    return max(found)[1] if found else None


class SystemdJournal:
    """The systemd journal, by journalctl(1): all mail, also that of `postsuper` in somebody's shell."""

    place = "the systemd journal"

    def __init__(self, facility: str) -> None:
        self.why_unreadable: str | None = None
        self._facility = _FACILITIES.get(facility.casefold(), 2)
        self._cursor = ""

    def read(self) -> Iterator[LogLine]:
        """The entries since the last call; at the first call, the last MAX_ENTRIES."""
        self.why_unreadable = None
        is_whole = False
        command = shutil.which("journalctl")
        if command is None:
            self.why_unreadable = "journalctl is not on this host"
            return
        since = f"--after-cursor={self._cursor}" if self._cursor else f"--lines={MAX_ENTRIES}"
        fields = "--output-fields=SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,MESSAGE"
        which = [since, f"SYSLOG_FACILITY={self._facility}"]
        try:
            with tempfile.TemporaryFile() as errors:
                process = subprocess.Popen(  # noqa: S603  no shell; the cursor is journalctl's own
                    [command, "--system", "--no-pager", "--output=json", fields, *which],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                    cwd="/",
                )
                with process:
                    timer = threading.Timer(JOURNAL_TIMEOUT, process.kill)
                    timer.start()
                    try:
                        assert process.stdout is not None
                        yield from self._entries(islice(process.stdout, MAX_ENTRIES))
                        is_whole = not process.stdout.read(1)
                    finally:
                        timer.cancel()
                        if process.poll() is None and not is_whole:
                            process.kill()
                if is_whole and process.returncode != 0:
                    errors.seek(0)
                    said = errors.read(1000).decode("utf-8", "replace").strip().partition("\n")[0]
                    self.why_unreadable = f"journalctl says: {said or f'exit status {process.returncode}'}"
        except OSError as error:
            self.why_unreadable = f"journalctl failed ({error})"

    def _entries(self, lines: Iterable[bytes]) -> Iterator[LogLine]:
        for line in lines:
            try:
                entry = json.loads(line.decode("utf-8", "replace"))
                self._cursor = entry["__CURSOR"]
                name, _, program = _text(entry["SYSLOG_IDENTIFIER"]).rpartition("/")
                pid, text = _text(entry.get("SYSLOG_PID") or entry["_PID"]), _text(entry["MESSAGE"])
            except (ValueError, LookupError, TypeError):
                continue  # another program's
            if name:
                yield LogLine(name, program, pid, text)

    def close(self) -> None:
        """Nothing is open."""


def _text(value: object) -> str:
    """A field of an entry: text, or a list of bytes where it is no UTF-8. Raises TypeError."""
    if isinstance(value, list):
        return bytes(value).decode("utf-8", "replace")
    if not isinstance(value, str):
        raise TypeError("a field that is no text")
    return value


@dataclass(slots=True)
class _Followed:
    """A source with what was read in it."""

    source: LogSource
    events: LogEvents = field(default_factory=LogEvents)


class MailLog:
    """The log of one instance: what its lines say, from the one place in which the last mark appeared.

    A mark is a line that the caller has somebody write into the log, as Postfix's programs do. When it is seen, all
    lines that were written before it have been read, however late they come.
    """

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._all = [_Followed(source) for source in sources(settings)]
        self._chosen: _Followed | None = None
        self._mark = ""

    @property
    def events(self) -> LogEvents:
        """The events read so far. Without lines as long as no mark was seen."""
        return self._chosen.events if self._chosen is not None else _NOTHING

    @property
    def place(self) -> str | None:
        """The place where this instance logs; None as long as no mark was seen."""
        return self._chosen.source.place if self._chosen is not None else None

    @property
    def why_unreadable(self) -> str | None:
        """Why nothing can be read in any place; None if one of them can be read."""
        reasons = [followed.source.why_unreadable for followed in self._followed]
        return None if None in reasons else "; ".join(filter(None, reasons))

    @property
    def _followed(self) -> list[_Followed]:
        return self._all if self._chosen is None else [self._chosen]

    def new_mark(self) -> str:
        """The text of a new mark, which takes the place of the last one."""
        self._mark = secrets.token_hex(8)
        return self._mark

    def is_mark_seen(self) -> bool:
        """Whether the last mark has been read: then so has all that was logged before it."""
        return bool(self._mark) and self._chosen is not None and self._mark in self._chosen.events.marks

    def read(self, keep: Collection[str]) -> None:
        """Read what was logged since the last call. `keep`: the queue ids whose lines must not be forgotten."""
        for followed in self._followed:
            followed.events.keep(keep)
            followed.events.add(line for line in followed.source.read() if self._settings.is_ours(line))
        if self._chosen is None and self._mark:
            self._chosen = next((one for one in self._all if self._mark in one.events.marks), None)
            if self._chosen is not None:
                for other in self._all:
                    if other is not self._chosen:
                        other.source.close()
                self._all = [self._chosen]

    def close(self) -> None:
        """Close the files."""
        for followed in self._all:
            followed.source.close()


_NOTHING: Final = LogEvents()
