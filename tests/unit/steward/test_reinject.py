"""The SMTP commands and data of a re-injected message."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.decision.queue_file import QueuedMessage, Recipient
from undisclosed.steward.reinject import ReinjectError, Reinjector, data, mail, rcpt


def test_commands_repeat_the_envelope() -> None:
    """MAIL and RCPT have the parameters of the original transaction, in xtext and quoted where needed."""
    held = QueuedMessage(
        queue_id="4jXkbq5QPvzJ9sp",
        arrived=datetime(2026, 11, 22, 22, 42, 31, tzinfo=UTC),
        size=14769,
        sender="clérk@council.test",
        recipients=(
            Recipient("a0@x.example", "rfc822;orig+x@x.example", 10),
            Recipient("quoted local@x.example"),
            Recipient("archive@council.test", None, 1, automatic=True),
        ),
        content=b"",
        smtputf8=True,
        eight_bit=True,
        ret="HDRS",
        envelope_id="abc+def x",
    )
    assert mail(held) == (
        "MAIL FROM:<clérk@council.test> RET=HDRS ENVID=abc+2Bdef+20x BODY=8BITMIME SMTPUTF8\r\n".encode()
    )
    assert [rcpt(recipient) for recipient in held.recipients] == [
        b"RCPT TO:<a0@x.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;orig+2Bx@x.example\r\n",
        b'RCPT TO:<"quoted local"@x.example>\r\n',
        b"RCPT TO:<archive@council.test> NOTIFY=NEVER\r\n",
    ]
    assert rcpt(Recipient("ä@x.example", "utf-8;ä+\\@x.example")) == (
        "RCPT TO:<ä@x.example> ORCPT=utf-8;\\x{E4}\\x{2B}\\x{5C}@x.example\r\n".encode()
    )


def test_no_address_can_add_a_command() -> None:
    """A line end in an address is refused."""
    with pytest.raises(ReinjectError):
        rcpt(Recipient("a@x.example>\r\nRCPT TO:<b@x.example"))


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"a\n.b\n..c\n", b"a\r\n..b\r\n...c\r\n.\r\n"),
        (b".\n", b"..\r\n.\r\n"),
        (b"a\rb\x00\n", b"a\rb\x00\r\n.\r\n"),
        (b"a\n\n", b"a\r\n\r\n.\r\n"),
    ],
)
def test_content_on_the_wire(content: bytes, wire: bytes) -> None:
    """Line ends become CRLF, leading dots are doubled, and every other byte stays."""
    assert b"".join(data([content])) == wire


@given(st.lists(st.lists(st.sampled_from([b"\n", b".", b"\r", b"a", b"\x00"]), max_size=4).map(b"".join), max_size=6))
def test_pieces_do_not_show_on_the_wire(pieces: list[bytes]) -> None:
    """A message in any pieces becomes the same bytes as the whole one (milter-reports, 38: byte for byte)."""
    text = b"\n" + b"".join(pieces).removesuffix(b"\n")
    whole = text.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n").removeprefix(b"\r\n") + b"\r\n.\r\n"
    assert b"".join(data(pieces)) == whole


ANSWERS = {
    "at a recipient": [b"250 ok", b"451 4.3.0 <a@x.example>: Temporary lookup failure"],
    "at the end": [b"250 ok", b"250 ok", b"354 go on", b"554 5.7.1 a@x.example is listed"],
    "in two lines": [b"250 ok", b"250 ok", b"354 go on", b"554-5.7.1 no\r\n554 5.7.1 a@x.example"],
}
"""Answers to MAIL, RCPT, DATA and the final dot."""


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS.keys())
def test_postfixs_answer_is_told_without_addresses(answers: list[bytes]) -> None:
    """It goes into the log and the journal, which have no recipient's address (hostile review, 15)."""
    ours, theirs = socket.socketpair()
    held = QueuedMessage("4jXkbq5QPvzJ9sp", datetime(2026, 11, 22, tzinfo=UTC), 1, "clerk@council.test", (), b"")
    with theirs, Reinjector(lambda: ours) as reinjector:
        theirs.sendall(b"".join(answer + b"\r\n" for answer in [b"220 mx", b"250 mx", *answers]))
        with pytest.raises(ReinjectError, match=r"Postfix said (451 4\.3\.0 …: Temporary|554 5\.7\.1)") as caught:
            reinjector.send(held, [Recipient("a@x.example")], [b"a\n"])
    assert "x.example" not in str(caught.value)
