"""Released mail that is on hold again: found, and the answer that waits for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from support.factories import policy, transaction
from support.request_factories import REQUEST
from undisclosed.incidents.records import State
from undisclosed.journal.journal import Journal
from undisclosed.steward.context import Context
from undisclosed.steward.put_back import PutBack, Released

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_an_answer_that_could_not_be_recorded_is_not_forgotten(journal: Journal) -> None:
    """The next round finds the copy again: otherwise the request would be taken, without an answer, until a restart."""
    copy = journal.filing.record(transaction(at=NOON))
    journal.held.set_state(copy.id, State.RELEASED)
    journal.filing.record(transaction(at=NOON + timedelta(seconds=3), queue_id="4dX2"))
    context = Context(policy(), b"key", copy.gateway)
    put_back = PutBack(journal)
    incident = journal.incidents.get(copy.incident_id)
    put_back.watch(
        Released(REQUEST, incident, replace(copy, state=State.RELEASED), NOON, "filter", ""), answer_waits=True
    )

    def answer_one() -> None:
        for released, _ in put_back.found(context, NOON):
            assert put_back.waits(released.request.id)
            raise OSError("the journal is locked")

    for _ in range(2):
        with pytest.raises(OSError, match="locked"):
            answer_one()
    [(released, again)] = put_back.found(context, NOON)
    put_back.answered(released.request.id)
    assert again.queue_id == "4dX2"
    assert not put_back.any_waits
    assert list(put_back.found(context, NOON)) == []
