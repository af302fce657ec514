"""The output of postcat, parsed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from support.queue_files import parsed
from undisclosed.decision.message import Client
from undisclosed.decision.queue_file import QueuedMessage, QueueFileError, Recipient, Text, TextInMemory, lines, parse

PRINTED = b"""*** ENVELOPE RECORDS hold/4jXkbq5QPvzJ9sp ***
message_size:           14769             487               4               0           14769               5
message_arrival_time: Sun Nov 22 22:42:31 2026
create_time: Sun Nov 22 22:42:31 2026
named_attribute: log_ident=4jXkbq5QPvzJ9sp
named_attribute: envelope_id=abc+def x
named_attribute: ret_flags=2
sender: cl\xc3\xa9rk@council.test
named_attribute: encoding=8bit
named_attribute: client_address=203.0.113.9
named_attribute: client_port=56158
named_attribute: sasl_username=clerk
named_attribute: notify_flags=10
named_attribute: dsn_orig_rcpt=rfc822;orig+x@x.example
original_recipient: a0@x.example
recipient: a0@x.example
named_attribute: dsn_orig_rcpt=rfc822;gone@x.example
done_recipient: gone@x.example
recipient: quoted local@x.example
pointer_record:               0
*** MESSAGE CONTENTS hold/4jXkbq5QPvzJ9sp ***
regular_text: From: clerk@council.test
pointer_record:           15549
regular_text: To: clerk@council.test
padding:  0
unterminated_text: X-Long: yy
regular_text: yy
pointer_record:               0
regular_text:\x20
regular_text: nul\x00 cr\r caf\xe9
regular_text: *** HEADER EXTRACTED hold/4jXkbq5QPvzJ9sp ***
regular_text: *** MESSAGE FILE END hold/4jXkbq5QPvzJ9sp ***
*** HEADER EXTRACTED hold/4jXkbq5QPvzJ9sp ***
named_attribute: notify_flags=1
original_recipient: archive@council.test
recipient: archive@council.test
pointer_record:               0
*** MESSAGE FILE END hold/4jXkbq5QPvzJ9sp ***
"""


def one() -> QueuedMessage:
    """The message of PRINTED."""
    return parsed(PRINTED)["4jXkbq5QPvzJ9sp"]


def test_envelope_is_read() -> None:
    """Sender, DSN, SMTPUTF8, body type, time, size and client are read from their records."""
    held = one()
    assert (held.sender, held.envelope_id, held.ret) == ("clérk@council.test", "abc+def x", "HDRS")
    assert (held.smtputf8, held.eight_bit, held.size) == (True, True, 14769)
    assert held.arrived == datetime(2026, 11, 22, 22, 42, 31, tzinfo=UTC)
    assert held.client == Client("203.0.113.9", 56158, "clerk")


def test_recipients_keep_what_is_said_of_each() -> None:
    """Attributes belong to the next recipient only; delivered ones are left out; always_bcc is marked."""
    assert one().recipients == (
        Recipient("a0@x.example", "rfc822;orig+x@x.example", 10),
        Recipient("quoted local@x.example"),
        Recipient("archive@council.test", None, 1, automatic=True),
    )


def test_content_is_kept_byte_by_byte() -> None:
    """Long lines are joined, edits followed, and a line that looks like one of postcat's own ends nothing."""
    mark = b"*** HEADER EXTRACTED hold/4jXkbq5QPvzJ9sp ***\n*** MESSAGE FILE END hold/4jXkbq5QPvzJ9sp ***\n"
    header = b"From: clerk@council.test\nTo: clerk@council.test\nX-Long: yyyy\n"
    assert one().content == header + b"\nnul\x00 cr\r caf\xe9\n" + mark


def test_several_files_are_told_apart() -> None:
    """Each queue file has its own envelope and content."""
    both = parsed(PRINTED + PRINTED.replace(b"4jXkbq5QPvzJ9sp", b"4jXkb14sMpzJ9XJ"))
    assert list(both) == ["4jXkbq5QPvzJ9sp", "4jXkb14sMpzJ9XJ"]
    assert len({held.content for held in both.values()}) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"*** MESSAGE FILE END hold/4jXkbq5QPvzJ9sp ***\n", b""),
        (b"padding:  0", b"strange_record: x"),
        (b"sender: ", b"nobody: "),
        (b"*** ENVELOPE RECORDS hold/4jXkbq5QPvzJ9sp ***\n", b""),
        (b"message_size:           14769", b"message_size: many"),
        (b"Sun Nov 22", b"Sol Nov 22"),
        (b"*** MESSAGE CONTENTS hold/4jXkbq5QPvzJ9sp ***\n", b"*** ENVELOPE RECORDS hold/4jXkbq5QPvzJ9sp ***\n"),
        (b"*** MESSAGE CONTENTS hold/4jXkbq5QPvzJ9sp ***\n", b"*** MESSAGE CONTENTS hold/4jXkb14sMpzJ9XJ ***\n"),
        (b"*** HEADER EXTRACTED hold/4jXkbq5QPvzJ9sp ***\nnamed", b"named"),
        (b"4               0           14769", b"3               0           14769"),
        (b"done_recipient: gone@x.example\n", b""),
        (b"message_arrival_time: Sun Nov 22 22:42:31 2026\n", b""),
        (b"*** MESSAGE FILE END hold/4jXkbq5QPvzJ9sp ***\n", b"*** MESSAGE FILE END hold/4jXkbq5QPvzJ9sp ***"),
    ],
)
def test_incomplete_or_unknown_output_is_refused(old: bytes, new: bytes) -> None:
    """An incomplete file, or one with unknown records, is never released."""
    assert old in PRINTED
    with pytest.raises(QueueFileError):
        parsed(PRINTED.replace(old, new))


class OpenTexts:
    """Makes texts, and counts those that are open."""

    def __init__(self) -> None:
        self.made = self.open = 0

    def __call__(self) -> Text:
        self.made += 1
        self.open += 1
        return _Counted(self)


class _Counted(TextInMemory):
    """A text that stays open until it is read or closed."""

    def __init__(self, texts: OpenTexts) -> None:
        super().__init__()
        self._texts = texts

    def content(self) -> bytes:
        """As the text's file, which is closed when it has been mapped."""
        self._texts.open -= 1
        return super().content()

    def close(self) -> None:
        """No longer open."""
        self._texts.open -= 1
        super().close()


@pytest.mark.parametrize("end", [b"", b"no record\n", b"*** MESSAGE CONTENTS hold/4jXkbq5QPvzJ9sp ***\n"])
def test_a_file_that_cannot_be_read_leaves_no_text_open(end: bytes) -> None:
    """Its text is a file in the steward: it stayed open as long as the error, with its traceback, was kept."""
    first, text, _ = PRINTED.partition(b"*** HEADER EXTRACTED")
    assert text
    texts = OpenTexts()
    with pytest.raises(QueueFileError):
        parse(lines(first + end), texts)
    assert (texts.made, texts.open) == (1, 0)


def test_one_file_twice_is_refused() -> None:
    """Nothing tells which of the two is on hold."""
    with pytest.raises(QueueFileError):
        parsed(PRINTED * 2)
