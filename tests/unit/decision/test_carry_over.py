"""The decisions of Postfix about a held message that a release would drop."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from undisclosed.decision.carry_over import SEND_AGAIN, needs_listener_filter, why_not_released
from undisclosed.decision.queue_file import QueuedMessage, Recipient

HELD = QueuedMessage(
    "4jXkbq5QPvzJ9sp", datetime(2026, 11, 22, tzinfo=UTC), 1, "clerk@council.test", (Recipient("a@x.example"),), b"\n"
)
SCAN = "scan:[127.0.0.1]:10025"


def test_ordinary_mail_is_released() -> None:
    """Nothing decided beside its recipients; a filter that all mail has meanwhile is no obstacle."""
    for listener_filter in (None, "", SCAN):
        assert why_not_released(HELD, listener_filter) is None
    assert not needs_listener_filter(HELD)


def test_the_filter_of_the_listener_is_carried_over() -> None:
    """With content_filter in main.cf each queue file has it, and smtpd writes it into the released message."""
    filtered = replace(HELD, content_filter=SCAN)
    assert needs_listener_filter(filtered)
    assert why_not_released(filtered, SCAN) is None


@pytest.mark.parametrize("listener_filter", [None, "", "scan:[127.0.0.1]:10026"])
def test_another_filter_is_refused(listener_filter: str | None) -> None:
    """The reason names the filter, and the remedy."""
    why = why_not_released(replace(HELD, content_filter="encrypt:[127.0.0.1]:9"), listener_filter)
    assert why is not None
    assert "encrypt:[127.0.0.1]:9" in why
    assert SEND_AGAIN in why


def test_a_redirection_overrides_the_filter() -> None:
    """As in qmgr_message.c: redirected mail goes through no content_filter."""
    redirected = replace(HELD, content_filter="encrypt:[127.0.0.1]:9", redirect_to="catchall@council.test")
    assert not needs_listener_filter(redirected)
    assert why_not_released(redirected, "") is None


@pytest.mark.parametrize(
    ("held", "word"),
    [
        (replace(HELD, verp_delimiters="+="), "VERP"),
        (replace(HELD, send_options=0b100000), "REQUIRETLS"),
        (replace(HELD, send_options=0b1000000), "64"),
        (replace(HELD, content_inspector="x:y"), "content_inspector"),
        (replace(HELD, trace_flags=1 << 9), "sendmail -bv"),
        (replace(HELD, trace_flags=1 << 8), "sendmail -bv"),
    ],
)
def test_what_smtp_cannot_carry_is_refused(held: QueuedMessage, word: str) -> None:
    """A redirection does not change that."""
    for message in (held, replace(held, redirect_to="catchall@council.test")):
        why = why_not_released(message, "")
        assert why is not None
        assert word in why
        assert "delete it" in why


def test_what_the_listener_finds_again_is_no_obstacle() -> None:
    """SMTPUTF8, the header field TLS-Required, a report for `sendmail -v`; VERP of the null sender has no effect."""
    assert why_not_released(replace(HELD, send_options=0b11111, trace_flags=1 << 10), "") is None
    assert why_not_released(replace(HELD, sender="", verp_delimiters="+="), "") is None
