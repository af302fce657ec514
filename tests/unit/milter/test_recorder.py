"""Recording from callbacks: a slow or broken journal delays one message for a moment, and is tried again by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from lab.waiting import until
from support.factories import transaction
from undisclosed import log
from undisclosed.incidents.records import JournalError, State, Transaction
from undisclosed.journal.journal import Journal
from undisclosed.milter.recorder import WAIT, Recorder

Lines = list[MutableMapping[str, Any]]


class Breakable:
    """A real inbox that can be made to hang, as on a disk that hangs, or to fail."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.goes = threading.Event()
        self.goes.set()
        self.fails = False
        self.puts = 0
        """The number of inserts begun."""

    def _pass(self) -> None:
        self.goes.wait()
        if self.fails:
            raise JournalError("the disk is on fire")

    def put(self, transactions: Sequence[Transaction]) -> None:
        """Insert, when it may."""
        self.puts += 1
        self._pass()
        self._journal.inbox.put(transactions)

    def file(self, limit: int) -> int:
        """File, when it may."""
        self._pass()
        return self._journal.inbox.file(limit)

    def mark_not_queued(self, transaction: Transaction, why: str) -> bool:
        """Change it, when it may."""
        self._pass()
        return self._journal.inbox.mark_not_queued(transaction, why)

    def sync(self) -> None:
        """Wait for the disk, when it may."""
        self._pass()
        self._journal.inbox.sync()

    def probe(self) -> None:
        """Write, when it may."""
        self._pass()
        self._journal.inbox.probe()

    def close(self) -> None:
        """The fixture closes the journal."""


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The logged events."""
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def inbox(journal: Journal) -> Breakable:
    """The inbox of a journal in either database."""
    return Breakable(journal)


@pytest.fixture
def recorder(inbox: Breakable, lines: Lines) -> Iterator[Recorder]:
    """A running recorder."""
    made = Recorder(inbox, "mx1", log.get(), lambda: 0)
    made.start()
    yield made
    made.stop(10)


def test_recorded_transactions_are_read_back(recorder: Recorder, journal: Journal, lines: Lines) -> None:
    """From many threads at the same time."""
    with ThreadPoolExecutor(4) as pool:
        ones = [transaction(queue_id=f"4dX{number}", message_id=None) for number in range(20)]
        list(pool.map(recorder.record, ones))
    found = [copy.queue_id for incident in journal.incidents.search() for copy in incident.copies]
    assert sorted(found) == sorted(one.queue_id for one in ones)
    assert lines == []


def test_after_a_failure_records_fail_at_once_until_writing_works(
    recorder: Recorder, inbox: Breakable, journal: Journal, lines: Lines
) -> None:
    """The log has one line at its begin, and one at its end."""
    inbox.fails = True
    for _ in range(3):
        with pytest.raises(JournalError):
            recorder.record(transaction())
    assert [line["event"] for line in lines] == ["journal_failed"]
    assert lines[0]["reason"] == "the disk is on fire"
    inbox.fails = False
    until(lambda: len(lines) == 2, what="the journal to work again")
    assert (lines[1]["event"], lines[1]["messages_not_recorded"]) == ("journal_works_again", 3)
    recorder.record(transaction())
    assert len(journal.incidents.search()) == 1


@pytest.mark.parametrize(("treatment", "state"), [("rewrite", State.NEVER_QUEUED), ("reject", State.REJECTED)])
def test_a_callback_waits_for_a_moment_only(
    recorder: Recorder, inbox: Breakable, journal: Journal, lines: Lines, treatment: str, state: State
) -> None:
    """The first record hangs with the disk, later ones do not wait; a record that succeeds too late is corrected."""
    inbox.goes.clear()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(recorder.record, transaction(treatment=treatment))
        until(lambda: inbox.puts == 1, what="the first to begin")
        began = time.monotonic()
        try:
            with pytest.raises(JournalError, match="took longer"):
                recorder.record(transaction(treatment=treatment))
            waited = time.monotonic() - began
            with pytest.raises(JournalError, match="not tried"):
                recorder.record(transaction(treatment=treatment))
            assert waited >= WAIT
            assert inbox.puts == 1  # neither was tried beside the one that hangs
        finally:
            inbox.goes.set()
        with pytest.raises(JournalError, match="took longer"):
            hanging.result(timeout=10)
    until(lambda: len(lines) == 2, what="the journal to work again")
    assert lines[1]["messages_not_recorded"] >= 2  # the one that hung may learn later that it was too late

    def states() -> list[State]:
        return [copy.state for incident in journal.incidents.search() for copy in incident.copies]

    until(lambda: states() == [state], what=f"the record to say {state}")


def test_a_recorded_message_can_be_marked_as_not_queued(recorder: Recorder, journal: Journal, lines: Lines) -> None:
    """The answer failed after the record: Postfix does not have the message."""
    one = transaction(treatment="rewrite")
    recorder.record(one)
    recorder.mark_not_queued(one, "answered with a temporary failure")
    until(lambda: journal.incidents.matching("K7QF")[0].state is State.NEVER_QUEUED, what="the record to be put right")
    [incident] = journal.incidents.matching("K7QF")
    assert journal.incidents.events(incident.id)[-1].why == "answered with a temporary failure"
