"""The clients that may relay through a Postfix, and those of them that are not in scope.networks of the policy.

Values in, values out. The syntax is that of mynetworks (postconf(5)): networks and addresses, IPv6 ones in brackets,
`!` before an exception (the first match counts), files and lookup tables, separated by blanks or commas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

Network = IPv4Network | IPv6Network

OTHER_WAYS = ("permit_tls_clientcerts", "permit_tls_all_clientcerts", "permit_inet_interfaces", "check_client_access")
"""Restrictions that let a client relay by something other than mynetworks or a login."""


class Relaying(NamedTuple):
    """The clients that may relay by address.

    `by_network`: whether mynetworks decides it for anyone; `outside`: networks that may relay and are not in the scope;
    `unreadable`: entries of mynetworks that only Postfix can read; `other_ways`: see OTHER_WAYS.
    """

    by_network: bool
    outside: tuple[Network, ...] = ()
    unreadable: tuple[str, ...] = ()
    other_ways: tuple[str, ...] = ()


def relaying(services: Sequence[Mapping[str, str]], scope: Iterable[Network]) -> Relaying:
    """The clients that may relay through services that share one mynetworks; each is given by its settings."""
    words = [word for service in services for word in _relay_restrictions(service)]
    other_ways = tuple(way for way in OTHER_WAYS if way in words)
    classes = {word for service in services for word in _words(service.get("smtpd_restriction_classes", ""))}
    if "permit_mynetworks" not in words and not classes.intersection(words):
        return Relaying(by_network=False, other_ways=other_ways)
    entries, unreadable = mynetworks(services[0]["mynetworks"])
    return Relaying(True, tuple(uncovered(entries, scope)), tuple(unreadable), other_ways)


def _relay_restrictions(service: Mapping[str, str]) -> list[str]:
    """The restriction list for relaying: smtpd_recipient_restrictions only if the other is empty (postconf(5)).

    Both are empty at compatibility level 0, and then networks may relay (COMPATIBILITY_README).
    """
    either = service.get("smtpd_relay_restrictions", "") or service.get("smtpd_recipient_restrictions", "")
    return _words(either) or ["permit_mynetworks"]


def _words(value: str) -> list[str]:
    return [word for word in re.split(r"[\s,{}]+", value) if word]


class NetworkEntry(NamedTuple):
    """A network of mynetworks as it is written there, and the parts that the `!` entries before it leave."""

    network: Network
    parts: tuple[Network, ...]


def mynetworks(value: str) -> tuple[list[NetworkEntry], list[str]]:
    """The networks of a value of mynetworks, and its entries that are files, tables or unreadable."""
    inside: list[NetworkEntry] = []
    left_out: list[Network] = []
    unreadable: list[str] = []
    for word in _words(value):
        network = _network(word.lstrip("!"))
        if network is None:
            unreadable.append(word)
        elif word.count("!") % 2:
            left_out.append(network)
        else:
            inside.append(NetworkEntry(network, tuple(_minus([network], left_out))))
    return inside, unreadable


def _network(word: str) -> Network | None:
    if ":" in word and not word.startswith("["):
        return None  # type:table
    try:
        network = ip_network(word.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return IPv4Network((IPv4Address(mapped), network.prefixlen - 96))  # Postfix calls such a client by its IPv4 address


def uncovered(entries: Iterable[NetworkEntry], scope: Iterable[Network]) -> list[Network]:
    """The networks that are not wholly within a scope, in order, each once."""
    held = list(scope)
    return list(dict.fromkeys(entry.network for entry in entries if _minus(entry.parts, held)))


def _minus(networks: Iterable[Network], holes: Iterable[Network]) -> list[Network]:
    left = list(networks)
    for hole in holes:
        left = [part for network in left for part in _less(network, hole)]
    return left


def _less(network: Network, hole: Network) -> list[Network]:
    if isinstance(network, IPv4Network) and isinstance(hole, IPv4Network):
        if hole.supernet_of(network):
            return []
        return list(network.address_exclude(hole)) if network.supernet_of(hole) else [network]
    if isinstance(network, IPv6Network) and isinstance(hole, IPv6Network):
        if hole.supernet_of(network):
            return []
        return list(network.address_exclude(hole)) if network.supernet_of(hole) else [network]
    return [network]
