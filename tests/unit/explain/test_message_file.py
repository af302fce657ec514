"""Saved messages: read by the rules of Postfix, and refused in plain words if they are no messages."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.queue_files import QueueFile, attribute, recipient
from undisclosed.decision.message import Client
from undisclosed.explain.message_file import (
    FIELD_LIMIT,
    PIECE,
    Envelope,
    SavedMessage,
    SavedMessageError,
    content,
    read,
)

Fields = list[tuple[str, str]]

AS_POSTFIX_3_7_HANDS_THEM_OVER: dict[str, tuple[bytes, Fields, bytes]] = {
    "folds and blanks": (
        b"From: a@council.test\nTo: b@x.test,\n\tc@y.test\nSubject:  2\nX-Tab:\ttab\nX-Empty:\nX-Fold:\n f\n\none\n\n",
        [
            ("From", "a@council.test"),
            ("To", "b@x.test,\n\tc@y.test"),
            ("Subject", " 2"),
            ("X-Tab", "\ttab"),
            ("X-Empty", ""),
            ("X-Fold", "\n f"),
        ],
        b"one\r\n\r\n",
    ),
    "lines of a mailbox file": (
        b"From b@x Mon Jan  1 00:00:00 2024\n>From c\nFrom: a@council.test\n\nbody\n",
        [
            ("X-Mailbox-Line", "From b@x Mon Jan  1 00:00:00 2024"),
            ("X-Mailbox-Line", ">From c"),
            ("From", "a@council.test"),
        ],
        b"body\r\n",
    ),
    "a From with a blank before its colon, at the top": (
        b"From : a@council.test\nTo\t: b@x.test\nto: c@x.test\n\nbody\n",
        [("X-Mailbox-Line", "From : a@council.test"), ("To", "b@x.test"), ("to", "c@x.test")],
        b"body\r\n",
    ),
    "a line that is no field": (
        b"From: a@council.test\nThis is no header\nTo: b@x.test\n\nbody\n",
        [("From", "a@council.test")],
        b"This is no header\r\nTo: b@x.test\r\n\r\nbody\r\n",
    ),
    "a quoted From line further down": (
        b"From: a@council.test\n>From x: y\nTo: b@x.test\n\nb\n",
        [("From", "a@council.test")],
        b">From x: y\r\nTo: b@x.test\r\n\r\nb\r\n",
    ),
    "a name with 8-bit bytes": (
        b"From: a@council.test\nT\xc3\xa9: x\nTo: b@x.test\n\nbody\n",
        [("From", "a@council.test")],
        b"T\xc3\xa9: x\r\nTo: b@x.test\r\n\r\nbody\r\n",
    ),
    "a name with a control character": (
        b"From: a@council.test\nX\x01Y: z\nTo: b@x.test\n\nb\n",
        [("From", "a@council.test")],
        b"X\x01Y: z\r\nTo: b@x.test\r\n\r\nb\r\n",
    ),
    "a name of two words": (
        b"From: a@council.test\nX Y: z\nTo: b@x.test\n\nb\n",
        [("From", "a@council.test")],
        b"X Y: z\r\nTo: b@x.test\r\n\r\nb\r\n",
    ),
    "no name": (
        b"From: a@council.test\n: x\nTo: b@x.test\n\nb\n",
        [("From", "a@council.test")],
        b": x\r\nTo: b@x.test\r\n\r\nb\r\n",
    ),
    "8-bit values": (
        b"From: a@council.test\nTo: Ll\xc5\xb7n <b@x.test>, L\xe9 <c@x.test>\n\nbody\n",
        [("From", "a@council.test"), ("To", "Llŷn <b@x.test>, L\udce9 <c@x.test>")],
        b"body\r\n",
    ),
    "a NUL in a value": (
        b"From: a@council.test\nTo: b@x.test\0, c@x.test\n d@x.test\nCc: e@x.test\n\nbo\0dy\n",
        [("From", "a@council.test"), ("To", "b@x.test\n d@x.test"), ("Cc", "e@x.test")],
        b"bo\0dy\r\n",
    ),
    "a lone carriage return": (
        b"From: a@council.test\nTo: b@x.test\r, c@x.test\n\nbody\n",
        [("From", "a@council.test"), ("To", "b@x.test , c@x.test")],
        b"body\r\n",
    ),
    "a line of blanks": (
        b"From: a@council.test\nTo: b@x.test\n  \nCc: c@x.test\n\nbody\n",
        [("From", "a@council.test"), ("To", "b@x.test\n  "), ("Cc", "c@x.test")],
        b"body\r\n",
    ),
    "fields that no milter sees": (
        b"Return-Path: <r@council.test>\nBCC : h@x.test\nContent-Length: 5\nResent-Bcc: i@x.test\nX-Bcc: q\n\nb\n",
        [("X-Bcc", "q")],
        b"b\r\n",
    ),
    "no body": (b"From: a@council.test\nTo: b@x.test", [("From", "a@council.test"), ("To", "b@x.test")], b""),
}
"""Messages as sent, and the header fields and body that a milter got from Postfix 3.7.11 for them."""


def saved_file(directory: Path, raw: bytes) -> str:
    """A file with these bytes in it."""
    path = directory / "message.eml"
    path.write_bytes(raw)
    return str(path)


@pytest.mark.parametrize("name", AS_POSTFIX_3_7_HANDS_THEM_OVER)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_fields_are_those_that_a_milter_gets(name: str, line_end: bytes) -> None:
    """Header and body end as in Postfix, and the values are those of the milter's events, byte by byte."""
    raw, fields, body = AS_POSTFIX_3_7_HANDS_THEM_OVER[name]
    saved = read("m.eml", raw.replace(b"\n", line_end))
    assert [tuple(field) for field in saved.message.fields] == fields
    assert as_handed_over(saved) == body


