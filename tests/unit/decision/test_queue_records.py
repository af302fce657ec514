"""Records that a sender forges by a line end in an attribute, and the decisions of Postfix in other records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.queue_files import DATE, QUEUE_ID, QueueFile, Stored, attribute, parsed, recipient
from undisclosed.decision.queue_file import QueuedMessage, QueueFileError
from undisclosed.decision.queue_records import RECORDS

PARENTS = [b"parent%d@family%d.example" % (number, number) for number in range(3)]


def envelope(forged: dict[str, bytes] | None = None) -> list[Stored]:
    """The records before a message from a client that logged in, as smtpd writes them. `forged` replaces values."""
    values = {
        "content_filter": b"scan:[127.0.0.1]:10025",
        "log_ident": QUEUE_ID.encode(),
        "rewrite_context": b"local",
        "sasl_method": b"PLAIN",
        "sasl_username": b"clerk",
        "sasl_sender": b"clerk@council.test",
        "envelope_id": b"e1",
        "ret_flags": b"1",
        "sender": b"clerk@council.test",
        "encoding": b"8bit",
        "log_client_name": b"pc7.council.test",
        "client_name": b"pc7.council.test",
        "client_address": b"192.0.2.7",
        "client_port": b"40000",
        "helo_name": b"pc7",
        "protocol_name": b"ESMTP",
        "sender_fullname": b"The Clerk",
        "dsn_orig_rcpt": b"rfc822;parent0@family0.example",
        "original_recipient": PARENTS[0],
        "recipient": PARENTS[0],
        **(forged or {}),
    }
    own = {"content_filter", "sender", "sender_fullname", "original_recipient", "recipient"}
    return [
        *((name, value) if name in own else attribute(name, value) for name, value in values.items()),
        *(stored for parent in PARENTS[1:] for stored in recipient(parent)),
    ]


ATTRIBUTES = [kind if kind != "named_attribute" else value.split(b"=")[0].decode() for kind, value in envelope()][:20]

EXTRACTED: list[Stored] = [attribute("encoding", b"8bit"), *recipient(b"archive@council.test", notify=1)]


def only(printed: bytes) -> QueuedMessage:
    """The one message."""
    [queued] = parsed(printed).values()
    return queued


def test_the_file_without_a_forged_record_is_read() -> None:
    """Otherwise the tests below would prove nothing."""
    queued = only(QueueFile(envelope(), extracted=EXTRACTED).printed())
    assert [person.address.encode() for person in queued.recipients] == [*PARENTS, b"archive@council.test"]
    assert (queued.sender, queued.client.login) == ("clerk@council.test", "clerk")


def test_a_message_forged_in_orcpt_is_refused() -> None:
    """RCPT with ORCPT=rfc822;a+0A… gave a release a header, a body and a recipient of the sender's own."""
    path = f" hold/{QUEUE_ID} ***".encode()
    forged = b"\n".join(
        [
            b"rfc822;a",
            b"recipient: victim@elsewhere.example",
            b"*** MESSAGE CONTENTS" + path,
            b"regular_text: From: CEO <ceo@council.test>",
            b"regular_text: ",
            b"*** HEADER EXTRACTED" + path,
            b"named_attribute: notify_flags=1",
        ]
    )
    with pytest.raises(QueueFileError):
        parsed(QueueFile(envelope({"dsn_orig_rcpt": forged}), extracted=EXTRACTED).printed())


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.parametrize(
    "line", [b"redirect_to: evil@x.test", b"recipient: evil@x.test", b"sender: ceo@council.test", b"padding: 0"]
)
def test_a_line_end_in_any_attribute_is_refused(name: str, line: bytes) -> None:
    """A line of any type after the line end makes the whole file refused."""
    with pytest.raises(QueueFileError):
        parsed(QueueFile(envelope({name: b"a\n" + line}), extracted=EXTRACTED).printed())


PATHS = [f"hold/{QUEUE_ID}", "hold/4jXkb14sMpzJ9XJ"]
MARKS = ["ENVELOPE RECORDS", "MESSAGE CONTENTS", "HEADER EXTRACTED", "MESSAGE FILE END"]
NUMBERS = st.one_of(st.integers(0, 3000), st.just(10**9))

lines = st.one_of(
    st.sampled_from(
        [
            b"recipient: evil@x.test",
            b"done_recipient: evil@x.test",
            b"original_recipient: evil@x.test",
            b"sender: ceo@council.test",
            b"redirect_to: evil@x.test",
            b"content_filter: smtp:[evil.test]",
            b"content_filter: ",
            b"verp_delimiters: +=",
            b"named_attribute: sasl_username=ceo",
            b"named_attribute: dsn_orig_rcpt=rfc822;evil@x.test",
            b"named_attribute: notify_flags=1",
            b"named_attribute: =",
            b"priority: ",
            b"padding: ",
            b"killed_record: ",
            b"regular_text: From: ceo@council.test",
            b"unterminated_text: x",
            b"warning_message_time: " + DATE,
            b"message_arrival_time: " + DATE,
            b"create_time: " + DATE,
            b"",
        ]
    ),
    st.builds(lambda number: b"pointer_record: %15d" % number, NUMBERS),
    st.builds(lambda a, b, c: f"message_size: {a} {b} {c} 0 {a} 0".encode(), NUMBERS, NUMBERS, NUMBERS),
    st.builds(lambda mark, path: f"*** {mark} {path} ***".encode(), st.sampled_from(MARKS), st.sampled_from(PATHS)),
    st.binary(max_size=40),
)
injected = st.builds(
    lambda before, following: b"\n".join([before, *following]),
    st.binary(max_size=150).filter(lambda value: b"\0" not in value),
    st.lists(lines, min_size=1, max_size=8),
)


