"""The record that a steward works; in SQLite and in PostgreSQL."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import pytest

from support.factories import policy
from support.request_factories import NOW
from undisclosed.journal.journal import Journal
from undisclosed.steward.context import Context
from undisclosed.steward.heartbeat import INTERVAL, Heartbeat

CONTEXT = Context(policy(), b"key", "1f", "mx1")


def seen(journal: Journal) -> datetime | None:
    """The last time at which the steward was seen."""
    [record] = journal.gateways.all().values()
    assert (record.id, record.name) == ("1f", "mx1")
    return record.seen_at


def test_a_round_is_recorded_every_twenty_seconds(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not oftener, since each record is a write to the disk; also after the clock was set back."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    heart = Heartbeat(journal)
    for now, expected in (
        (NOW, NOW),
        (NOW + INTERVAL / 2, NOW),
        (NOW + INTERVAL, NOW + INTERVAL),
        (NOW - timedelta(hours=5), NOW - timedelta(hours=5)),
    ):
        heart.begin(CONTEXT, now)
        assert seen(journal) == expected


def test_a_long_round_is_recorded_too(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release of 500 messages takes minutes: `held list` must not say that the steward is away."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    heart = Heartbeat(journal)
    heart.begin(CONTEXT, NOW)
    for seconds, expected in ((10, 0), (30, 30), (45, 30), (60, 60)):
        clock[0] = 100.0 + seconds
        heart.beat()
        assert seen(journal) == NOW + timedelta(seconds=expected)
