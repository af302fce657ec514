"""Following Postfix's log for the steward: what is read again where no mark appears."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from model.hold_queue import SimulatedHoldQueue
from model.postfix import SimulatedPostfix
from undisclosed.postfix import mail_log
from undisclosed.postfix.log_events import LogLine, parse_line
from undisclosed.postfix.mail_log import LogSettings
from undisclosed.steward import log_reader
from undisclosed.steward.log_reader import ASK_AGAIN, DEADLINE, LogReader, LogState

LINE = "Nov 30 20:37:35 mx postfix/qmgr[746]: 4jdbR82RhMzKWq6: removed\n"


def test_a_log_without_marks_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another year has 64 MB, and is asked again every minute. The mark is found once it is written there."""
    old, real = tmp_path / "old.log", tmp_path / "mail.log"
    old.write_text(LINE * 3)
    real.touch()
    settings = LogSettings(old, "postfix", frozenset({"postfix"}), "mail")
    monkeypatch.setattr(log_reader, "settings_of", lambda _config_dir: settings)
    read: list[str] = []

    def counted(line: str) -> LogLine | None:
        read.append(line)
        return parse_line(line)

    monkeypatch.setattr(mail_log, "parse_line", counted)
    at = [1000.0]
    postfix = SimulatedPostfix(lambda: datetime.now(UTC), real)
    with SimulatedHoldQueue(postfix, lambda _: None, lambda: "250") as queue:
        reader = LogReader(queue, structlog.get_logger(), lambda: at[0])
        for seconds in (0.0, DEADLINE, ASK_AGAIN, ASK_AGAIN, ASK_AGAIN):
            at[0] += seconds
            reader.read(tmp_path, [])
            state = reader.state()
        assert (state, len(read)) == (LogState.UNREADABLE, 3)
        old.write_text(old.read_text() + real.read_text())
        reader.read(tmp_path, [])
        assert reader.is_readable
        reader.close()
