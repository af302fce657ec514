"""Recording from the milter's callbacks: in a thread of its own, for a moment only, and not at all while it is broken.

A callback that waits stalls the other sessions of its worker (libmilter's pool). So one thread a worker has the
journal's connection; a callback waits for it at most WAIT seconds; and once a write has failed the next ones fail at
once, until that thread, outside every message's way, has written something again.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from undisclosed.records import Copy, JournalError, State, Transaction

WAIT: Final = 2.5
"""Seconds a callback waits: the journal gives up by itself after 2, unless the system does not let it."""

PROBE_EVERY: Final = 1.0
"""Seconds between two attempts to write again."""

NOT_TRIED: Final = "not tried: the journal could not be written a moment ago"

BLOCKED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Keeper(Protocol):
    """The part of the journal that is needed here."""

    def record(self, transaction: Transaction) -> Copy:
        """Record a transaction. Raises JournalError."""

    def set_state(self, copy_id: int, state: State, *, actor: str, why: str) -> bool:
        """Change the state of a copy. Raises JournalError."""

    def probe(self) -> None:
        """Write a little. Raises JournalError."""

    def close(self) -> None:
        """Give up every connection."""


@dataclass(slots=True)
class _Job:
    """One transaction to be recorded, and what became of it."""

    transaction: Transaction
    done: threading.Event = field(default_factory=threading.Event)
    copy: Copy | None = None
    error: Exception | None = None
    abandoned: bool = False


class Recorder:
    """What the sessions of one worker record with. `start` it before use; it ends with the process."""

    def __init__(self, keeper: Keeper, gateway: str, log: structlog.BoundLogger) -> None:
        self.gateway = gateway
        self._keeper = keeper
        self._log = log
        self._jobs: queue.SimpleQueue[_Job | Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._broken_since: float | None = None
        self._missed = 0

    def start(self) -> None:
        """Start the thread; it first sees whether the journal can be written."""
        # A signal that this thread took would have its default action: the worker's end.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            threading.Thread(target=self._work, name="journal", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def record(self, transaction: Transaction) -> Copy:
        """Record a transaction, and return its copy. Raises JournalError, at once where the last write failed."""
        try:
            return self._waited_for(_Job(transaction))
        except JournalError:
            with self._lock:
                self._missed += 1
            raise

    def _waited_for(self, job: _Job) -> Copy:
        if self._broken_since is not None:
            raise JournalError(NOT_TRIED)
        self._jobs.put(job)
        if not job.done.wait(WAIT):
            with self._lock:
                job.abandoned = not job.done.is_set()
            if job.abandoned:
                error = JournalError(f"the journal took longer than {WAIT:g} s")
                self._broke(error)
                raise error
        if job.error is not None:
            raise JournalError(str(job.error)) from job.error
        assert job.copy is not None
        return job.copy

    def withdraw(self, copy: Copy, why: str) -> None:
        """Say that a recorded message was told to come back after all. Returns at once."""

        def undo() -> None:
            self._keeper.set_state(copy.id, State.NEVER_QUEUED, actor="milter", why=why)

        self._jobs.put(undo)

    def use(self, keeper: Keeper, gateway: str) -> None:
        """Record in another journal from now on: the configuration was reloaded."""

        def swap() -> None:
            self.gateway = gateway
            self._keeper.close()
            self._keeper = keeper
            self._probe()

        self._jobs.put(swap)

    def _work(self) -> None:
        self._probe()
        while True:
            try:
                job = self._jobs.get(timeout=None if self._broken_since is None else PROBE_EVERY)
            except queue.Empty:
                self._probe()
                continue
            if isinstance(job, _Job):
                self._record(job)
            else:
                self._try(job)

    def _record(self, job: _Job) -> None:
        copy: Copy | None = None
        error: Exception | None = None
        try:
            if self._broken_since is not None:
                raise JournalError(NOT_TRIED)
            copy = self._keeper.record(job.transaction)
        except Exception as caught:  # noqa: BLE001 - the thread must live, and the callback must hear of it
            error = caught
            self._broke(caught)
        with self._lock:
            job.copy, job.error = copy, error
            job.done.set()
            late = job.abandoned
        if late and copy is not None and job.transaction.outcome in ("rewrite", "warn"):
            # The sender's server was told to come back: what is recorded has not happened.
            self.withdraw(copy, "the journal took too long: answered with a temporary failure")

    def _probe(self) -> None:
        if self._try(self._keeper.probe) and self._broken_since is not None:
            with self._lock:
                seconds, missed = time.monotonic() - self._broken_since, self._missed
                self._broken_since, self._missed = None, 0
            self._log.info("journal_works_again", after_seconds=round(seconds, 1), messages_not_recorded=missed)

    def _try(self, attempt: Callable[[], object]) -> bool:
        try:
            attempt()
        except Exception as error:  # noqa: BLE001 - the thread must live
            self._broke(error)
            return False
        return True

    def _broke(self, error: Exception) -> None:
        """The journal cannot be written: said once, when it begins."""
        with self._lock:
            if self._broken_since is not None:
                return
            self._broken_since = time.monotonic()
        self._log.error("journal_failed", reason=str(error) or type(error).__name__)
