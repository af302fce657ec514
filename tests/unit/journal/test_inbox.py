"""The inbox: transactions wait there until they are filed; in SQLite and in PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from support.factories import transaction
from support.journals import MakeJournal
from undisclosed.addresses import addresses
from undisclosed.incidents.records import (
    State,
)
from undisclosed.journal.journal import Journal


def test_a_reader_files_the_transactions_in_the_inbox(make_journal: MakeJournal) -> None:
    """So are transactions of a milter that was killed after it had put them; once, with several readers at a time."""
    make_journal().inbox.put([transaction()])
    readers = [make_journal() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda reader: reader.incidents.matching("K7QF")[0], readers))
    assert [len(incident.copies) for incident in found] == [1] * 4
    [event] = readers[0].incidents.events(found[0].id)
    assert (event.actor, event.what) == ("milter", "recorded")
    assert readers[0].inbox.file() == 0


@pytest.mark.parametrize("form", ["hashed", "plain", "none"])
def test_a_filed_transaction_equals_one_that_was_recorded_at_once(make_journal: MakeJournal, form: str) -> None:
    """In every field; addresses in the form that the setting says."""
    journal = make_journal(addresses=form)
    put_down = transaction(visible=tuple(addresses("ann@home.example, bob@home.example")))
    journal.filing.record(put_down)
    other = replace(put_down, reference="ZZZZ-ZZZZ", identity="another", queue_id="4dX2")
    journal.inbox.put([other])
    [second, first] = [journal.incidents.matching("ZZZZ")[0], journal.incidents.matching("K7QF")[0]]
    own: dict[str, Any] = {"id": 0, "reference": "", "identity": "", "copies": ()}
    assert replace(second, **own) == replace(first, **own)
    own = {"id": 0, "incident_id": 0, "queue_id": ""}
    assert replace(second.copies[0], **own) == replace(first.copies[0], **own)
    assert journal.incidents.exposed(second.id) == journal.incidents.exposed(first.id)
    [recorded, filed] = [journal.incidents.events(incident.id)[0] for incident in (first, second)]
    assert {**filed.detail, "queue_id": ""} == {**recorded.detail, "queue_id": ""}


@pytest.mark.parametrize(("treatment", "state"), [("rewrite", State.NEVER_QUEUED), ("hold", State.NEVER_QUEUED)])
def test_a_message_that_postfix_did_not_get_is_marked(journal: Journal, treatment: str, state: State) -> None:
    """The record stays, with that state; another message with the same queue id is not changed."""
    one = transaction(treatment=treatment)
    journal.inbox.put([one])
    other = journal.filing.record(
        transaction(treatment=treatment, message_id="<other@council.test>", reference="ZZZZ-ZZZZ")
    )
    assert journal.inbox.mark_not_queued(one, "answered with a temporary failure")
    assert journal.incidents.matching("K7QF")[0].state is state
    assert journal.incidents.matching("ZZZZ")[0].copies[0].state is other.state
    assert not journal.inbox.mark_not_queued(one, "twice")
