"""Recording from the milter's callbacks: for a moment only, and not at all while the journal is broken.

A callback that waits stalls the other sessions of its worker (libmilter's pool). So what it writes is as little as can
be; it waits at most WAIT seconds; and once a write has failed the next ones fail at once, until a thread that is in no
message's way has written something again.

What is recorded outlives the milter from then on, and a power cut once that thread has seen it on the disk, about a
hundredth of a second later: while Postfix does the same for the message.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import structlog

from undisclosed.incidents.records import JournalError, Transaction
from undisclosed.milter.together import Together

WAIT: Final = 2.5
"""Seconds a callback waits: the journal gives up by itself after 2, unless the system does not let it."""

TICK: Final = 0.01
"""Seconds between two looks of the thread behind, while messages are recorded."""

QUIET: Final = 0.05
"""Seconds in which the worker has nothing to do after which it files what was received, so that no message waits for
the interpreter or the journal's lock. Whoever reads the journal, such as the steward, files it before."""

PROBE_EVERY: Final = 1.0
"""Seconds between two attempts to write again."""

TOO_LATE: Final = f"the journal took longer than {WAIT:g} s"

NOT_TRIED: Final = "not tried: the journal could not be written a moment ago"

BLOCKED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


E = TypeVar("E", bound=Exception)


class Inbox(Protocol):
    """The part of the journal that a worker uses: journal.inbox, or a test's wrapper of it."""

    def put(self, transactions: Sequence[Transaction]) -> None:
        """Insert transactions, all or none. Raises JournalError."""

    def file(self, limit: int) -> int:
        """File the oldest transactions as incidents, at most `limit`; returns the number filed. Raises JournalError."""

    def mark_not_queued(self, transaction: Transaction, why: str) -> bool:
        """Record that Postfix does not have a message that was put. Raises JournalError."""

    def sync(self) -> None:
        """Return when all that was put is on the disk. Raises JournalError."""

    def probe(self) -> None:
        """Write a little, to see whether writing works. Raises JournalError."""

    def close(self) -> None:
        """Close every connection."""


class Recorder:
    """What the sessions of one worker record with. `start` it before use; it ends with the process."""

    def __init__(
        self, inbox: Inbox, gateway: str, log: structlog.BoundLogger, activity: Callable[[], int] = lambda: 0
    ) -> None:
        """`activity` returns another number whenever the worker has done something since."""
        self.gateway = gateway
        self._activity = activity
        self._inbox = inbox
        self._log = log
        self._together = Together(self._put_down, self._came_late)
        self._in_use: Inbox | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._fresh = False
        """Whether something was recorded that may not be on the disk yet."""
        self._jobs: deque[Callable[[], object]] = deque()
        self._broken_since: float | None = None
        self._breaks = 0
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._ends = False
        self._missed = 0

    def start(self) -> None:
        """Start the thread behind; it first sees whether the journal can be written."""
        # A signal that this thread took would have its default action: the worker's end.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            self._thread.start()
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
        self._fresh = True
        if not self._wake.is_set():  # a thread that wakes now would contend with this one until the answer is given
            self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether something is being put down at this moment."""
        return self._together.busy

    def _receive(self, transaction: Transaction) -> None:
        if self._broken_since is not None:
            raise JournalError(NOT_TRIED)
        breaks = self._breaks
        try:
            self._together.do(transaction, WAIT)
        except TimeoutError:  # the system does not let whoever puts it down go on
            late = JournalError(TOO_LATE)
            raise self._broke(late) if breaks == self._breaks else late from None

    def _put_down(self, transactions: Sequence[Transaction]) -> None:
        """Put down what waits. One thread at a time, so that no more than one waits for a broken journal."""
        if self._broken_since is not None:
            raise JournalError(NOT_TRIED)
        self._in_use = inbox = self._inbox
        try:
            inbox.put(transactions)
        except JournalError as error:
            self._broke(error)
            raise
        except Exception as error:
            raise self._broke(JournalError(str(error) or type(error).__name__)) from error
        finally:
            self._in_use = None

    def _came_late(self, transaction: Transaction) -> None:
        if transaction.outcome in ("rewrite", "warn"):
            self.withdraw(transaction, "the journal took too long: answered with a temporary failure")

    def withdraw(self, transaction: Transaction, why: str) -> None:
        """Say that Postfix does not have a message that was recorded. Returns at once."""
        self._do(lambda: self._inbox.mark_not_queued(transaction, why))

    def use(self, inbox: Inbox, gateway: str) -> None:
        """Record in another journal from now on: the configuration was reloaded."""

        before, self._inbox, self.gateway = self._inbox, inbox, gateway

        def change() -> None:
            deadline = time.monotonic() + WAIT
            while self._in_use is before and time.monotonic() < deadline:
                time.sleep(TICK)  # what is being put down now still goes into the other one
            before.close()
            self._probe()

        self._do(change)

    def stop(self, within: float) -> None:
        """End the thread behind: what was recorded is on the disk then, if it can be in so many seconds."""
        self._ends = True
        self._wake.set()
        self._thread.join(within)

    def _do(self, job: Callable[[], object]) -> None:
        self._jobs.append(job)
        self._wake.set()

    def _work(self) -> None:
        self._probe()
        quiet_at, activity = 0.0, self._activity()  # at once: a worker that was killed may have left something
        while not (self._ends and (self._broken_since is not None or not (self._fresh or self._jobs))):
            if self._broken_since is not None:
                time.sleep(PROBE_EVERY)
                self._do_jobs()
                self._probe()
                continue
            if self._fresh:
                self._fresh = False  # first: what is recorded from now on is the next round's
                self._try(self._inbox.sync)  # takes as long as the disk does
                quiet_at = time.monotonic() + QUIET
            self._do_jobs()
            if activity != (now := self._activity()):
                activity, quiet_at = now, time.monotonic() + QUIET
            elif time.monotonic() >= quiet_at and not self._file():
                self._idle()
            time.sleep(TICK)

    def _idle(self) -> None:
        """Wait until there is something to do. `record` sets `_fresh` first and looks whether we are awake then."""
        self._wake.clear()
        if not self._fresh and not self._jobs and not self._ends and self._broken_since is None:
            self._wake.wait()

    def _do_jobs(self) -> None:
        while self._jobs:
            self._try(self._jobs.popleft())

    def _file(self) -> bool:
        """File until the worker has something else to do; False where there is nothing left."""
        activity, filed = self._activity(), 1

        def file() -> None:
            nonlocal filed
            filed = self._inbox.file(1)

        while filed and self._activity() == activity and not self._fresh and self._try(file):
            pass
        return bool(filed)

    def _probe(self) -> None:
        if self._try(self._inbox.probe) and self._try(self._inbox.sync) and self._broken_since is not None:
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
