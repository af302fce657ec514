"""Following a log: rotated, emptied, cut, foreign bytes, no permission, several instances, and the mark."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.journald import journald
from undisclosed.postfix.log_events import LogLine, What
from undisclosed.postfix.mail_log import MAX_BYTES, MAX_LINE, LogFile, LogSettings, MailLog, SystemdJournal

STAMP = "Nov 30 20:37:35 mx"


def line(number: int, name: str = "postfix") -> str:
    """A line about one queue id."""
    return f"{STAMP} {name}/qmgr[1]: QUEUE{number:05}: from=<a@council.test>, size=1, nrcpt=1 (queue active)\n"


def numbers(source: LogFile) -> list[int]:
    """The numbers of the lines read."""
    return [int(found.text[5:10]) for found in source.read()]


def write(path: Path, *found: int) -> None:
    """Append lines, as a logger does."""
    with path.open("a") as file:
        file.writelines(map(line, found))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with two lines."""
    file = tmp_path / "mail.log"
    write(file, 1, 2)
    return file


def test_each_line_is_read_once(path: Path) -> None:
    """The first call reads what is there, the next ones what was added."""
    source = LogFile(path)
    assert numbers(source) == [1, 2]
    assert numbers(source) == []
    write(path, 3)
    assert numbers(source) == [3]


def test_a_cut_last_line_is_read_when_it_is_complete(path: Path) -> None:
    """A logger writes in the middle of our reading."""
    source = LogFile(path)
    whole = line(3)
    with path.open("a", buffering=1) as file:
        file.write(whole[:40])
        file.flush()
        assert numbers(source) == [1, 2]
        file.write(whole[40:])
        file.flush()
        assert numbers(source) == [3]


def test_a_rotated_log_is_read_to_its_end_and_then_the_new_one(path: Path) -> None:
    """logrotate renames the file; the logger writes into it until it is told."""
    source = LogFile(path)
    assert numbers(source) == [1, 2]
    path.rename(path.with_name("mail.log.1"))
    write(path.with_name("mail.log.1"), 3)
    assert numbers(source) == [3]
    write(path, 4)
    assert numbers(source) == [4]


def test_an_emptied_log_is_read_from_its_beginning(path: Path) -> None:
    """logrotate's copytruncate."""
    source = LogFile(path)
    assert numbers(source) == [1, 2]
    os.truncate(path, 0)
    write(path, 3)
    assert numbers(source) == [3]


@pytest.mark.parametrize("before", ["mail.log.1", "mail.log-20261129", "mail.log.20261129-030001"])
def test_the_first_call_reads_the_rotated_log_too(path: Path, before: str) -> None:
    """A steward that starts after midnight finds the lines of the evening; packed files are left out."""
    write(path.with_name(before), 0)
    with gzip.open(path.with_name("mail.log.2.gz"), "wt") as file:
        file.write(line(9))
    path.with_name("mail.log.1~").write_text(line(8))
    assert numbers(LogFile(path)) == [0, 1, 2]


def test_foreign_bytes_and_long_lines_hide_no_other_line(path: Path) -> None:
    """NUL, bytes that are no UTF-8, and a line without an end."""
    with path.open("ab") as file:
        file.write(b"\0" * 100 + b"\xff\xe2\x82\n" + b"x" * (MAX_LINE * 200) + b"\n")
    write(path, 3)
    source = LogFile(path)
    assert numbers(source) == [1, 2, 3]
    with path.open("ab") as file:
        file.write(f"{STAMP} postfix/smtp[1]: QUEUE00004: to=<a@b.example>, status=sent (".encode() + b"\xff\xfe)\n")
    assert numbers(source) == [4]


