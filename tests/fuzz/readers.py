"""The addresses that other programs find in a header value: readers without code of the product, to check it.

Each gives pairs of local part and domain, in lower case. They find fewer addresses than a person, and sometimes a text
that no person would take for one: so only an address that a reader is sure of counts.
"""

from __future__ import annotations

import email.errors
import email.header
import inspect
import re
from collections.abc import Collection
from email.utils import getaddresses

from undisclosed.policy.sections import COUNTED_FIELDS

RECIPIENT_FIELDS = frozenset(name.casefold() for name in COUNTED_FIELDS) | {"bcc", "resent-bcc"}
INTERNAL = ("council.test",)

Pair = tuple[str, str]

_PLAIN = re.compile(
    r"(?<![\w.@!#$%&'*+/=?^`{|}~-])([a-z0-9][a-z0-9._+-]*)@((?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,})(?![\w@.\\-])",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"([^@]+)@((?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,})\.?", re.IGNORECASE)
_LENIENT = {"strict": False} if "strict" in inspect.signature(getaddresses).parameters else {}


def plain(text: str) -> set[Pair]:
    """The addresses that the most obvious regular expression finds."""
    return {(local.lower(), domain.lower()) for local, domain in _PLAIN.findall(text)}


def library(value: str) -> set[Pair]:
    """The addresses that the standard library finds, strict and lenient."""
    found: set[Pair] = set()
    for options in ({}, _LENIENT):
        try:
            entries = getaddresses([value], **options)
        except (RecursionError, ValueError, IndexError):  # errors of the library: no reading is required then
            continue
        wholes = (_WHOLE.fullmatch(address) for _, address in entries)
        found |= {(whole[1].lower(), whole[2].lower()) for whole in wholes if whole}
    return found


def decoded(value: str) -> str:
    """A value as a mail client decodes it (RFC 2047); or unchanged if the standard library cannot decode it."""
    try:
        parts = email.header.decode_header(value.encode("ascii", "replace").decode())
        return "".join(
            part if isinstance(part, str) else part.decode(charset or "latin-1", "replace") for part, charset in parts
        )
    except (email.errors.HeaderParseError, LookupError, ValueError):
        return value


def outside(value: str, *, internal: Collection[str] = INTERNAL, exempt: Collection[Pair] = ()) -> set[Pair]:
    """The addresses found by any of the readers that are not the organisation's own, nor exempt.

    The library takes words before an address for a part of it: that is the same address.
    """
    unfolded = re.sub(r"\r?\n(?=[ \t])", "", value)
    found: set[Pair] = set()
    for text in {unfolded, decoded(unfolded)}:
        found |= plain(text) | library(text)
    return {
        (local, domain)
        for local, domain in found
        if not is_below(domain, internal) and not any(domain == there and local.endswith(end) for end, there in exempt)
    }


def is_below(domain: str, parents: Collection[str]) -> bool:
    """Whether a domain is one of these, or below one."""
    return any(domain == parent or domain.endswith("." + parent) for parent in parents)
