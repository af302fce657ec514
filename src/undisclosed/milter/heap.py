"""The C library's heap, as far as it is ours to say how it behaves."""

from __future__ import annotations

import ctypes
from typing import Final

ARENA_MAX: Final = -8
"""M_ARENA_MAX of mallopt(3)."""


def keep_one() -> None:
    """Have all threads of this process use one heap, where the C library is glibc; elsewhere nothing is changed.

    By default each thread gets its own, up to eight for each processor, and each of them in time grows to what the
    largest messages need. One is enough: only the thread that has the interpreter allocates much.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(ARENA_MAX, 1)
