"""Processor time and memory of a group of processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path


def processor_seconds(pids: Iterable[int]) -> float:
    """Processor time of these processes since they began, user and system, and of their children that have ended.

    The time of a process itself is its CPU clock's (clock_getcpuclockid(3)): to the nanosecond, threads that have ended
    included. The time of its children that have ended and were waited for is in /proc, in hundredths of a second.
    """
    total = 0.0
    for pid in pids:
        total += time.clock_gettime((~pid << 3) | 2)
        # The command in parentheses may itself hold blanks: the fields are counted from the last one (proc(5)).
        after_command = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        total += (int(after_command[13]) + int(after_command[14])) / os.sysconf("SC_CLK_TCK")
    return total


def memory(pids: Iterable[int]) -> int:
    """Bytes of memory of these processes together: what several of them share is counted once (PSS, proc(5))."""
    return sum(_proportional(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids)


def _proportional(rollup: str) -> int:
    return int(rollup.partition("\nPss:")[2].split()[0]) * 1024