def test_a_field_is_cut_where_postfix_cuts_it() -> None:
    """The rest of a field beyond 60,000 bytes is not sent and not counted, and a remark says so."""
    saved = read("m.eml", b"Subject: " + b"w" * 70_000 + b"\nTo: b@x.test\n\n")
    subject, to = saved.message.fields
    assert len("Subject: ") + len(subject.value) == FIELD_LIMIT
    assert to.value == "b@x.test"
    assert saved.remarks == ("Subject is cut off after 60000 bytes, as Postfix does it",)


def test_bcc_is_left_out_and_told() -> None:
    """A copy from a Sent folder has Bcc, which no recipient saw: counting it would blame careful senders."""
    saved = read("m.eml", b"From: a@council.test\nBcc: b@x.test\n\nb\n")
    assert not saved.message.values("bcc")
    assert saved.message.recipients == ("b@x.test",)
    assert saved.remarks == ("Bcc is left out, as Postfix does it (message_drop_headers): no recipient sees it",)


def test_the_line_that_ends_the_header_is_told() -> None:
    """A stray line makes Postfix take all later fields for the body; this is hard to see in the file."""
    remarks = read("m.eml", b"From: a@council.test\nSubject: x\n oops\nhello\nTo: b@x.test\n\n").remarks
    assert remarks == ("line 4 is no header field: Postfix takes it, and all that follows, for the body",)


def test_a_byte_order_mark_is_ignored() -> None:
    """An editor wrote it; it is no part of the message."""
    assert read("m.eml", b"\xef\xbb\xbfTo: b@x.test\n\n").message.values("to") == ["b@x.test"]


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        (
            b"Return-Path: <bounces+1@lists.council.test>\nFrom: Anna <anna@council.test>",
            "bounces+1@lists.council.test",
        ),
        (b"Return-Path: <>\nFrom: mailer-daemon@council.test", ""),
        (b"Return-Path: nonsense\nFrom: anna@council.test", "anna@council.test"),
        (b'From: "Anna, of x@y.test" <anna@council.test>, b@council.test', "anna@council.test"),
        (b"Subject: nobody", ""),
    ],
)
def test_the_sender_is_guessed(header: bytes, sender: str) -> None:
    """Without --sender it is taken from Return-Path, or else from From."""
    assert read("m.eml", header + b"\n\n").message.sender == sender


def test_the_recipients_are_guessed() -> None:
    """Without --rcpt they are all addresses in To, Cc and Bcc, once each."""
    raw = b"To: b@x.test, B@X.test\nCc: g: c@y.test;\nBcc: d@z.test\nReply-To: e@z.test\n\n"
    assert read("m.eml", raw).message.recipients == ("b@x.test", "c@y.test", "d@z.test")


def test_a_given_envelope_takes_precedence() -> None:
    """The given envelope replaces every guess, also with the null sender or without a login."""
    raw = b"Return-Path: <r@council.test>\nTo: b@x.test\n\n"
    asked = read("m.eml", raw, Envelope("", ("z@x.test",), "192.0.2.7", "anna")).message
    assert (asked.sender, asked.recipients) == ("", ("z@x.test",))
    assert asked.client == Client("192.0.2.7", None, "anna")
    assert read("m.eml", raw).message.client == Client("127.0.0.1", None, "")


def as_handed_over(saved: SavedMessage) -> bytes:
    """The body with the line ends that a milter gets."""
    return re.sub(rb"\r?\n", b"\r\n", b"".join(saved.body))


