"""The hash of a held message's text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from undisclosed.decision.queue_file import QueuedMessage, Recipient
from undisclosed.steward.release_parts import HeldMessage
from undisclosed.steward.repeats import text_hash

CONTENT = b"Received: from a\n\tby mx1; Mon, 2 Feb 2026 09:00:00\nTo: ann@home.test\nSubject: x\n\nDear all,\n"
QUEUED = QueuedMessage(
    "4dX1", datetime(2026, 2, 2, 9, tzinfo=UTC), 100, "clerk@council.test",
    (Recipient("ann@home.test"), Recipient("ben@home.test")), CONTENT,
)  # fmt: skip


def hashed(queued: QueuedMessage, key: bytes = b"key") -> str:
    """The hash of a queue file."""
    return text_hash(key, HeldMessage.read(queued))


@pytest.mark.parametrize(
    "other",
    [
        CONTENT.replace(b"mx1; Mon", b"mx2; Tue"),
        b"Received: from b\n" + CONTENT,
        CONTENT.replace(b"Received", b"RECEIVED"),
        CONTENT.partition(b"09:00:00\n")[2],
    ],
)
def test_received_fields_do_not_matter(other: bytes) -> None:
    """Each host, and each transaction, adds its own; nor does the order of the recipients."""
    again = replace(QUEUED, queue_id="4dX2", content=other, recipients=QUEUED.recipients[::-1])
    assert hashed(again) == hashed(QUEUED)


@pytest.mark.parametrize(
    "other",
    [
        replace(QUEUED, content=CONTENT + b"PS\n"),
        replace(QUEUED, content=CONTENT.replace(b"Subject: x", b"Subject: y")),
        replace(QUEUED, content=CONTENT.replace(b"To: ann", b"X-To: ann")),
        replace(QUEUED, recipients=QUEUED.recipients[:1]),
        replace(QUEUED, recipients=(*QUEUED.recipients, Recipient("cat@home.test"))),
    ],
)
def test_all_else_matters(other: QueuedMessage) -> None:
    """A repeat is deleted unsent: it must be the same for the same people."""
    assert hashed(other) != hashed(QUEUED)
    assert hashed(QUEUED, b"other key") != hashed(QUEUED)
