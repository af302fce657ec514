"""`undisclosed incidents`: readable, complete for programs, and harmless whatever a sender wrote."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from support.factories import transaction
from undisclosed.cli.incidents_commands import Filter, moment, show_list, show_one
from undisclosed.cli.output import cell, visible
from undisclosed.incidents.records import State
from undisclosed.journal.journal import Journal

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTILE = "=cmd|' /C calc'!A0\n\x1b[2J\x1b]8;;https://x.example\x07\u202egnirts"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r@x", "\uff1d1"])
def test_no_cell_is_a_formula(text: str) -> None:
    """Blanks before the sign do not help it, nor does its wide form."""
    assert cell(text).startswith("'")


@pytest.mark.parametrize("text", ["School places", "a=b", "mail@council.test", ""])
def test_an_ordinary_cell_stays_as_it_is(text: str) -> None:
    """Only what could be computed gets an apostrophe."""
    assert cell(text) == text


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_nothing_a_sender_wrote_reaches_the_terminal_raw(journal: Journal, form: str) -> None:
    """No control character, no turned direction, no line end, in any form."""
    journal.record(transaction(subject=HOSTILE, sender=HOSTILE, message_id=HOSTILE, queue_id=HOSTILE, client=HOSTILE))
    out = io.StringIO()
    show_list(journal, Filter(), form, out)  # type: ignore[arg-type]
    show_one(journal, "K7QF", form == "json", out)
    text = out.getvalue().replace("\r\n", "\n")
    assert all(char.isprintable() or char == "\n" for char in text)
    if form == "csv":
        [_, row] = list(csv.reader(io.StringIO(out.getvalue())))[:2]
        assert row[5] == row[9] == "'" + visible(HOSTILE)


def test_json_has_everything(journal: Journal) -> None:
    """One object a line; times in ISO 8601, the copies and the events within."""
    copy = journal.record(transaction())
    out = io.StringIO()
    show_one(journal, "k7", True, out)
    content = json.loads(out.getvalue())
    assert (content["reference"], content["state"], content["action"]) == ("K7QF-3M2D", "pending", "quarantine")
    assert content["at"] == "2026-03-01T12:00:00+00:00"
    assert content["copies"][0]["queue_id"] == copy.queue_id
    assert content["events"][0]["what"] == "recorded"


def test_a_table_says_when_there_is_more(journal: Journal) -> None:
    """And when there is nothing."""
    out = io.StringIO()
    show_list(journal, Filter(), "table", out)
    assert out.getvalue() == "no incidents\n"
    for number in range(3):
        journal.record(transaction(message_id=f"<{number}@x>", reference=f"2222-222{number + 2}"))
    show_list(journal, Filter(limit=2), "table", out)
    assert "The newest 2; --limit shows more." in out.getvalue()
    assert "2222-2224" in out.getvalue()
    assert "2222-2222" not in out.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12 h", NOW - timedelta(hours=12)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-02-28T10:00:00+01:00", datetime(2026, 2, 28, 9, 0, tzinfo=UTC)),
    ],
)
def test_a_time_is_read(text: str, expected: datetime) -> None:
    """As an age, or as ISO 8601 has it."""
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "", "7", "7y", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With what could be written."""
    with pytest.raises(ValueError, match='"7d"'):
        moment(text, NOW)


def test_states_are_typed_as_people_do() -> None:
    """With dashes or blanks, in any case; an unknown one is refused with those that there are."""
    wanted = Filter.read(sender=None, rule=None, since=None, states=["Never-Queued", "held"], limit=0)
    assert wanted.states == (State.NEVER_QUEUED, State.HELD)
    assert wanted.limit is None
    with pytest.raises(ValueError, match="released-by-hand"):
        Filter.read(sender=None, rule=None, since=None, states=["lost"], limit=0)