POSTCAT = b"""*** ENVELOPE RECORDS hold/4jXjkv0STKzJDPn ***
message_size:             435             694               2               0             435               0
message_arrival_time: Sun Nov 22 22:03:35 2026
named_attribute: log_ident=4jXjkv0STKzJDPn
sender: clerk@council.test
named_attribute: sasl_username=anna
named_attribute: log_client_address=192.0.2.99
named_attribute: client_address=192.0.2.7
named_attribute: client_port=47040
named_attribute: dsn_orig_rcpt=rfc822;b@x.test
original_recipient: family@x.test
recipient: b@x.test
done_recipient: c@y.test
*** MESSAGE CONTENTS hold/4jXjkv0STKzJDPn ***
Received: from c (localhost [127.0.0.1])
\tby mx.council.test (Postfix) with ESMTP id 4jXjkv0STKzJDPn;
\tSun, 22 Nov 2026 22:03:35 +0000 (UTC)
To: z@z.test

*** HEADER EXTRACTED by hand ***
body
*** HEADER EXTRACTED hold/4jXjkv0STKzJDPn ***
*** MESSAGE FILE END hold/4jXjkv0STKzJDPn ***
"""


def test_a_queue_file_tells_its_envelope() -> None:
    """The output of `postcat -q` has sender, recipients, client and login: nothing is guessed."""
    saved = read("-", POSTCAT)
    assert saved.message.sender == "clerk@council.test"
    assert saved.message.recipients == ("b@x.test", "c@y.test")
    assert saved.message.client == Client("192.0.2.7", 47040, "anna")
    assert saved.message.values("to") == ["z@z.test"]
    assert as_handed_over(saved) == b"*** HEADER EXTRACTED by hand ***\r\nbody\r\n"


def test_a_queue_file_that_was_printed_with_record_types() -> None:
    """The output of `postcat -vq`: no line of the message has its prefix."""
    served = recipient(b"c@y.test", kind="done_recipient")
    client = [attribute("client_address", b"192.0.2.7"), attribute("client_port", b"47040")]
    envelope = [("sender", b"clerk@council.test"), *client, *recipient(b"b@x.test"), *served]
    saved = read("-", QueueFile(envelope, text=[b"To: z@z.test", b"", b"body"]).printed())
    assert saved.message.recipients == ("b@x.test", "c@y.test")
    assert (saved.message.client.address, saved.message.values("to")) == ("192.0.2.7", ["z@z.test"])
    assert as_handed_over(saved) == b"body\r\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"rfc822;b@x.test\n", b"rfc822;b@x.test\nrecipient: z@z.test\n"),
        (b"rfc822;b@x.test\n", b"rfc822;b@x.test\nsender: ceo@council.test\n"),
        (b"rfc822;b@x.test\n", b"rfc822;b@x.test\n*** MESSAGE CONTENTS hold/4jXjkv0STKzJDPn ***\n"),
        (b"rfc822;b@x.test\n", b"rfc822;b@x.test\n*** MESSAGE CONTENTS x ***\n"),
        (b"sender: clerk", b"sender: ceo@council.test\nsender: clerk"),
        (b"log_ident=4jXjkv0STKzJDPn\n", b"log_ident=4jXjkv0STKzJDPn\nnothing that Postfix writes\n"),
    ],
)
def test_a_queue_file_with_a_forged_record_is_not_explained(old: bytes, new: bytes) -> None:
    """The explanation would be about another message. An encoded line end in ORCPT forges records."""
    assert old in POSTCAT
    with pytest.raises(SavedMessageError, match="no output of postcat as Postfix writes it"):
        read("-", POSTCAT.replace(old, new))


def test_a_queue_file_that_was_edited_by_hand_is_explained() -> None:
    """Other addresses, no size record, no blank after `sender:`, no end: the envelope is read all the same."""
    size = POSTCAT[POSTCAT.index(b"message_size") : POSTCAT.index(b"message_arrival_time")]
    edited = POSTCAT.replace(size, b"").replace(b"sender: clerk@council.test", b"sender:")
    edited = edited.replace(b"b@x.test", b"a-much-longer-address@family.example")
    for text in (edited, edited[: edited.index(b"*** HEADER EXTRACTED hold/")]):
        saved = read("-", text).message
        assert (saved.sender, saved.recipients) == ("", ("a-much-longer-address@family.example", "c@y.test"))


def test_a_queue_file_of_mail_through_sendmail() -> None:
    """A queue file without a client came through sendmail(1), which the milter sees as 127.0.0.1, port 0."""
    raw = b"*** ENVELOPE RECORDS q/A ***\nsender: \nrecipient: b@x.test\n*** MESSAGE CONTENTS q/A ***\nTo: b@x.test\n"
    saved = read("-", raw).message
    assert saved.client == Client("127.0.0.1", 0, "")
    assert saved.sender == ""
    assert read("-", raw, Envelope(client="192.0.2.7")).message.client == Client("192.0.2.7", None, "")


