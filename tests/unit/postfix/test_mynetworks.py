"""mynetworks.py: the clients that may relay through a Postfix, compared with scope.networks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.postfix.mynetworks import mynetworks, relaying, uncovered


@pytest.mark.parametrize(
    ("value", "scope", "outside"),
    [
        ("127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128", "127.0.0.0/8 ::1/128", []),
        ("127.0.0.0/8, 10.0.0.0/8", "127.0.0.0/8", ["10.0.0.0/8"]),
        ("10.0.0.0/8", "10.0.0.0/9 10.128.0.0/9", []),
        ("10.0.0.0/8", "10.0.0.0/9", ["10.0.0.0/8"]),
        ("10.1.2.3", "10.0.0.0/8", []),
        ("10.1.2.3", "", ["10.1.2.3/32"]),
        ("10.1.2.3/8", "10.0.0.0/8", []),
        ("[2001:db8::]/32", "2001:db8::/33", ["2001:db8::/32"]),
        ("[2001:db8::1]", "2001:db8::/32", []),
        ("!10.1.0.0/16 10.0.0.0/8", "10.0.0.0/16 10.2.0.0/15 10.4.0.0/14 10.8.0.0/13 10.16.0.0/12 10.32.0.0/11 "
         "10.64.0.0/10 10.128.0.0/9", []),
        ("10.0.0.0/8 !10.1.0.0/16", "10.0.0.0/16", ["10.0.0.0/8"]),
        ("10.0.0.0/8 10.0.0.0/8", "", ["10.0.0.0/8"]),
    ],
)  # fmt: skip
def test_networks_that_may_relay_are_compared_with_the_scope(value: str, scope: str, outside: list[str]) -> None:
    """One or several networks of the scope must cover all of a network; the first match in mynetworks counts."""
    entries, unreadable = mynetworks(value)
    assert unreadable == []
    assert outside == [str(network) for network in uncovered(entries, [ip_network(word) for word in scope.split()])]


@pytest.mark.parametrize("word", ["hash:/etc/postfix/networks", "/etc/postfix/networks", "!cidr:/x", "council.test"])
def test_tables_and_files_of_networks_are_reported_as_unreadable(word: str) -> None:
    """They are named, and not treated as empty."""
    assert mynetworks(f"127.0.0.0/8 {word}")[1] == [word]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 255), st.integers(24, 32)), max_size=5),
    st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=4),
)
def test_no_client_of_mynetworks_is_missed(entries: list[tuple[bool, int, int]], scope: list[tuple[int, int]]) -> None:
    """Every address is tried: all are in the scope exactly when nothing is reported."""
    allowed = [(not no, ip_network((f"10.0.0.{last}", bits), strict=False)) for no, last, bits in entries]
    held = [ip_network((f"10.0.0.{last}", bits), strict=False) for last, bits in scope]
    value = " ".join(("" if yes else "!") + str(network) for yes, network in allowed)
    escaping = False
    for last in range(256):
        address = ip_address(f"10.0.0.{last}")
        is_allowed = next((yes for yes, network in allowed if address in network), False)
        escaping |= is_allowed and not any(address in network for network in held)
    assert escaping == bool(uncovered(mynetworks(value)[0], held))


def test_mapped_addresses_are_the_ipv4_ones() -> None:
    """Postfix uses the IPv4 address of such a client; a prefix shorter than 96 is an IPv6 network."""
    assert [str(entry.network) for entry in mynetworks("[::ffff:10.0.0.0]/104 [::]/0")[0]] == ["10.0.0.0/8", "::/0"]
    assert IPv6Address("::ffff:10.0.0.1").ipv4_mapped == IPv4Address("10.0.0.1")


@pytest.mark.parametrize(
    ("relay", "recipient", "classes", "by_network", "other_ways"),
    [
        ("permit_mynetworks, reject", "", "", True, ()),
        ("permit_sasl_authenticated,reject", "permit_mynetworks, reject", "", False, ()),
        ("", "permit_mynetworks, reject_unauth_destination", "", True, ()),
        ("", "", "", True, ()),
        ("insiders, reject", "", "insiders", True, ()),
        ("permit_tls_clientcerts check_client_access hash:/x", "", "", False,
         ("permit_tls_clientcerts", "check_client_access")),
    ],
)  # fmt: skip
def test_only_networks_that_may_relay_matter(
    relay: str, recipient: str, classes: str, by_network: bool, other_ways: tuple[str, ...]
) -> None:
    """smtpd_relay_restrictions decide, smtpd_recipient_restrictions if those are empty; a class may permit anything."""
    service = {
        "mynetworks": "10.0.0.0/8",
        "smtpd_relay_restrictions": relay,
        "smtpd_recipient_restrictions": recipient,
        "smtpd_restriction_classes": classes,
    }
    found = relaying([service], [])
    assert (by_network, other_ways) == (found.by_network, found.other_ways)
    assert bool(found.outside) == by_network
