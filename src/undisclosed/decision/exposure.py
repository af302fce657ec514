"""The exposure of a message: the distinct addresses in its counted fields, which every recipient can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from undisclosed.addresses import Address, addresses
from undisclosed.decision.message import Field, key_of
from undisclosed.policy import Policy, Standing


@dataclass(frozen=True, slots=True)
class Exposure:
    """The distinct addresses that every recipient can read, by the standing of their domains."""

    external: tuple[Address, ...] = ()
    partner: tuple[Address, ...] = ()
    internal: tuple[Address, ...] = ()
    per_field: Mapping[str, int] = field(default_factory=dict)
    """Distinct external addresses by counted field (its name case-folded)."""
    organisations: int = 0
    """The number of organisations that the external addresses belong to."""

    @property
    def count(self) -> int:
        """The number of distinct external addresses."""
        return len(self.external)


NOTHING_SHOWN = Exposure()


def expose(policy: Policy, fields: Iterable[Field], read: Callable[[str], Iterable[Address]] = addresses) -> Exposure:
    """The exposure of these header fields under a policy. The author's own address in Reply-To is not counted.

    `read` returns the addresses in a value: `Message.addresses` for the fields of a message.
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
        if len(own) > 1:  # a list of authors is not exempt: Reply All would reach all of them
            own.clear()
        tally.count("reply-to", (address for value in replies for address in read(value) if address.key not in own))
    return tally.exposure()


_Addresses = dict[tuple[str, str], Address]


class _Tally:
    """The distinct addresses so far. A list of hundreds has few domains: each domain is looked up once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._external: _Addresses = {}
        self._by_standing = {Standing.EXTERNAL: self._external, Standing.PARTNER: {}, Standing.INTERNAL: {}}
        self._of_domain: dict[str, tuple[_Addresses, str | None]] = {}
        """By domain: the dict for its addresses, and their organisation (`policy.Known`)."""
        self._per_field: dict[str, set[tuple[str, str]]] = {}

    def count(self, name: str, read: Iterable[Address]) -> None:
        """Add the addresses of a field with this name."""
        of_domain, external, outside = self._of_domain, self._external, set()
        for address in read:
            _, local, domain = address
            if domain not in of_domain:
                standing, organisation = self._policy.known(domain)
                of_domain[domain] = self._by_standing[standing], organisation
            kept = external if is_rerouted(local) else of_domain[domain][0]
            key = address[1:]  # `address.key`, three times as fast
            kept.setdefault(key, address)
            if kept is external:
                outside.add(key)
        if outside:
            self._per_field.setdefault(name, set()).update(outside)

    def exposure(self) -> Exposure:
        """The result."""
        return Exposure(
            external=tuple(self._external.values()),
            partner=tuple(self._by_standing[Standing.PARTNER].values()),
            internal=tuple(self._by_standing[Standing.INTERNAL].values()),
            per_field={name: len(keys) for name, keys in self._per_field.items()},
            organisations=self._organisations(),
        )

    def _organisations(self) -> int:
        """The number of organisations: at a personal-mail provider each address is one."""
        organisations, alone = set(), 0
        for _, domain in self._external:
            organisation = self._of_domain[domain][1]
            if organisation is None:
                alone += 1
            else:
                organisations.add(organisation)
        return len(organisations) + alone


def is_rerouted(local: str) -> bool:
    """Whether a local part contains an address elsewhere: `user%outside@inside`, `outside!user@inside`.

    Postfix strips its own domain and routes by the rest (allow_percent_hack, swap_bangpath in postconf(5)), and people
    read the other address in it.
    """
    return "%" in local or "!" in local


def _as_read(fields: Iterable[Field]) -> Iterator[Field]:
    """The fields as software of recipients may read them: some takes a bare CR for a line end.

    Otherwise the list in `Subject: x<CR>To: …` would not be counted. Postfix passes a CR on, unless it has
    cleanup_replace_stray_cr_lf (postconf(5), in security updates of 2024), which replaces it by a blank.
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