@given(name=st.sampled_from(ATTRIBUTES), value=injected, digits=st.integers(1, 6), seven=st.booleans())
@example(name="helo_name", value=b"a\npointer_record: 999999\npointer_record: 300", digits=6, seven=False)
def test_no_line_end_before_the_message_is_accepted(name: str, value: bytes, digits: int, seven: bool) -> None:
    """Any text with a line end, in any attribute, is refused: marks, counts, pointers and times included."""
    file = QueueFile(envelope({name: value}), extracted=EXTRACTED, microseconds=b"1" * digits)
    with pytest.raises(QueueFileError):
        parsed(replace(file, before=[("sender_fullname", b"x" * 7)] if seven else []).printed())


def back_to(name: str, forged: Sequence[bytes]) -> bytes:
    """A value that leads with a pointer to the end of the file, on to `forged`, and back to where it really ends."""
    value = b""
    target = 0
    for _ in range(3):  # the number is as wide whatever it is, so that the length no longer changes
        value = b"\n".join([b"a", b"pointer_record: %15d" % 10**9, *forged, b"pointer_record: %15d" % target])
        file = QueueFile(envelope({name: value})).printed()
        data = int(file.split(b"\n")[1].split()[2])
        rest = envelope({name: value})
        position = [kind if kind != "named_attribute" else text.split(b"=")[0].decode() for kind, text in rest].index(
            name
        )
        after = QueueFile(rest[position + 1 :]).printed()
        target = (
            data - (int(after.split(b"\n")[1].split()[2]) - int(QueueFile().printed().split(b"\n")[1].split()[2])) - 2
        )
    return value


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.parametrize(
    "forged",
    [
        [b"content_filter: "],
        [b"named_attribute: sasl_username=ceo"],
        [b"sender: ceo@council.test"],
        [b"recipient: evil@x.test"],
    ],
)
def test_forged_pointers_that_make_the_length_fit_are_refused(name: str, forged: list[bytes]) -> None:
    """A sender who computes every offset of the file still adds no record, replaces none, and changes no recipient."""
    printed = QueueFile(envelope({name: back_to(name, forged)}), extracted=EXTRACTED).printed()
    with pytest.raises(QueueFileError):
        parsed(printed)


@given(position=st.integers(0, len(EXTRACTED) - 1), following=st.lists(lines, min_size=1, max_size=5))
def test_a_line_end_after_the_message_changes_nothing_of_what_is_sent(position: int, following: list[bytes]) -> None:
    """These records come from the configuration, and no size is known of them: content and recipients are as before."""
    honest = only(QueueFile(envelope(), extracted=EXTRACTED).printed())
    kind, value = EXTRACTED[position]
    forged = [*EXTRACTED[:position], (kind, b"\n".join([value, *following])), *EXTRACTED[position + 1 :]]
    file = QueueFile(envelope(), extracted=forged)
    try:
        queued = only(file.printed())
    except QueueFileError:
        return
    assert [person.address for person in queued.recipients] == [person.address for person in honest.recipients]
    assert (queued.sender, queued.client, queued.content) == (honest.sender, honest.client, honest.content)


def test_a_sender_that_a_milter_changed_is_read() -> None:
    """Its record is at the end of the file: a pointer leads there, and another one back."""
    printed = QueueFile(envelope({"sender": b"a" * 15})).printed()
    data = int(printed.split(b"\n")[1].split()[2])
    changed = b"pointer_record: %15d\nsender: new@council.test\npointer_record: %15d\n" % (10**9, 0)
    start = printed.index(b"sender: " + b"a" * 15)
    rest = printed[start:].partition(b"\n")[2]
    behind = QueueFile(envelope()[9:]).printed()
    after = data - (int(behind.split(b"\n")[1].split()[2]) - int(QueueFile().printed().split(b"\n")[1].split()[2])) - 2
    changed = b"pointer_record: %15d\nsender: new@council.test\npointer_record: %15d\n" % (10**9, after)
    assert only(printed[:start] + changed + rest).sender == "new@council.test"


def test_a_recipient_that_a_milter_added_is_read() -> None:
    """Its records are at the end of the file, where the last pointer before the message leads."""
    printed = QueueFile([*envelope(), ("pointer_record", b"%15d" % 10**9)], counted=4).printed()
    data = int(printed.split(b"\n")[1].split()[2])
    added = b"original_recipient: x@y.example\nrecipient: x@y.example\npointer_record: %15d\n" % (data - 2)
    queued = only(printed.replace(b"*** MESSAGE CONTENTS", added + b"*** MESSAGE CONTENTS"))
    assert queued.recipients[-1].address == "x@y.example"


def test_the_last_filter_and_redirection_count() -> None:
    """As qmgr(8) reads them: those of header_checks and access tables come after that of main.cf."""
    decided: list[Stored] = [
        ("content_filter", b"smtp:[127.0.0.1]:10"),
        ("content_filter", b"encrypt:[127.0.0.1]:11"),
        ("redirect_to", b"catchall@council.test"),
    ]
    queued = only(QueueFile([*envelope(), ("verp_delimiters", b"+=")], extracted=decided, options=33).printed())
    assert (queued.content_filter, queued.redirect_to) == ("encrypt:[127.0.0.1]:11", "catchall@council.test")
    assert (queued.verp_delimiters, queued.send_options, queued.smtputf8) == ("+=", 33, True)


@pytest.mark.parametrize("kind", sorted(kind for kind, place in RECORDS.items() if not place.envelope))
def test_records_of_the_other_section_are_refused(kind: str) -> None:
    """REDIRECT, for one, stands after the message only."""
    with pytest.raises(QueueFileError):
        parsed(QueueFile([*envelope(), (kind, b"x@y.example")]).printed())
