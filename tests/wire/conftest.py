"""The real milter process, without Postfix."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.milter import upgrade_journal
from wire.running import Running, Start


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts milters, each in a short-named directory (sun_path holds 108 bytes); all are gone after the test."""
    with ExitStack() as stack:

        def run(socket: str = "unix", **over: Any) -> Running:
            directory = Path(tempfile.mkdtemp(prefix="udw"))
            stack.callback(shutil.rmtree, directory)
            running = Running(directory, socket)
            running.configure(**over)
            upgrade_journal(running.config)
            stack.enter_context(running.milter)
            return running

        yield run
