"""The messages that every contestant is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.smtp import Letter

SENDER = "clerk@council.test"

LIMIT = 600
"""More external addresses than this in To and Cc are too many, for every contestant.

High enough that the message with 500 passes: then all of them count the whole list and do nothing else. With a limit
of 10 it would be refused, and what a refusal costs (a journal entry here, nothing there) would be measured instead.
"""

DOMAINS = 50
"""The outside addresses are spread over so many domains: strangers have their own names, not their own providers."""

LINE = b"The school term begins on Monday, as it does each year; please bring a pen.\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the messages."""

    name: str
    title: str
    addresses: int
    """The number of outside addresses that it shows."""
    recipients: int
    """The number of those that are recipients of this transaction."""
    body: int
    """Bytes of its body."""
    share: float
    """The part of `--messages` that is sent of this kind: some take longer."""


KINDS = (
    Kind("small", "2 addresses, 4 kB", 2, 2, 4_000, 1.0),
    Kind("many", "500 addresses, 4 kB", 500, 2, 4_000, 0.3),
    Kind("large", "2 addresses, 5 MB", 2, 2, 5_000_000, 0.02),
    Kind("crowd", "500 recipients, 4 kB", 500, 500, 4_000, 0.04),
)
"""The visible addresses are in the header. The number of recipients of a transaction is independent of it, since a
server may split a message. So both are measured: the header alone (`many`), and with all of its recipients."""


def people(count: int, number: int) -> list[str]:
    """Outside addresses that no other message has: names are not known beforehand, domains soon are."""
    return [f"parent{index}.of{number}@family{index % DOMAINS}.example" for index in range(count)]


def message(to: Sequence[str], number: int, body: int) -> bytes:
    """A message with a name before each address, one a line, as clients fold it; the last one is in Cc."""
    named = [f"Parent {index} <{address}>" for index, address in enumerate(to)]
    return (
        f"From: Clerk <{SENDER}>\n"
        f"To: {_folded(named[:-1])}\n"
        f"Cc: {named[-1]}\n"
        "Subject: School places\n"
        f"Message-ID: <{number}@council.test>\n"
        "Date: Mon, 02 Feb 2026 09:00:00 +0000\n\n"
    ).encode() + LINE * (body // len(LINE))


def _folded(entries: Sequence[str]) -> str:
    return ",\n\t".join(entries)


def letters(kind: Kind, count: int, first: int) -> list[Letter]:
    """So many messages of a kind, numbered from `first`; each number is used once."""
    made = []
    for number in range(first, first + count):
        to = people(kind.addresses, number)
        made.append(Letter.of(message(to, number, kind.body), sender=SENDER, recipients=to[: kind.recipients]))
    return made


def within_the_limit() -> Letter:
    """As many outside addresses as are allowed; some of them twice and in capitals; and internal addresses."""
    to = people(LIMIT, 0)
    to += [address.upper() for address in to[:20]] + [f"colleague{index}@council.test" for index in range(20)]
    return Letter.of(message(to, 0, 4_000), sender=SENDER, recipients=to[:1])


def beyond_the_limit() -> Letter:
    """One outside address more than is allowed."""
    to = people(LIMIT + 1, 0)
    return Letter.of(message(to, 0, 4_000), sender=SENDER, recipients=to[:1])
