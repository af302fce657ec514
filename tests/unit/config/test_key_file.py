"""key_file.py: the key is made once, read in two forms, and refused where others may know it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.factories import policy
from undisclosed.config.errors import ConfigError, NotPermittedError
from undisclosed.config.key_file import read_key
from undisclosed.policy import Policy


@contextmanager
def without_rights() -> Iterator[None]:
    """Run as a user who may not open our files; root may open all."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def keyed(path: Path) -> Policy:
    """A policy with this key file."""
    return policy(journal={"key_file": str(path)})


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """32 random bytes in hexadecimal digits, mode 0600. Later reads return the same, and no other file is left."""
    file = tmp_path / "key"
    was = os.umask(0)
    try:
        made = read_key(keyed(file), create=True)
    finally:
        os.umask(was)
    assert len(made) == 32
    assert made.hex() + "\n" == file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made == read_key(keyed(file), create=True) == read_key(keyed(file), create=False)
    assert [file] == list(tmp_path.iterdir())
    assert made != read_key(keyed(tmp_path / "another"), create=True)


def test_supervisors_that_start_together_get_the_same_key(tmp_path: Path) -> None:
    """The second one reads the key that the first has made, and never half of it."""
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: read_key(keyed(tmp_path / "key"), create=True), range(32)))
    assert {keys[0]} == set(keys)
    assert [tmp_path / "key"] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(32)),
        bytes(range(31)) + b"\n",
        bytes(range(32)).hex().encode(),
        bytes(range(32)).hex().upper().encode() + b"\r\n",
        b" " + bytes(range(32)).hex().encode() + b"\n\n",
    ],
)
def test_a_key_is_read_raw_or_in_hexadecimal_digits(tmp_path: Path, content: bytes) -> None:
    """Blanks around the digits are ignored; raw bytes are kept, blanks at their ends included."""
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    expected = content if len(content) == 32 else bytes(range(32))
    assert expected == read_key(keyed(file), create=False)


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"", 0o600, "not a key: it has 0 bytes"),
        (b"secret\n", 0o600, "not a key: it has 7 bytes"),
        (bytes(range(33)), 0o600, "not a key: it has 33 bytes"),
        (b"g" * 64, 0o600, "not a key: it has 64 bytes"),
        (bytes(32), 0o600, "not a key: all its bytes are the same"),
        (b"0" * 64 + b"\n", 0o600, "not a key: all its bytes are the same"),
        (bytes(range(32)), 0o640, "other users than its owner can read or write it (mode 0640)"),
        (bytes(range(32)), 0o604, "other users than its owner can read or write it (mode 0604)"),
    ],
)
def test_a_file_without_a_secret_key_is_refused(tmp_path: Path, content: bytes, mode: int, problem: str) -> None:
    """Too short, too long, left by a crash, or readable by others: it is neither used nor overwritten."""
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read_key(keyed(file), create=True)
    assert caught.value.problems[0].problem.startswith(problem)
    assert (file, "journal.key_file", str(file)) == (caught.value.file, caught.value.key, caught.value.value)
    assert content == file.read_bytes()
    assert caught.value.fix


@pytest.mark.parametrize(
    ("make", "create", "problem"),
    [
        (lambda path: None, False, "does not exist yet"),
        (lambda path: path.parent.rmdir(), True, "cannot be made: its directory does not exist"),
        (lambda path: path.mkdir(), True, "cannot be read: a directory"),
        (os.mkfifo, True, "cannot be read: not a regular file"),
        (lambda path: path.symlink_to(path.parent / "away" / "key"), True, "cannot be made"),
    ],
    ids=["missing", "no directory", "directory", "pipe", "dangling link"],
)
def test_an_unusable_key_file_is_refused(tmp_path: Path, make: object, create: bool, problem: str) -> None:
    """The error names journal.key_file and a remedy; no temporary file is left."""
    file = tmp_path / "state" / "key"
    file.parent.mkdir()
    assert callable(make)
    make(file)
    with pytest.raises(ConfigError) as caught:
        read_key(keyed(file), create=create)
    assert caught.value.problems[0].problem.startswith(problem)
    assert "journal.key_file" in str(caught.value)
    assert not list(tmp_path.glob("state/.key*"))


def test_a_key_file_in_a_directory_without_write_permission_is_refused(tmp_path: Path) -> None:
    """The fix names the milter's user: the key given to another user would stop the gateway."""
    tmp_path.chmod(0o555)
    try:
        with without_rights(), pytest.raises(NotPermittedError) as caught:
            read_key(keyed(tmp_path / "key"), create=True)
    finally:
        tmp_path.chmod(0o755)
    assert "permission denied" in caught.value.problems[0].problem
    assert "the milter's user" in caught.value.fix
