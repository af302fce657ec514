"""The file with the result of a reload; tests/wire/test_reload.py has the services and the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from undisclosed.service.reload import DIRECTORY, ReloadResult, ReloadResultFile

NAME = "result.json"


@pytest.fixture
def result_file(tmp_path: Path) -> ReloadResultFile:
    """The file of a service whose runtime directory is the test's own."""
    made = ReloadResultFile(tmp_path)
    made.prepare()
    return made


def test_a_result_is_read_as_it_was_written(result_file: ReloadResultFile) -> None:
    """With the process that wrote it; a later one replaces it."""
    assert result_file.read() is None
    result_file.write(ReloadResult(began=1, refused="line 1\nŵ \udcff"))
    assert result_file.read() == ReloadResult(1, "line 1\nŵ \udcff", (), os.getpid())
    result_file.write(ReloadResult(began=2, restart=("milter.workers",)))
    assert result_file.read() == ReloadResult(2, "", ("milter.workers",), os.getpid())


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"7", b"{}", b'{"began": 1}', b'{"began": {}, "refused": 1, "restart": [], "pid": 3}'],
)
def test_a_file_that_is_no_result_is_none(result_file: ReloadResultFile, tmp_path: Path, content: bytes) -> None:
    """Root reads the file of a process without rights."""
    (tmp_path / DIRECTORY / NAME).write_bytes(content)
    assert result_file.read() is None


def test_no_other_file_is_read_through_a_link(result_file: ReloadResultFile, tmp_path: Path) -> None:
    """A process without rights could let root read any file, and a FIFO could stop it for ever."""
    result_file.write(ReloadResult(began=1))
    (tmp_path / DIRECTORY / NAME).rename(tmp_path / "elsewhere")
    (tmp_path / DIRECTORY / NAME).symlink_to(tmp_path / "elsewhere")
    assert result_file.read() is None
    (tmp_path / DIRECTORY / NAME).unlink()
    os.mkfifo(tmp_path / DIRECTORY / NAME)
    assert result_file.read() is None


def test_a_directory_that_cannot_be_written_costs_the_answer_only(tmp_path: Path) -> None:
    """The reload itself goes on, and the log has its result."""
    result_file = ReloadResultFile(tmp_path / "nonexistent")
    result_file.prepare()
    result_file.write(ReloadResult(began=1))
    assert result_file.read() is None


def test_without_a_runtime_directory_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service started by hand."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    result_file = ReloadResultFile.of_this_service()
    result_file.prepare()
    result_file.write(ReloadResult(began=1))
    assert result_file.read() is None