def test_reading_is_bounded(tmp_path: Path) -> None:
    """Of a large log the first call reads the end, in a time that grows with its size alone."""
    file = tmp_path / "mail.log"
    block = "".join(map(line, range(10_000)))
    with file.open("w") as log:
        for _ in range(MAX_BYTES // len(block) + 5):
            log.write(block)
    source = LogFile(file)
    began = time.process_time()
    found = sum(1 for _ in source.read())
    assert MAX_BYTES // len(line(1)) - 1 <= found <= MAX_BYTES // len(line(1))
    assert time.process_time() - began < 20  # 1.5 s on an idle machine
    write(file, 7)
    assert numbers(source) == [7]


def test_a_log_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """No file yet, and then one."""
    file = tmp_path / "mail.log"
    source = LogFile(file)
    assert (numbers(source), source.why_unreadable) == ([], f"{file} cannot be read (no such file or directory)")
    write(file, 1)
    assert numbers(source) == [1]
    assert source.why_unreadable is None


def test_without_permission_there_is_a_reason(path: Path) -> None:
    """postlogd(8) makes its file for root alone."""
    path.chmod(0)
    path.parent.chmod(0o755)
    program = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from undisclosed.postfix.mail_log import LogFile
os.setresgid(65534, 65534, 65534); os.setgroups([]); os.setresuid(65534, 65534, 65534)
source = LogFile(Path({str(path)!r}))
print(list(source.read()), source.why_unreadable)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"[] {path} cannot be read (permission denied)\n"


def settings(file: Path) -> LogSettings:
    """The settings of an instance that logs into this file."""
    return LogSettings(file, "postfix", frozenset({"postfix"}), "mail")


def test_only_lines_of_this_instance_count(path: Path) -> None:
    """Several instances log into one file; a service may have a name of its own behind the instance's."""
    log = MailLog(settings(path))
    with path.open("a") as file:
        file.write(f"{STAMP} postfix-out/cleanup[1]: QUEUE00005: milter-hold: END-OF-MESSAGE from x; y\n")
        file.write(f"{STAMP} postfix/submission/cleanup[1]: QUEUE00006: milter-hold: END-OF-MESSAGE from x; y\n")
        file.write(f"{STAMP} postfix-out/undisclosed[1]: {log.new_mark()} (x)\n")
    log.read([])
    assert not log.is_mark_seen()
    with path.open("a") as file:
        file.write(f"{STAMP} postfix/undisclosed[1]: {log.new_mark()} (x)\n")
    log.read([])
    assert (log.is_mark_seen(), log.place) == (True, str(path))
    assert [log.events.is_held_by_milter(f"QUEUE0000{number}") for number in (5, 6)] == [False, True]


def test_without_a_mark_the_log_says_nothing(path: Path) -> None:
    """A file may be left from another year, or belong to another program."""
    log = MailLog(settings(path))
    log.new_mark()
    log.read([])
    assert (log.is_mark_seen(), log.place, log.why_unreadable) == (False, None, None)
    assert not log.events.of("QUEUE00001").has(What.QUEUED)


def test_the_systemd_journal_is_followed(tmp_path: Path) -> None:
    """Entries of all mail programs, with bytes that are no UTF-8; each is read once."""
    with journald(tmp_path) as say:
        source = SystemdJournal("mail")
        assert list(source.read()) == []
        say(b"<22>postfix/cleanup[77]: 4jdbYZ4xv0zWmP2: milter-hold: END-OF-MESSAGE from x\xff")
        say(b"<14>postfix/cleanup[78]: of another facility")
        say(b"<22>dovecot: imap-login")
        expected = LogLine("postfix", "cleanup", "77", "4jdbYZ4xv0zWmP2: milter-hold: END-OF-MESSAGE from x\ufffd")
        assert list(source.read()) == [expected]
        say(b"<22>postfix/postsuper[79]: Placed on hold: 0 messages")
        assert list(source.read()) == [LogLine("postfix", "postsuper", "79", "Placed on hold: 0 messages")]
        assert (list(source.read()), source.why_unreadable) == ([], None)


def test_lines_in_the_old_file_after_the_new_one_was_made_are_read(path: Path) -> None:
    """logrotate's `create`: the logger writes into the old file until it is told, which may take seconds.

    A line `placed on hold` would be lost there, and the steward would send what somebody stopped.
    """
    source = LogFile(path)
    assert numbers(source) == [1, 2]
    old = path.with_name("mail.log.1")
    path.rename(old)
    path.touch()
    write(old, 3)
    assert numbers(source) == [3]
    write(old, 4)
    assert numbers(source) == [4]
    write(old, 5)
    write(path, 6)
    assert numbers(source) == [5, 6]
