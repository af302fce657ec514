"""The bytes of a message, split into header fields and the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.decision.header_bytes import RawField, as_field, split
from undisclosed.decision.message import Field


def test_a_field_keeps_its_folds_and_bytes() -> None:
    """`value` is all text behind the colon, `line` the whole field."""
    raw = split(b"To: a@x.test,\n\tb@y.test\nSubject :\xe9\r\n\nbody\n")
    assert raw.fields == (
        RawField("To", b" a@x.test,\n\tb@y.test", b"To: a@x.test,\n\tb@y.test\n"),
        RawField("Subject", b"\xe9\r", b"Subject :\xe9\r\n"),
    )
    assert raw.rest == b"\nbody\n"


@pytest.mark.parametrize(
    "line", [b"no field\n", b"\n", b"\r\n", b" folded\n", b": x\n", b"T\xc3\xa9: x\n", b"X Y: z\n"]
)
def test_what_is_no_field_ends_the_header(line: bytes) -> None:
    """Such a line and all text behind it belong to the body; a fold needs a field before it."""
    assert split(line + b"To: a@x.test\n") == ((), line + b"To: a@x.test\n")


def test_one_blank_after_the_colon_is_no_part_of_the_value() -> None:
    """libmilter removes one blank, and no tab."""
    assert as_field("To", b"  a\xe9") == Field("To", " a\udce9")
    assert as_field("To", b"\ta") == Field("To", "\ta")


@given(st.lists(st.sampled_from([b"To", b":", b" ", b"\t", b"\n", b"\r\n", b"\0", b"x"]), max_size=30).map(b"".join))
def test_nothing_is_lost(content: bytes) -> None:
    """The lines of the fields and the rest together are the message, byte by byte."""
    raw = split(content)
    assert b"".join(field.line for field in raw.fields) + raw.rest == content
    assert all(field.line.startswith(field.name.encode()) and field.value in field.line for field in raw.fields)
