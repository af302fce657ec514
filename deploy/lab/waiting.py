"""Waiting for a condition instead of sleeping for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.01
"""Seconds between two looks: short beside anything waited for here, long beside the look itself."""


def until(condition: Callable[[], T], *, within: float, what: str) -> T:
    """The first true value of `condition`, looked at again and again.

    `within` is in seconds. Raises TimeoutError with the words of `what` when it is over; the last look is after the
    deadline, so that a machine that was stopped meanwhile does not turn a met condition into a failure.
    """
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() > deadline
        if value := condition():
            return value
        if late:
            raise TimeoutError(f"waited {within:g} s in vain for {what}")
        time.sleep(PAUSE)
