"""Records the transactions of the milter's callbacks in the journal.

A callback that waits stalls other sessions of its worker (libmilter's thread pool). So it inserts one row, and waits at
most WAIT seconds. After a write has failed the next ones fail at once, until the background thread has written again.

A recorded transaction survives a crash of the process from the commit on, and a power loss after sync(), about 10 ms
later. Postfix syncs the message itself at about the same time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import structlog

from undisclosed.incidents.records import JournalError, Transaction
from undisclosed.milter.group_commit import GroupCommit
from undisclosed.policy.actions import DELIVERED_TREATMENTS

WAIT: Final = 2.5
"""Seconds for which a callback waits: the journal's own timeout is 2, which a disk that blocks the process exceeds."""

TICK: Final = 0.01
"""Seconds between two rounds of the background thread while messages are recorded."""

QUIET: Final = 0.05
"""Seconds without a callback after which the worker files the transactions of the inbox: while messages pass, filing
would compete with them for the GIL and the journal's lock. A reader such as the steward files them itself first."""

PROBE_EVERY: Final = 1.0
"""Seconds between two attempts to write to a broken journal."""

TOO_LATE: Final = f"the journal took longer than {WAIT:g} s"

NOT_TRIED: Final = "not tried: the journal could not be written a moment ago"

E = TypeVar("E", bound=Exception)


class RecorderInbox(Protocol):
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
        """Close every connection of the journal: a worker uses no other part of it."""


class Recorder:
    """Records the transactions of one worker's sessions. `start` it before use; it ends with the process."""

    def __init__(
        self, inbox: RecorderInbox, gateway: str, log: structlog.BoundLogger, activity: Callable[[], int]
    ) -> None:
        """`activity` returns a number that changes with every callback of the worker."""
        self.gateway = gateway
        self._activity = activity
        self._inbox = inbox
        self._log = log
        self._group = GroupCommit(self._put, self._on_late)
        self._in_use: RecorderInbox | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._fresh = False
        """Whether a transaction was recorded that may not be on the disk yet."""
        self._jobs: deque[Callable[[], object]] = deque()
        self._broken_since: float | None = None
        self._breaks = 0
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._ends = False
        self._missed = 0

    def start(self) -> None:
        """Start the background thread; it first checks that the journal can be written."""
        self._thread.start()

    def record(self, transaction: Transaction) -> None:
        """Record a transaction. Raises JournalError: at once where the last write failed, after WAIT at most."""
        try:
            self._submit(transaction)
        except JournalError:
            with self._lock:
                self._missed += 1
            raise
        self._fresh = True
        if not self._wake.is_set():  # wake the background thread once only: it competes with this one for the GIL
            self._wake.set()

    def _submit(self, transaction: Transaction) -> None:
        if self._broken_since is not None:
            raise JournalError(NOT_TRIED)
        breaks = self._breaks
        try:
            self._group.submit(transaction, WAIT)
        except TimeoutError:  # the disk blocks the thread that inserts
            late = JournalError(TOO_LATE)
            raise self._broke(late) if breaks == self._breaks else late from None

    def _put(self, transactions: Sequence[Transaction]) -> None:
        """Insert the waiting transactions. One thread at a time: no more than one waits for a broken journal."""
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

    def _on_late(self, transaction: Transaction) -> None:
        if transaction.treatment in DELIVERED_TREATMENTS:
            self.mark_not_queued(transaction, "the journal took too long: answered with a temporary failure")

    def mark_not_queued(self, transaction: Transaction, why: str) -> None:
        """Record, in the background, that Postfix does not have a message. Returns at once."""
        self._do(lambda: self._inbox.mark_not_queued(transaction, why))

    def use(self, inbox: RecorderInbox, gateway: str) -> None:
        """Record in another journal from now on: the configuration was reloaded."""
        before, self._inbox, self.gateway = self._inbox, inbox, gateway

        def change() -> None:
            deadline = time.monotonic() + WAIT
            while self._in_use is before and time.monotonic() < deadline:
                time.sleep(TICK)  # an insert under way still goes into the old journal
            before.close()
            self._probe()

        self._do(change)

    def stop(self, within: float) -> None:
        """End the background thread, once all that was recorded is on the disk or `within` seconds have passed."""
        self._ends = True
        self._wake.set()
        self._thread.join(within)

    def _do(self, job: Callable[[], object]) -> None:
        self._jobs.append(job)
        self._wake.set()

    def _work(self) -> None:
        self._probe()
        quiet_at, activity = 0.0, self._activity()  # file at once: a killed worker may have left transactions
        while not (self._ends and (self._broken_since is not None or not (self._fresh or self._jobs))):
            if self._broken_since is not None:
                time.sleep(PROBE_EVERY)
                self._do_jobs()
                self._probe()
                continue
            if self._fresh:
                self._fresh = False  # before sync: a record that comes during it is synced in the next round
                self._try(self._inbox.sync)  # takes as long as the disk does
                quiet_at = time.monotonic() + QUIET
            self._do_jobs()
            if activity != (now := self._activity()):
                activity, quiet_at = now, time.monotonic() + QUIET
            elif time.monotonic() >= quiet_at and not self._file():
                self._idle()
            time.sleep(TICK)

    def _idle(self) -> None:
        """Wait for work. `record` sets `_fresh` before it reads `_wake`: no record is missed."""
        self._wake.clear()
        if not self._fresh and not self._jobs and not self._ends and self._broken_since is None:
            self._wake.wait()

    def _do_jobs(self) -> None:
        while self._jobs:
            self._try(self._jobs.popleft())

    def _file(self) -> bool:
        """File until a callback comes; False when the inbox is empty."""
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
        except Exception as error:  # noqa: BLE001 - the thread must go on
            self._broke(error)
            return False
        return True

    def _broke(self, error: E) -> E:
        """Mark the journal as broken, and log that once. Returns the error."""
        with self._lock:
            begins, self._broken_since = self._broken_since is None, self._broken_since or time.monotonic()
            self._breaks += begins
        if begins:
            self._wake.set()
            self._log.error("journal_failed", reason=str(error) or type(error).__name__)
        return error
