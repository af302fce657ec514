"""Functions that a test runs in a process of its own, which may give up rights or end as if by SIGKILL.

They are forked by a server without threads (multiprocessing's "forkserver"): a fork of the test run itself, which has
threads, could deadlock. A function has to be one of an importable module, and its arguments have to pickle.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import NoReturn

KILLED = 9
"""The exit status of a child that ended as if by SIGKILL."""

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["support.attach_children", "live_postfix.office"])


def run(function: Callable[..., None], *arguments: object) -> tuple[list[str], int | None]:
    """Call `function(says, *arguments)` in a child: what it sent over the connection `says`, and its exit status."""
    reading, writing = _SERVER.Pipe(duplex=False)
    child = _SERVER.Process(target=function, args=(writing, *arguments))
    child.start()
    writing.close()
    said: list[str] = []
    with reading:
        while True:
            try:
                said.append(reading.recv())
            except EOFError:
                break
    child.join()
    return said, child.exitcode


def die() -> NoReturn:
    """End at once, as if by SIGKILL: nothing is flushed, closed or cleaned up."""
    os._exit(KILLED)


def become_nobody() -> None:
    """Give up every right of root for good."""
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
