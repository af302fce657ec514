"""Recording from the milter's callbacks: for a moment only, and not at all while the journal is broken.

A callback that waits stalls the other sessions of its worker (libmilter's pool). So what it writes is as little as can
be; it waits at most WAIT seconds; and once a write has failed the next ones fail at once, until a thread that is in no
message's way has written something again.

What is recorded outlives the milter from then on, and a power cut once that thread has seen it on the disk, a moment
later: while Postfix does the same for the message, and still owes its client the 250.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import structlog

from undisclosed.records import JournalError, Transaction

WAIT: Final = 2.5
"""Seconds a callback waits: the journal gives up by itself after 2, unless the system does not let it."""

PROBE_EVERY: Final = 1.0
"""Seconds between two attempts to write again."""

TOO_LATE: Final = f"the journal took longer than {WAIT:g} s"

NOT_TRIED: Final = "not tried: the journal could not be written a moment ago"

BLOCKED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


E = TypeVar("E", bound=Exception)


class Keeper(Protocol):
    """The part of the journal that is needed here."""

    def receive(self, transaction: Transaction) -> None:
        """Put a transaction down for good. Raises JournalError."""

    def file(self) -> int:
        """File what was received; returns how many. Raises JournalError."""

    def withdraw(self, transaction: Transaction, why: str) -> bool:
        """Say that Postfix does not have a message after all. Raises JournalError."""

    def settle(self) -> None:
        """Return when what was recorded is on the disk. Raises JournalError."""

    def probe(self) -> None:
        """Write a little. Raises JournalError."""

    def close(self) -> None:
        """Give up every connection."""


class Recorder:
    """What the sessions of one worker record with. `start` it before use; it ends with the process."""

    def __init__(self, keeper: Keeper, gateway: str, log: structlog.BoundLogger) -> None:
        self.gateway = gateway
        self._keeper = keeper
        self._log = log
        self._writing = threading.Lock()
        """Held by whoever puts something down: one at a time, so that no more than one waits for a broken journal."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._jobs: deque[Callable[[], object]] = deque()
        self._broken_since: float | None = None
        self._breaks = 0
        self._missed = 0

    def start(self) -> None:
        """Start the thread behind; it first sees whether the journal can be written."""
        # A signal that this thread took would have its default action: the worker's end.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            threading.Thread(target=self._work, name="journal", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def record(self, transaction: Transaction) -> None:
        """Record a transaction. Raises JournalError: at once where the last write failed, after WAIT at most."""
        try:
            self._receive(transaction)
        except JournalError:
            with self._lock:
                self._missed += 1
            raise
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether something is being put down at this moment."""
        return self._writing.locked()

    def _receive(self, transaction: Transaction) -> None:
        deadline, breaks = time.monotonic() + WAIT, self._breaks
        if self._broken_since is not None:
            raise JournalError(NOT_TRIED)
        if not self._writing.acquire(timeout=WAIT):  # the system does not let whoever has it go on
            raise self._broke(JournalError(TOO_LATE))
        try:
            if self._broken_since is not None:
                raise JournalError(NOT_TRIED)
            self._put_down(transaction)
        finally:
            self._writing.release()
        if time.monotonic() > deadline:
            if transaction.outcome in ("rewrite", "warn"):
                self.withdraw(transaction, "the journal took too long: answered with a temporary failure")
            late = JournalError(TOO_LATE)
            raise self._broke(late) if breaks == self._breaks else late  # else it was said by whoever waited for us

    def _put_down(self, transaction: Transaction) -> None:
        try:
            self._keeper.receive(transaction)
        except JournalError as error:
            raise self._broke(error) from None
        except Exception as error:
            raise self._broke(JournalError(str(error) or type(error).__name__)) from error

    def withdraw(self, transaction: Transaction, why: str) -> None:
        """Say that Postfix does not have a message that was recorded. Returns at once."""
        self._do(lambda: self._keeper.withdraw(transaction, why))

    def use(self, keeper: Keeper, gateway: str) -> None:
        """Record in another journal from now on: the configuration was reloaded."""

        def swap() -> None:
            with self._writing:
                before, self._keeper, self.gateway = self._keeper, keeper, gateway
            before.close()
            self._probe()

        self._do(swap)

    def _do(self, job: Callable[[], object]) -> None:
        self._jobs.append(job)
        self._wake.set()

    def _work(self) -> None:
        self._probe()
        while True:
            if self._broken_since is None:
                self._try(self._keeper.settle)  # takes as long as the disk does
                self._try(self._keeper.file)
            while self._jobs:
                self._try(self._jobs.popleft())
            self._wake.wait(None if self._broken_since is None else PROBE_EVERY)
            self._wake.clear()  # first: what is recorded from now on is the next round's
            if self._broken_since is not None:
                self._probe()

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

    def _broke(self, error: E) -> E:
        """The journal cannot be written: said once, when it begins. Returns the error."""
        with self._lock:
            begins, self._broken_since = self._broken_since is None, self._broken_since or time.monotonic()
            self._breaks += begins
        if begins:
            self._wake.set()
            self._log.error("journal_failed", reason=str(error) or type(error).__name__)
        return error
