"""A wait ends at a change of the journal; in SQLite and in PostgreSQL."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.factories import transaction
from support.journals import MakeJournal
from undisclosed.journal import changes


def test_wait_ends_at_a_request(make_journal: MakeJournal) -> None:
    """A request by another process ends the wait at once; without one it lasts its whole time."""
    journal, other = make_journal(), make_journal()
    copy = journal.filing.record(transaction())
    assert journal.wait(30)  # the first one returns at once
    began = time.monotonic()
    assert not journal.wait(0.3)
    assert time.monotonic() - began >= 0.3
    with ThreadPoolExecutor() as pool:
        news = pool.submit(journal.wait, 30)
        other.held.ask([copy.id], verb="delete", mode=None, actor="ann", reason="")
        assert news.result(10)
    assert not journal.wait(0)


def test_a_change_between_two_waits_is_not_missed(make_journal: MakeJournal) -> None:
    """A message recorded while the steward makes its round, or at the last moment of a wait, makes another round."""
    journal, other = make_journal(), make_journal()
    journal.wait(30)
    other.filing.record(transaction())
    assert journal.wait(10)


def test_a_change_during_the_query_of_a_wait_is_not_missed(
    make_journal: MakeJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In PostgreSQL its notification arrives with the answer to the query; psycopg dropped it before 3.2.4."""
    monkeypatch.setattr(changes, "PING_INTERVAL", 0.0)
    journal, other = make_journal(), make_journal()
    journal.wait(30)
    other.filing.record(transaction())
    assert journal.wait(0)
