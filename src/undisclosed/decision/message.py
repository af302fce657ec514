"""What one message says of itself, and what it shows."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from undisclosed.addresses import Address, addresses
from undisclosed.policy import Policy, Standing

REFERENCE_LETTERS = "23456789BCDFGHJKMNPQRSTVWXYZ"
"""Read aloud over a telephone without a mistake: no vowels (no words), no 0, 1, I, L or O."""


class Field(NamedTuple):
    """One header field: its name, and its value as pymilter gives it.

    The value is UTF-8 decoded with surrogateescape, with its folds as line feed and blank, and no leading blank.
    """

    name: str
    value: str


def key_of(name: str) -> str:
    """A field's name as names are compared: without regard to case, and to blanks around it."""
    return name.strip().casefold()


@dataclass(frozen=True, slots=True)
class Client:
    """Who handed the message to Postfix."""

    address: str | None = None
    """The numeric address; None where Postfix did not know it."""
    port: int | None = None
    """0 where the message came through sendmail(1)."""
    login: str = ""
    """The SASL login name; empty where the client is not authenticated."""


@dataclass(frozen=True)
class Message:
    """One message in one transaction: the envelope, the header, the client. Addresses are without angle brackets."""

    sender: str
    """The envelope sender; empty for the null sender."""
    recipients: tuple[str, ...]
    fields: tuple[Field, ...]
    client: Client = Client()
    queue_id: str = ""

    def values(self, name: str) -> Sequence[str]:
        """The values of every field of that name (case-folded), in order."""
        return self._by_name.get(name, ())

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        by_name: dict[str, list[str]] = {}
        for name, value in self.fields:
            by_name.setdefault(key_of(name), []).append(value)
        return by_name


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a message shows to each of its recipients: distinct addresses, by what their domains are to us."""

    external: tuple[Address, ...] = ()
    partner: tuple[Address, ...] = ()
    internal: tuple[Address, ...] = ()
    per_field: Mapping[str, int] | None = None
    """How many distinct external addresses each counted field shows, by the field's name as the policy writes it."""
    organisations: int = 0
    """How many organisations the external addresses belong to."""

    @property
    def count(self) -> int:
        """How many distinct external addresses are visible."""
        return len(self.external)


NOTHING_SHOWN = Exposure()


def expose(policy: Policy, fields: Iterable[Field]) -> Exposure:
    """What these header fields show, by the policy. The author's own address in Reply-To is no recipient."""
    counted = policy.counted_fields
    tally = _Tally(policy)
    replies: list[str] = []
    authors: list[str] = []
    for raw_name, value in _as_read(fields):
        name = key_of(raw_name)
        if name == "from":
            authors.append(value)
        elif name not in counted:
            continue
        elif name == "reply-to":
            replies.append(value)
        else:
            tally.count(name, addresses(value))
    if replies:
        own = {address.key for value in authors for address in addresses(value)}
        if len(own) > 1:  # a list of authors is no author: Reply All would reach them all
            own.clear()
        tally.count("reply-to", (one for value in replies for one in addresses(value) if one.key not in own))
    return tally.exposure()


_Addresses = dict[tuple[str, str], Address]


class _Tally:
    """The distinct addresses seen so far. A list of hundreds has few domains: each of those is looked up once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._external: _Addresses = {}
        self._by_standing = {Standing.EXTERNAL: self._external, Standing.PARTNER: {}, Standing.INTERNAL: {}}
        self._of_domain: dict[str, tuple[_Addresses, str | None]] = {}
        """Where the addresses of a domain belong, and their organisation (`policy.Known`)."""
        self._per_field: dict[str, set[tuple[str, str]]] = {}

    def count(self, name: str, found: Iterable[Address]) -> None:
        """Note the addresses of a field of this name."""
        of_domain, external, outside = self._of_domain, self._external, set()
        for address in found:
            _, local, domain = address
            if domain not in of_domain:
                standing, organisation = self._policy.known(domain)
                of_domain[domain] = self._by_standing[standing], organisation
            kept = external if is_rerouted(local) else of_domain[domain][0]
            key = address[1:]  # `address.key`, at a third of its price
            kept.setdefault(key, address)
            if kept is external:
                outside.add(key)
        if outside:
            self._per_field.setdefault(name, set()).update(outside)

    def exposure(self) -> Exposure:
        """What was seen."""
        return Exposure(
            external=tuple(self._external.values()),
            partner=tuple(self._by_standing[Standing.PARTNER].values()),
            internal=tuple(self._by_standing[Standing.INTERNAL].values()),
            per_field={name: len(keys) for name, keys in self._per_field.items()},
            organisations=self._organisations(),
        )

    def _organisations(self) -> int:
        """How many organisations the external addresses belong to: at a personal-mail provider each is one."""
        organisations, alone = set(), 0
        for _, domain in self._external:
            organisation = self._of_domain[domain][1]
            if organisation is None:
                alone += 1
            else:
                organisations.add(organisation)
        return len(organisations) + alone


def is_rerouted(local: str) -> bool:
    """Whether a local part names somebody elsewhere: `user%outside@inside`, `outside!user@inside`.

    Postfix strips its own domain and then routes by the rest (allow_percent_hack, swap_bangpath in postconf(5)), and a
    person reads the other address in it.
    """
    return "%" in local or "!" in local


def _as_read(fields: Iterable[Field]) -> Iterator[Field]:
    """The fields as a recipient's software may read them, to which a bare CR may be a line end.

    Without this `Subject: x<CR>To: …` would show a list that nobody counted, where Postfix passes the CR on: it does so
    unless cleanup_replace_stray_cr_lf (postconf(5), in security updates of 2024) makes a blank of it.
    """
    for field in fields:
        if "\r" not in field.value:
            yield field
            continue
        name, value = field.name, ""
        for line in field.value.split("\r"):
            start, colon, rest = line.lstrip("\n").partition(":")
            if colon and start and not start[0].isspace():
                yield Field(name, value)
                name, value = start, rest
            else:
                value += line
        yield Field(name, value)


def reference(key: bytes, message: Message, exposure: Exposure) -> str:
    """The incident's name, such as `K7QF-3M2D`: a keyed hash of sender, Message-ID and visible set.

    Every transaction of one message gives the same one. A message without a Message-ID is an incident of its own, told
    apart by its queue id.
    """
    ids = message.values("message-id")
    identity = ids[0].strip() if ids and ids[0].strip() else f"queue id {message.queue_id}"
    seen = sorted(
        f"{address.local}@{address.domain}"
        for addresses_ in (exposure.external, exposure.partner, exposure.internal)
        for address in addresses_
    )
    text = "\0".join([message.sender.casefold(), identity, *seen])
    number = int.from_bytes(hmac.digest(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256)[:8])
    letters = []
    for _ in range(8):
        number, place = divmod(number, len(REFERENCE_LETTERS))
        letters.append(REFERENCE_LETTERS[place])
    return "".join(letters[:4]) + "-" + "".join(letters[4:])
