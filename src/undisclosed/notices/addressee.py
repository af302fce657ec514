"""Whether the sender or the administrator is told about a message, and at which address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from undisclosed.addresses import domains
from undisclosed.policy import Policy, Standing

Role = Literal["sender", "administrator"]

NOT_AN_ADDRESS: Final = "not an address that can be written to"

MAX_ADDRESS: Final = 254
"""Characters of an address that SMTP can carry (RFC 5321, section 4.5.3.1.3, less the angle brackets)."""

_ATOM: Final = r"[^\s\x00-\x20\x7f-\x9f()<>@,;:\\\".\[\]\ud800-\udfff]+"
_LABEL: Final = r"[^\W_]+(?:-+[^\W_]+)*"
_ADDRESS: Final = re.compile(
    rf"""(?!-)(?:{_ATOM}(?:\.{_ATOM})* | "[ !#-+\-./0-9=?A-Z\[\]-~]+" ) @ ({_LABEL}(?:\.{_LABEL})*\.?)""", re.VERBOSE
)
"""An envelope sender that sendmail(1) takes as exactly one address (RFC 5321, section 4.1.2).

A quoted local part may contain blanks, but no address separator: some software would read two addresses. Postfix drops
mail to an address that begins with a dash (postconf(5), allow_min_user) without a bounce.
"""

_SRS: Final = re.compile(r"srs[01][=+-]", re.IGNORECASE)
"""A sender rewritten by a forwarding host (Sender Rewriting Scheme): a bounce goes to the outsider in it."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """The one who is told about a message."""

    role: Role
    address: str
    why: str = ""
    """The reason why the sender cannot be told; empty for the sender."""

    @property
    def mailbox(self) -> str:
        """The address for comparisons."""
        return self.address.casefold()


def addressee(policy: Policy, sender: str, author: str | None, login: str, automatic: str | None) -> Addressee:
    """The addressee of notices about a message: the first of sender, author and login with a person of ours behind it.

    `author`: the one internal address in From. `automatic`: the sign by which the message is automatic, which nobody
    may answer (RFC 3834). `login`: the SASL login name, often an address.
    """
    if automatic:
        return Addressee("administrator", policy.administrator, f"the message is automatic ({automatic})")
    for address in _candidates(sender, author, login):
        if is_ours(policy, address):
            return Addressee("sender", address)
    return Addressee("administrator", policy.administrator, "neither its sender, From nor login is an internal address")


def _candidates(sender: str, author: str | None, login: str) -> Iterator[str]:
    if not _SRS.match(sender):
        yield sender
    yield author or ""
    yield login


def is_ours(policy: Policy, address: str) -> bool:
    """Whether a notice can be sent to this address, and stays inside the organisation."""
    domain = domain_of(address)
    return domain is not None and policy.standing(domain) is Standing.INTERNAL


def domain_of(address: str) -> str | None:
    """The domain of an address as policies spell it; None if a notice cannot be sent to that address."""
    match = _ADDRESS.fullmatch(address) if len(address) <= MAX_ADDRESS else None
    domain = domains.to_ascii(match[1]) if match else None
    return domain if domain and domain.isascii() else None  # not ASCII: a label that is too long for DNS
