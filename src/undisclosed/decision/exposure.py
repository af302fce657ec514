"""What a message shows to each of its recipients: the distinct addresses in its counted fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from undisclosed.addresses import Address, addresses
from undisclosed.decision.message import Field, key_of
from undisclosed.policy import Policy, Standing


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a message shows to each of its recipients: distinct addresses, by what their domains are to us."""

    external: tuple[Address, ...] = ()
    partner: tuple[Address, ...] = ()
    internal: tuple[Address, ...] = ()
    per_field: Mapping[str, int] = field(default_factory=dict)
    """How many distinct external addresses each counted field shows, by the field's name as the policy writes it."""
    organisations: int = 0
    """How many organisations the external addresses belong to."""

    @property
    def count(self) -> int:
        """How many distinct external addresses are visible."""
        return len(self.external)


NOTHING_SHOWN = Exposure()


def expose(policy: Policy, fields: Iterable[Field], read: Callable[[str], Iterable[Address]] = addresses) -> Exposure:
    """What these header fields show, by the policy. The author's own address in Reply-To is no recipient.

    `read` reads the addresses in a value: `Message.addresses` where these are the fields of a message.
    """
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
            tally.count(name, read(value))
    if replies:
        own = {address.key for value in authors for address in read(value)}
        if len(own) > 1:  # a list of authors is no author: Reply All would reach them all
            own.clear()
        tally.count("reply-to", (address for value in replies for address in read(value) if address.key not in own))
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
    for raw in fields:
        if "\r" not in raw.value:
            yield raw
            continue
        name, value = raw.name, ""
        for line in raw.value.split("\r"):
            start, colon, rest = line.lstrip("\n").partition(":")
            if colon and start and not start[0].isspace():
                yield Field(name, value)
                name, value = start, rest
            else:
                value += line
        yield Field(name, value)
