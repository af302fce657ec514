"""The addressee of notices about a message: the sender, or the administrator where no sender can be."""

from __future__ import annotations

import pytest

from support.factories import policy
from undisclosed.incidents.automatic import Automatic
from undisclosed.notices.addressee import Addressee, addressee, domain_of, is_ours

CLERK = "clerk@council.test"
OUTSIDE = "bounce-77@esp.example"

OURS = policy(organisation={"partner_domains": ["partner.test"]})


@pytest.mark.parametrize(
    ("sender", "author", "login", "expected"),
    [
        (CLERK, None, "", CLERK),
        (CLERK, "head@council.test", "head@council.test", CLERK),
        ("Clerk@Staff.Council.Test", None, "", "Clerk@Staff.Council.Test"),
        ("office@council.test", CLERK, "clerk", "office@council.test"),
        ("prvs=0123456789=clerk@council.test", CLERK, "", "prvs=0123456789=clerk@council.test"),
        (f"{'x' * 120}@council.test", None, "", f"{'x' * 120}@council.test"),
        (OUTSIDE, CLERK, "", CLERK),
        (OUTSIDE, CLERK, "head@council.test", CLERK),
        (OUTSIDE, None, CLERK, CLERK),
        ("SRS0=x1=7G=family.test=parent@council.test", CLERK, "", CLERK),
        ("-t@council.test", CLERK, "", CLERK),
    ],
)
def test_a_person_of_ours_is_told(sender: str, author: str | None, login: str, expected: str) -> None:
    """The envelope sender if ours, else the one internal From, else the login (milter reports, 21, 22, 24, 25)."""
    assert addressee(OURS, sender, author, login, None) == Addressee("sender", expected)


@pytest.mark.parametrize(
    ("sender", "author", "login"),
    [
        (OUTSIDE, None, ""),
        (OUTSIDE, None, "clerk"),
        (OUTSIDE, None, "clerk@esp.example"),
        ("officer@partner.test", None, ""),
        ("SRS0=x1=7G=family.test=parent@council.test", None, ""),
        ("clerk", None, ""),
    ],
)
def test_the_administrator_is_told_where_no_sender_is_ours(sender: str, author: str | None, login: str) -> None:
    """Nothing goes outside the organisation, not to a partner either; nobody is never told."""
    told = addressee(OURS, sender, author, login, None)
    assert (told.role, told.address) == ("administrator", "postmaster@council.test")
    assert told.why == "neither its sender, From nor login is an internal address"


@pytest.mark.parametrize("sign", Automatic)
def test_the_administrator_is_told_of_automatic_mail(sign: Automatic) -> None:
    """A notice to a program or a list is read by nobody, or by everybody (milter reports, 23 and 26)."""
    ours = policy(notices={"administrator": "mail-desk@council.test"})
    told = addressee(ours, CLERK, CLERK, CLERK, sign)
    assert (told.role, told.address) == ("administrator", "mail-desk@council.test")
    assert sign in told.why


@pytest.mark.parametrize(
    "address",
    [
        "clerk",
        "a@family.test,b@council.test",
        "a@family.test b@council.test",
        "@family.test:b@council.test",
        '"a@family.test,b"@council.test',
        "x" * 250 + "@council.test",
        "clerk@council.test.example",
        "",
    ],
)
def test_what_is_no_address_of_ours(address: str) -> None:
    """sendmail(1) must read exactly one address, and it must be internal."""
    assert not is_ours(OURS, address)


@pytest.mark.parametrize("address", ['"the clerk"@council.test', "siân@council.test", "clerk@COUNCIL.test."])
def test_unusual_addresses_of_ours(address: str) -> None:
    """Quoted local parts, letters that are no ASCII, and other spellings of the domain."""
    assert is_ours(OURS, address)
    assert domain_of(address) == "council.test"
