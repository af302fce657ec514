"""log.py: one line an event, in both forms; no text of a message ends a line or reaches the terminal raw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from undisclosed import log


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The form of the log that other tests expect."""
    yield
    structlog.reset_defaults()


def written(path: Path, form: log.Form, **fields: str) -> str:
    """The line that an event with these fields makes."""
    with (path / "log").open("wb") as file:
        log.configure(form, file.fileno())
        log.get().error("service_failed", **fields)
    return (path / "log").read_text()


def test_the_text_form_escapes_once(tmp_path: Path) -> None:
    """A line end is one backslash and n, in quotes or not; nothing else is escaped twice (users' walk, 33)."""
    line = written(tmp_path, "console", reason='line 3: mode\n  write "enforce" \x1b[2J', code="a\nb")
    assert r'reason="line 3: mode\n  write \"enforce\" \x1b[2J"' in line
    assert r"code=a\nb" in line
    assert line.count("\n") == 1


def test_json_keeps_the_text_for_programs(tmp_path: Path) -> None:
    """One object; control characters are escaped within the text too, for people who print it."""
    line = written(tmp_path, "json", reason="line 3\n\x1b[2J")
    assert json.loads(line)["reason"] == r"line 3\n\x1b[2J"
