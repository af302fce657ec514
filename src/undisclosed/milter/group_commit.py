"""Group commit: one of the waiting threads does the work of all of them (flat combining).

With a plain lock, hundreds of threads would hand it, and the interpreter, to each other one by one, although the first
could have done the work of all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    """One thread's item, and its result."""

    item: T
    woken: threading.Lock = field(default_factory=threading.Lock)
    """Held while its thread waits."""
    leads: bool = False
    done: bool = False
    gone: bool = False
    error: Exception | None = None


class GroupCommit(Generic[T]):
    """Runs a job for all waiting items, on one thread at a time; items that come meanwhile are the next round's."""

    def __init__(self, job: Callable[[Sequence[T]], None], late: Callable[[T], None]) -> None:
        """`job` handles several items: all, or none, and raises. `late` is called for each whose thread had left."""
        self._job = job
        self._late = late
        self._lock = threading.Lock()
        self._waiting: list[_Entry[T]] = []
        self._busy = False
        """Whether a thread leads: it runs the job, or is about to."""

    def submit(self, item: T, within: float) -> None:
        """Return when the job is done for this item. Raises its error, and TimeoutError after `within` seconds."""
        entry, deadline = _Entry(item), time.monotonic() + within
        with self._lock:
            self._waiting.append(entry)
            entry.leads, self._busy = not self._busy, True
            if not entry.leads:
                entry.woken.acquire()
        if not entry.leads and not entry.woken.acquire(timeout=within):
            self._give_up(entry)
        if entry.leads:
            self._lead()
        if entry.error is not None:
            raise entry.error
        if time.monotonic() > deadline:
            self._late(item)
            raise TimeoutError

    def _give_up(self, entry: _Entry[T]) -> None:
        """Leave, unless the item was done or this thread was made the leader meanwhile. Raises TimeoutError."""
        with self._lock:
            if entry.leads or entry.done:
                return
            entry.gone = True
            if entry in self._waiting:
                self._waiting.remove(entry)
        raise TimeoutError

    def _lead(self) -> None:
        with self._lock:
            entries, self._waiting = self._waiting, []
        error = None
        try:
            self._job([entry.item for entry in entries])
        except Exception as caught:  # noqa: BLE001 - each of the threads raises it
            error = caught
        with self._lock:
            for entry in entries:
                entry.done, entry.error = True, error
            late = [entry.item for entry in entries if entry.gone and error is None]
            successors = self._waiting[:1]
            for successor in successors:
                successor.leads = True
            self._busy = bool(successors)
        for entry in (*entries, *successors):
            if entry.woken.locked():
                entry.woken.release()
        for item in late:
            self._late(item)
