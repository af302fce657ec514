"""Whether a queued message is the one that the journal recorded."""

from __future__ import annotations

from datetime import timedelta

import pytest

from support.factories import message, transaction
from support.journals import MakeJournal
from undisclosed.decision.queue_file import QueuedMessage
from undisclosed.incidents.records import QueueCopy
from undisclosed.steward.identity import why_other_content
from undisclosed.steward.release_parts import HeldMessage

MESSAGE_IDS = {
    "ASCII": b"<1@council.test>",
    "UTF-8": "<café-€@council.test>".encode(),
    "raw bytes": b"<caf\xe9.1@council.test>",
    "a cut sequence": b"<caf\xe2\x82@council.test>",
    "more than 998 characters": b"<" + b"x" * 1100 + b"@council.test>",
    "more than 998 characters, with raw bytes": b"<" + b"\xe9x" * 600 + b"@council.test>",
}
"""Message-IDs as Postfix hands them over: it changes none of them."""


def recorded(make_journal: MakeJournal, raw: bytes) -> QueueCopy:
    """The journal's copy of a message with this Message-ID, as the milter records it."""
    seen = message(message_id=raw.decode("utf-8", "surrogateescape"))  # as callbacks.py decodes it
    return make_journal().filing.record(transaction(message_id=seen.message_id))


def queued(copy: QueueCopy, raw: bytes) -> QueuedMessage:
    """The queue file of the message."""
    content = b"From: clerk@council.test\nMessage-ID: " + raw + b"\nTo: a@family.test\n\nDear all,\n"
    return QueuedMessage(copy.queue_id, copy.arrived, len(content), "clerk@council.test", (), content)


def why_other(copy: QueueCopy, found: QueuedMessage) -> str | None:
    """Why this file is not the recorded message; None if it is."""
    return why_other_content(copy, found, HeldMessage.read(found).message.message_id)


@pytest.mark.parametrize("raw", MESSAGE_IDS.values(), ids=MESSAGE_IDS.keys())
def test_a_message_is_recognised_by_its_message_id(make_journal: MakeJournal, raw: bytes) -> None:
    """Whatever its bytes: else it could not be released or deleted, and would not expire (modoboa-amavis#109)."""
    copy = recorded(make_journal, raw)
    assert why_other(copy, queued(copy, raw)) is None


@pytest.mark.parametrize("raw", MESSAGE_IDS.values(), ids=MESSAGE_IDS.keys())
def test_another_message_is_recognised_too(make_journal: MakeJournal, raw: bytes) -> None:
    """With another Message-ID, without one, or with another arrival time: its queue id was used again."""
    copy = recorded(make_journal, raw)
    for other in (b"<2@council.test>", b""):
        assert why_other(copy, queued(copy, other)) is not None
    later = QueuedMessage(copy.queue_id, copy.arrived + timedelta(hours=1), 1, "", (), queued(copy, raw).content)
    assert why_other(copy, later) is not None
