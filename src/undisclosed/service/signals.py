"""Signals of a service: one of its processes acts on them, and they must not end the others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TO_ALL: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""`systemctl kill`, and a terminal, send these to all processes of a service."""


@contextmanager
def blocked_for_children() -> Iterator[None]:
    """Block TO_ALL: a child that is started meanwhile has them blocked from its first instruction on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TO_ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
