"""The listing of Postfix's queues: rows with other servers' bytes, and rows that cannot be read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.request_factories import COPY, NOW
from undisclosed.incidents.records import State
from undisclosed.steward.comparison import Comparison, compare
from undisclosed.steward.hold_queue import read_listing, without_rest

BEFORE = NOW - timedelta(minutes=1)

ARRIVED = int(datetime(2026, 3, 1, 11, tzinfo=UTC).timestamp())


def row(queue_name: str = "hold", queue_id: str = COPY.queue_id, reason: bytes = b"") -> bytes:
    """A line of `postqueue -j`. Postfix passes the reply of another server on as it came."""
    recipient = b'{"address": "a@family.test"' + (b', "delay_reason": "' + reason + b'"' if reason else b"") + b"}"
    return (
        (
            f'{{"queue_name": "{queue_name}", "queue_id": "{queue_id}", "arrival_time": {ARRIVED}, '
            '"message_size": 1000, "forced_expire": false, "sender": "clerk@council.test", "recipients": ['
        ).encode()
        + recipient
        + b"]}\n"
    )


CUT_SEQUENCE = b"host mx.family.test said: 451 4.2.0 bo\xe2\x82 voll"
"""A reply that was cut within a character, as `postqueue -j` of Postfix 3.7 prints it."""


def test_a_reply_with_bytes_that_are_no_utf_8() -> None:
    """Its message is listed, and the others too: the steward ended at such a row, restarts included."""
    listing = read_listing([row(), row("deferred", "4jXkbq5QPvzJ9sq", CUT_SEQUENCE)])
    assert list(listing.held) == [COPY.queue_id]
    assert listing.elsewhere == {"4jXkbq5QPvzJ9sq"}
    assert not listing.unreadable


@given(st.binary(max_size=40).filter(lambda text: not set(text) & set(b'"\\\n')))
def test_any_bytes_of_another_server(reason: bytes) -> None:
    """Postfix escapes quotation marks, backslashes and line ends; whatever else comes, no row is lost."""
    listing = read_listing([row("deferred", "4jXkbq5QPvzJ9sq", reason), row()])
    assert list(listing.held) == [COPY.queue_id]
    assert listing.elsewhere == {"4jXkbq5QPvzJ9sq"}


@pytest.mark.parametrize(
    "line",
    [
        row()[:-20] + b"\n",
        row().replace(b"1000", b'"many"'),
        row().replace(str(ARRIVED).encode(), b"9" * 30),
        row().replace(b'"clerk@council.test"', b"null"),
        row().replace(b'"sender"', b'"from"'),
        row().replace(b'"recipients": [', b'"recipients": ' + b"[" * 100_000),
    ],
    ids=["cut off", "a size in words", "a time out of range", "no sender", "another key", "nested too deeply"],
)
def test_a_row_that_cannot_be_read(line: bytes) -> None:
    """Its message is neither held nor gone, however often it is listed so; the others are as ever."""
    other = replace(COPY, id=2, queue_id="4jXkbq5QPvzJ9sq")
    listing = read_listing([line])
    assert [row.queue_id for row in listing.unreadable] == [COPY.queue_id]
    for pending in (COPY, replace(COPY, state=State.PENDING)):
        comparison = compare(
            listing, [pending, other], {}, now=NOW, missing_since={1: BEFORE, 2: BEFORE}, never_listed={}
        )
        assert [(change.copy.id, change.state) for change in comparison.changes] == [(2, State.GONE)]
        assert comparison == Comparison(comparison.changes, (), {}, comparison.never_listed)
        assert not any(comparison.never_listed.values())


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"postqueue: warning: something\n", b'{"queue_id": 7}\n'])
def test_a_row_without_a_queue_id(line: bytes) -> None:
    """It may be about any message, so that none is gone. One that is listed on hold is held."""
    listing = read_listing([line, row(queue_id="4jXkbq5QPvzJ9sq")])
    held = replace(COPY, id=2, queue_id="4jXkbq5QPvzJ9sq", state=State.PENDING, size=None)
    comparison = compare(
        listing, [COPY, held], {}, now=NOW + timedelta(days=1), missing_since={1: BEFORE, 2: BEFORE}, never_listed={}
    )
    assert [(change.copy.id, change.state) for change in comparison.changes] == [(2, State.HELD)]
    assert comparison == Comparison(comparison.changes, (), {}, {})


def test_rows_are_as_postqueue_prints_them() -> None:
    """The row of these tests is a JSON object with the keys that postqueue(1) names."""
    assert json.loads(row())["recipients"] == [{"address": "a@family.test"}]


@pytest.mark.parametrize(("size", "lines"), [(0, 0), (1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (1000, 3)])
def test_the_beginning_of_a_text(size: int, lines: int) -> None:
    """Whole lines, as many as `size` bytes need, of each message anew; every other record stays."""
    text = [b"regular_text: 123456789\n", b"regular_text: abcdefghi\n", b"unterminated_text: 12345\n"]
    before = [b"*** ENVELOPE RECORDS hold/1 ***\n", b"sender: a@b.test\n", b"*** MESSAGE CONTENTS hold/1 ***\n"]
    after = [b"padding: 0\n", b"*** HEADER EXTRACTED hold/1 ***\n", b"*** MESSAGE FILE END hold/1 ***\n"]
    kept = list(without_rest([*before, *text, *after] * 2, size))
    assert kept == [*before, *text[:lines], *after] * 2