def test_a_long_file_is_read_in_pieces(tmp_path: Path) -> None:
    """The header is in the first piece; the others are read with the body."""
    text = b"To: b@x.test\n\n" + b"a line\n" * (PIECE // 5)
    file = saved_file(tmp_path, text)
    first, rest = content(file, io.BytesIO())
    assert len(first) == PIECE
    saved = read(file, first, rest=rest)
    pieces = list(saved.body)
    assert b"".join(pieces) == text.partition(b"\n\n")[2]
    assert max(map(len, pieces)) <= PIECE


def test_a_long_print_of_a_queue_file_is_read_whole(tmp_path: Path) -> None:
    """Its envelope goes on behind the message."""
    text = POSTCAT.replace(b"body\n", b"body\n" * (PIECE // 5))
    assert len(text) > PIECE
    file = saved_file(tmp_path, text)
    first, rest = content(file, io.BytesIO())
    saved = read(file, first, rest=rest)
    assert b"".join(saved.body).endswith(b"by hand ***\n" + b"body\n" * (PIECE // 5))


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "empty"),
        (b"\r\n \n", "empty"),
        (b"\nTo: b@x.test\n\n", "does not begin with a header field"),
        (b" To: b@x.test\n\n", "does not begin with a header field"),
        (b"Dear parents,\n\nsee you on Monday: 9 am.\n", "does not begin with a header field"),
        (b"\x7fELF\x02\x01\x01\0\0\n", "does not begin with a header field"),
        (b"From b@x Mon Jan  1 00:00:00 2024\n", "does not begin with a header field"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "in Outlook's own format (.msg)"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (b"\x1f\x8b\x08\0", "compressed with gzip"),
        ("To: b@x.test".encode("utf-16"), "text in UTF-16"),
        (b"*** ENVELOPE RECORDS hold/A ***\nsender: a\n", "does not begin with a header field"),
        (
            b"From a@x Mon Jan  1 10:00:00 2024\nTo: b@x.test\n\n1\n\nFrom a@x Mon Jan  1 10:00:1 2024\nTo: c@x.test\n",
            "a mailbox of several messages",
        ),
    ],
)
def test_other_files_are_refused(raw: bytes, problem: str) -> None:
    """Files that people save in place of a message are refused, with their kind and a fix."""
    with pytest.raises(SavedMessageError) as caught:
        read("m.eml", raw)
    assert caught.value.problem == problem
    assert str(caught.value) == f"m.eml: {problem}; {caught.value.fix}"


def test_one_message_of_a_mailbox_may_quote_a_from_line() -> None:
    """A sentence in the body that begins with From does not begin a second message."""
    raw = b"From a@x Mon Jan  1 10:00:00 2024\nTo: b@x.test\n\none\n\nFrom 10:00 on we are open.\nCome in\n"
    assert as_handed_over(read("m.eml", raw)).endswith(b"Come in\r\n")


def test_files_and_standard_input(tmp_path: Path) -> None:
    """A name is read from the disk, `-` from standard input."""
    assert content(saved_file(tmp_path, b"To: b@x.test\n\n"), io.BytesIO(b"other"))[0] == b"To: b@x.test\n\n"
    assert content("-", io.BytesIO(b"other"))[0] == b"other"
    assert [len(piece) for piece in content("-", io.BytesIO(b"x" * (PIECE + 10)))[1]] == [10]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A directory, a missing file and an impossible name are refused in words."""
    problems = {}
    for name in (str(tmp_path), str(tmp_path / "none.eml"), "a\0b", "x" * 5000):
        with pytest.raises(SavedMessageError) as caught:
            content(name, io.BytesIO())
        problems[name] = caught.value.problem
    directory, missing, nul, long = problems.values()
    assert (directory, missing) == ("a directory", "no such file")
    assert nul.startswith("cannot be read (")
    assert long.startswith("cannot be read (")


PIECES = [b"To: ", b"a@x.test", b"\n", b" ", b"\0", b":", b"From ", b"\r", b"*** ENVELOPE RECORDS ", b"\xff", b"<>"]


@given(st.binary(max_size=2000) | st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join))
def test_any_bytes_are_a_message_or_refused(raw: bytes) -> None:
    """Any content is read as header fields that Postfix could pass on, or refused."""
    with contextlib.suppress(SavedMessageError):
        saved = read("m.eml", raw)
        for name, value in saved.message.fields:
            assert re.fullmatch("[!-9;-~]+", name)
            assert not re.search("[\0\r]|\n(?![ \t])", value)
