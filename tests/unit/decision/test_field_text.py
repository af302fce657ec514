"""Writing mailboxes into a field."""

from __future__ import annotations

from email.headerregistry import AddressHeader
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.addresses import Address, Mailbox, addresses, mailboxes
from undisclosed.decision import field_text

ANN = Address("ann@council.test", "ann", "council.test")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "ann@council.test"),
        ("Ann Other", "Ann Other <ann@council.test>"),
        ("  Ann \t Other\r\n", "Ann Other <ann@council.test>"),
        ("Other, Ann", '"Other, Ann" <ann@council.test>'),
        ('Ann "A" \\ O.', '"Ann \\"A\\" \\\\ O." <ann@council.test>'),
        ("Siân", "=?utf-8?b?U2nDom4=?= <ann@council.test>"),
        ("Ann O'Neill-Smith, Llŷn", "=?utf-8?q?Ann_O=27Neill-Smith=2C_Ll=C5=B7n?= <ann@council.test>"),
        ("ann@council.test", "ann@council.test"),
        ("ann\uff20council.test", "ann@council.test"),
        ("=?utf-8?q?a=40b?=", "ann@council.test"),
        ("a=40b", "ann@council.test"),
        ("a%40b", "ann@council.test"),
        ("Ann\x00", "ann@council.test"),
        ("Ann\x1b[2J", "ann@council.test"),
        ("J\udce9r", "ann@council.test"),
        ("n" * 201, "ann@council.test"),
    ],
)
def test_how_a_mailbox_is_written(name: str, expected: str) -> None:
    """A name is an atom, a quoted string or encoded words; it is left out if it has an address or cannot be written."""
    assert field_text.value("To", [Mailbox(name, ANN)]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@council.test", True),
        ('"a b"@council.test', True),
        ("a.b+c=d@council.test", True),
        ("a_b@[192.0.2.1]", True),
        ("a@council", True),
        ("jörg@council.test", False),
        ("a@bücher.test", False),
        ('"x@family.test"@council.test', False),
        ('"=?q?"@council.test', False),
        ("x%40family.test@council.test", False),
        ("a b@council.test", False),
        ("a\n@council.test", False),
        ('"a\x00"@council.test', False),
        ("a@coun_cil.test>", False),
        ("a" * 400 + "@council.test", False),
    ],
)
def test_which_addresses_can_be_written(text: str, expected: bool) -> None:
    """Valid ASCII that fits into a line and contains no other address."""
    local, _, domain = text.rpartition("@")
    assert field_text.is_writable(Address(text, local, domain)) is expected


def test_a_long_name_is_cut_into_encoded_words() -> None:
    """Each has at most 75 characters, and together they are the name again."""
    name = "Ysgol Gynradd Gymraeg Tŷ Mawr, Llŷn 🏫🏫🏫 " * 4
    value = field_text.value("Cc", [Mailbox(name, ANN)])
    assert max(len(word) for word in value.split()) <= 75
    assert max(len(line) for line in f"Cc: {value}".split("\n")) <= 77
    assert mailboxes(value) == [Mailbox(" ".join(name.split()), ANN)]


people = st.builds(
    lambda name, number: Mailbox(name, Address(f"p{number}@council.test", f"p{number}", "council.test")),
    st.text(max_size=60),
    st.integers(0, 99),
)


@given(st.lists(people, min_size=1, max_size=20))
def test_what_is_written_is_read_again(boxes: list[Mailbox]) -> None:
    """Our reader and the standard library read the same addresses; names are kept or left out whole."""
    value = field_text.value("To", boxes)
    assert value.isascii()
    assert [box.address for box in mailboxes(value)] == [box.address for box in boxes]
    assert {address.key for address in addresses(value)} == {box.address.key for box in boxes}
    parsed: AddressHeader = SMTP.header_factory("To", value.replace("\n", ""))
    assert [address.addr_spec for address in parsed.addresses] == [box.address.text for box in boxes]
    for written, box in zip(mailboxes(value), boxes, strict=True):
        assert written.name in ("", " ".join(box.name.split()))
