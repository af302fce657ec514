"""The shipped systemd units, as the tests read them, and systemd's own tools."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from lab import milter
from support.paths import DEPLOY

UNITS = DEPLOY / "systemd"
INSTALLED = "/opt/undisclosed/bin/undisclosed"
"""The path of the program in the units."""


def settings(name: str) -> dict[str, list[str]]:
    """Every setting of a unit with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def copied(name: str, directory: Path) -> Path:
    """A copy of a unit with the path that the program has here: systemd checks that the file exists."""
    copy = directory / name
    copy.write_text((UNITS / name).read_text().replace(INSTALLED, str(milter.console_script())))
    return copy


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of systemd's tools, without a pager and without a terminal."""
    environment = {**os.environ, "SYSTEMD_PAGER": "cat", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
