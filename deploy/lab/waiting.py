"""Waiting for a condition instead of sleeping for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.01
"""Seconds between two evaluations of a condition."""


DEADLINE = 60.0
"""Seconds to wait for a condition that takes one or two on an idle machine. Only a test that fails waits that long."""


def until(condition: Callable[[], T], *, what: str, within: float = DEADLINE) -> T:
    """The first true value of `condition`, which is evaluated again and again.

    Raises TimeoutError, which names `what`, after `within` seconds. The last evaluation is after the deadline: a
    machine that stood still meanwhile does not turn a condition that is met into a failure.
    """
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() > deadline
        if value := condition():
            return value
        if late:
            raise TimeoutError(f"timed out after {within:g} s waiting for {what}")
        time.sleep(PAUSE)
