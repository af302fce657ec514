"""Addresses in the texts of other programs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.addresses.masking import without_addresses


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "451 4.3.0 <parent.0.purbeck@mail-one.example>: Temporary lookup failure",
            "451 4.3.0 …: Temporary lookup failure",
        ),
        (
            "550 5.1.1 <root>: Recipient address rejected: User unknown",
            "550 5.1.1 …: Recipient address rejected: User unknown",
        ),
        ("554 5.7.1 a@b.test, c@d.test: Relay access denied", "554 5.7.1 …, …: Relay access denied"),
        ('501 5.1.3 <"a b"@family.test>: bad', "501 5.1.3 …: bad"),
        ('fatal: "a b"@family.test: cannot be read', "fatal: …: cannot be read"),
        ('fatal: "a \\" b"@family.test: cannot be read', "fatal: …: cannot be read"),
        ("553 5.1.7 The <dörte@straße.test>: no", "553 5.1.7 The …: no"),
        ("full-width parent\uff20family.test here", "full-width … here"),
        ("cut off: <parent@family", "cut off: …"),
        ("ent>: its beginning is cut off", "…: its beginning is cut off"),
        ("250 2.0.0 Ok: queued as 4jXkbq5QPvzJ9sp", "250 2.0.0 Ok: queued as 4jXkbq5QPvzJ9sp"),
        ("552 5.3.4 size 12 > 10 exceeds", "552 5.3.4 size 12 > 10 exceeds"),
        ("", ""),
    ],
)
def test_code_and_text_stay(text: str, masked: str) -> None:
    """Only what may be an address goes (hostile review, 15: `<…>: Temporary lookup failure` in log and journal)."""
    assert without_addresses(text) == masked


@given(st.text(), st.text())
def test_no_at_sign_is_left(before: str, after: str) -> None:
    """Addresses are masked in every context in which Postfix writes them."""
    masked = without_addresses(f"{before} <secret@family.test> {after} secret@family.test{after}")
    assert "secret" not in masked
    assert "@" not in masked


@pytest.mark.parametrize("unit", ['"', "<", ">", "@", " ", "a", '"a', "\\", '" '])
def test_the_cost_is_linear(unit: str) -> None:
    """A reply of another program may have any length: 200,000 characters take well below the 60 s of quadratic work."""
    began = time.process_time()
    without_addresses(unit * 200_000)
    assert time.process_time() - began < 5
