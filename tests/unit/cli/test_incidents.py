"""`undisclosed incidents`: readable, complete for programs, and safe with any text of a sender."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from support.factories import transaction
from undisclosed.cli.incidents import Form, show_list, show_one
from undisclosed.cli.output import Output, printable
from undisclosed.cli.selection import Filter, find
from undisclosed.incidents.records import State, parts_for
from undisclosed.journal.journal import Journal

HOSTILE = "=cmd|' /C calc'!A0\n\x1b[2J\x1b]8;;https://x.example\x07\u202egnirts"


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_nothing_a_sender_wrote_reaches_the_terminal_raw(journal: Journal, form: Form) -> None:
    """No control character, no turned direction, no line end, in any form."""
    journal.filing.record(
        transaction(subject=HOSTILE, sender=HOSTILE, message_id=HOSTILE, queue_id=HOSTILE, client=HOSTILE)
    )
    out = io.StringIO()
    output = Output(out, io.StringIO(), json=form == "json")
    show_list(journal, Filter(), form, output)
    show_one(journal, find(journal, "K7QF", output), output)
    text = out.getvalue().replace("\r\n", "\n")
    assert all(char.isprintable() or char in "\n\t" for char in text)
    if form == "csv":
        [_, row] = list(csv.reader(io.StringIO(out.getvalue())))[:2]
        assert row[5] == row[-1] == row[-2] == "'" + printable(HOSTILE)


def test_json_has_everything(journal: Journal) -> None:
    """One object a line; times in ISO 8601, the copies and the events within."""
    copy = journal.filing.record(transaction())
    out = io.StringIO()
    show_one(journal, find(journal, "k7", Output(out, out)), Output(out, out, json=True))
    content = json.loads(out.getvalue())
    assert (content["reference"], content["state"], content["action"]) == ("K7QF-3M2D", "pending", "quarantine")
    assert content["at"] == "2026-03-01T12:00:00+00:00"
    assert content["copies"][0]["queue_id"] == copy.queue_id
    assert content["events"][0]["what"] == "recorded"


def test_each_event_names_its_copy(journal: Journal) -> None:
    """By the queue id, so that the events of several copies can be told apart."""
    journal.filing.record(transaction(queue_id="4dX1c23kLmz9Q"))
    journal.filing.record(transaction(queue_id="4dX1c23kLmz9R"))
    out = io.StringIO()
    show_one(journal, find(journal, "k7", Output(out, out)), Output(out, out))
    events = [line.split("\t") for line in out.getvalue().partition("Events\n")[2].splitlines()]
    assert events[0] == ["when", "queue id", "who", "what", "why"]
    assert [event[1:4] for event in events[1:]] == [
        ["4dX1c23kLmz9Q", "milter", "recorded"],
        ["4dX1c23kLmz9R", "milter", "recorded"],
    ]


def test_a_repeat_is_named_by_the_time_of_the_first(journal: Journal) -> None:
    """A client that lost the answer sent it again: its recipients are not counted twice (hostile review, 3)."""
    at = datetime.now(UTC) - timedelta(minutes=10)
    first = journal.filing.record(transaction(at=at))
    journal.filing.record(transaction(queue_id="4dX1c23kLmz9R", at=at + timedelta(minutes=1)))
    [incident] = journal.incidents.matching("K7QF")
    copies = tuple(replace(copy, repeat_of=first.id if copy.id != first.id else None) for copy in incident.copies)
    out = io.StringIO()
    show_one(journal, replace(incident, copies=copies), Output(out, out))
    heading, *rows = [line.split("\t") for line in out.getvalue().partition("Copies\n")[2].splitlines()[:3]]
    assert [row[heading.index("repeats")] for row in rows] == ["", f"repeat of {at.astimezone():%H:%M}"]


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_every_form_says_who_saw_the_list(journal: Journal, form: Form) -> None:
    """As a number; and CSV and JSON who ended it, and when, in UTC with seconds (users' walk, 7, 29)."""
    copy = journal.filing.record(transaction(recipients=15))
    journal.held.set_state(copy.id, State.HELD)
    journal.held.record_accepted(copy.id, parts_for("unchanged", range(15), 15))
    journal.held.set_state(copy.id, State.RELEASED, actor="alice", why="as unchanged: asked by phone")
    out = io.StringIO()
    show_list(journal, Filter(), form, Output(out, out, json=form == "json"))
    row: dict[str, str]
    if form == "json":
        row = json.loads(out.getvalue())
        assert datetime.fromisoformat(row["ended_at"]).utcoffset() == timedelta()
    else:
        [row] = csv.DictReader(io.StringIO(out.getvalue()), dialect="excel-tab" if form == "table" else "excel")
    assert str(row["shown"]) == "15"
    if form != "table":
        assert (row["shown_words"], row["ended_by"]) == ("shown to its 15 recipients", "alice")
    if form == "csv":
        assert (row["at_utc"], row["named"], row["message_id"]) == ("2026-03-01 12:00:00", "1", "<1@council.test>")
        assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", row["ended_at_utc"])


@pytest.mark.parametrize(
    ("state", "expected"),
    [(State.EXPIRED, "steward"), (State.DELETED_BY_HAND, "hand"), (State.RELEASED_BY_HAND, "hand"), (State.GONE, "")],
)
def test_the_steward_did_not_do_what_it_only_recorded(journal: Journal, state: State, expected: str) -> None:
    """Acts past the steward are by hand, or nobody knows."""
    copy = journal.filing.record(transaction())
    journal.held.set_state(copy.id, State.HELD)
    journal.held.set_state(copy.id, state)
    out = io.StringIO()
    show_list(journal, Filter(), "csv", Output(out, out))
    [row] = csv.DictReader(io.StringIO(out.getvalue()))
    assert (row["ended_by"], row["ended_at_utc"] != "") == (expected, True)


def test_a_list_says_when_there_is_more(journal: Journal) -> None:
    """On standard error, so that it is no row; an empty list says so."""
    out, err = io.StringIO(), io.StringIO()
    show_list(journal, Filter(), "table", Output(out, err))
    assert out.getvalue() == "no incidents\n"
    for number in range(3):
        journal.filing.record(transaction(message_id=f"<{number}@x>", reference=f"2222-222{number + 2}"))
    show_list(journal, Filter(limit=2), "table", Output(out, err))
    assert err.getvalue() == "The newest 2 are shown; --limit 0 shows all.\n"
    assert "2222-2224" in out.getvalue()
    assert "2222-2222" not in out.getvalue()


def test_an_event_says_which_notice_went_to_whom(journal: Journal) -> None:
    """A data protection officer asks when the sender was told, and of what; "notice sent" alone answers neither."""
    journal.filing.record(transaction(action="quarantine"))
    [first, *_] = journal.notices.due(datetime.now(UTC) + timedelta(days=1))
    journal.notices.mark_sent([first.id], "sender", "1", datetime.now(UTC))
    [incident] = journal.incidents.matching("K7QF")
    out = io.StringIO()
    show_one(journal, incident, Output(out, out))
    assert f"\tnotice sent: {first.kind}, to the sender\t" in out.getvalue()
