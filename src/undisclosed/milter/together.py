"""What many threads want done at the same time, done by one of them for all: flat combining.

A lock that each of them took in turn would hand itself, and the interpreter, from one thread to the next hundreds of
times, although the first could have done the work of all.
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
    """What one thread wants done, and what became of it."""

    what: T
    woken: threading.Lock = field(default_factory=threading.Lock)
    """Held while its thread waits."""
    leads: bool = False
    done: bool = False
    gone: bool = False
    error: Exception | None = None


class Together(Generic[T]):
    """A job that is done for all who wait, by one of them at a time; those who come meanwhile are the next round's."""

    def __init__(self, job: Callable[[Sequence[T]], None], late: Callable[[T], None]) -> None:
        """`job` does it for several: for all, or for none, and raises. `late` hears for whom it came too late."""
        self._job = job
        self._late = late
        self._lock = threading.Lock()
        self._waiting: list[_Entry[T]] = []
        self._led = False

    @property
    def busy(self) -> bool:
        """Whether the job is being done at this moment."""
        return self._led

    def do(self, what: T, within: float) -> None:
        """Return when the job was done for this. Raises what it raised, and TimeoutError after so many seconds."""
        entry, deadline = _Entry(what), time.monotonic() + within
        with self._lock:
            self._waiting.append(entry)
            entry.leads, self._led = not self._led, True
            if not entry.leads:
                entry.woken.acquire()
        if not entry.leads and not entry.woken.acquire(timeout=within):
            self._give_up(entry)
        if entry.leads:
            self._lead()
        if entry.error is not None:
            raise entry.error
        if time.monotonic() > deadline:
            self._late(what)
            raise TimeoutError

    def _give_up(self, entry: _Entry[T]) -> None:
        """Leave, unless it was done, or is for this thread to do, at the last moment. Raises TimeoutError."""
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
            self._job([entry.what for entry in entries])
        except Exception as caught:  # noqa: BLE001 - all of them must hear of it
            error = caught
        with self._lock:
            for entry in entries:
                entry.done, entry.error = True, error
            late = [entry.what for entry in entries if entry.gone and error is None]
            heirs = self._waiting[:1]
            for heir in heirs:
                heir.leads = True
            self._led = bool(heirs)
        for entry in (*entries, *heirs):
            if entry.woken.locked():
                entry.woken.release()
        for what in late:
            self._late(what)
