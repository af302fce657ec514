"""The check that every test of a rewrite relies on sees what it is there to see."""

from __future__ import annotations

import pytest

from support.delivered_header import leaks

HIDDEN = b"From: ann@post.test\r\nTo: clerk@council.test\r\nReply-To: Ann <ann@post.test>\r\n\r\nTo: b@post.test\r\n"


def test_a_hidden_header_has_nothing_to_be_seen() -> None:
    """From is the author's, Reply-To may name the author too, and the body is not looked at."""
    assert leaks(HIDDEN, author="Ann@post.test") == []


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (HIDDEN, ["reply-to: ann@post.test"]),
        (b"To: a@council.test,\r\n b@post.test\r\n", ["to: b@post.test"]),
        (b"to : b@post.test\n", ["to: b@post.test"]),
        (b'To: "b"@post.test\n', ["to: b@post.test"]),
        (b"To: b @ post.test\n", ["to: b@post.test"]),
        (b"To: b@[192.0.2.1]\n", ["to: b@[192.0.2.1"]),
        (b"To: b@notcouncil.test\n", ["to: b@notcouncil.test"]),
        (b"To: b@council.test.example\n", ["to: b@council.test.example"]),
        (b"To: =?utf-8?b?YkBwb3N0LnRlc3Q=?= <a@council.test>\n", ["to: b@post.test"]),
        (b"To: =?utf-8?q?b=40post=2Etest?= <a@council.test>\n", ["to: b@post.test"]),
        (b"To: \xfc <b@post.test>\n", ["to: b@post.test"]),
        (b"To: a@council.test\nCc: b@post.test\n", ["cc: b@post.test"]),
        (b"To: a@council.test\nResent-To: b@post.test\n", ["resent-to: b@post.test"]),
        (b"To: a@council.test\nTo: b@council.test\n", ["2 To fields"]),
        (b"Cc: a@council.test\n", ["0 To fields"]),
        (b"To: a@council.test\nBcc: b@council.test\n", ["a bcc field"]),
    ],
)
def test_what_can_be_seen_is_found(header: bytes, found: list[str]) -> None:
    """Each way to show an outside address, to show two To fields, or to send a Bcc along."""
    assert leaks(header) == found
