"""The policy: all sections of the TOML file together, and the checks of settings that depend on each other.

No file is read here: `config` reads it, inserts the contents of `file:` lists, and turns a `Refused` into an error that
names file, line, key, value and remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, NamedTuple, Self

from pydantic import Field, PrivateAttr, model_validator

from undisclosed.addresses import addresses, domains
from undisclosed.policy.actions import Action, Mode
from undisclosed.policy.own_replies import OwnReplies
from undisclosed.policy.sections import (
    ConsoleSection,
    CountingSection,
    HoldSection,
    JournalSection,
    LogSection,
    MetricsSection,
    MilterSection,
    NoticesSection,
    OrganisationSection,
    PostfixSection,
    ReplySection,
    RewriteSection,
    Rule,
    ScopeSection,
    Section,
)
from undisclosed.policy.types import Refused, RefusedTogether

NOT_USED_YET = ("console", "metrics")
"""Settings (or whole sections) that are validated and that nothing acts on in this version."""


_MAILBOX = re.compile(
    r"""(?: (?: [A-Za-z0-9 _-]+ | "[A-Za-z0-9 ,.'&_-]*" )?[ ]* <([^<>"\s]+@[^<>"\s]+)> | ([^<>"\s]+@[^<>"\s]+) )""",
    re.VERBOSE,
)
"""The form of `rewrite.to` besides a group: an address, with or without a name, that every mail program can read."""


_ADDRESS = re.compile(r"(?!-)[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*@[\w-]+(?:\.[\w-]+)+", re.ASCII)
"""An address without a name, as sendmail(1) and every mail program can read it."""


class Standing(StrEnum):
    """The relation of a domain to the organisation."""

    INTERNAL = "internal"
    PARTNER = "partner"
    EXTERNAL = "external"


MAX_REMEMBERED_DOMAINS = 8192
"""Domains whose standing and organisation a policy remembers."""


class Known(NamedTuple):
    """The standing of a domain, and the organisation of its addresses."""

    standing: Standing
    organisation: str | None
    """The organisation of all its addresses; None at a personal-mail provider, where each address is its own."""


class Policy(Section):
    """The whole configuration: a snapshot, swapped at reload and never changed."""

    mode: Mode = Field(default=Mode.ENFORCE, description="`enforce`, or `monitor`: decide, record, deliver unchanged.")
    organisation: OrganisationSection
    milter: MilterSection = MilterSection()
    postfix: PostfixSection = PostfixSection()
    scope: ScopeSection = ScopeSection()
    counting: CountingSection = CountingSection()
    reply: ReplySection = ReplySection()
    rewrite: RewriteSection = RewriteSection()
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)] = Field(description="The rules, in order.")
    journal: JournalSection = JournalSection()
    hold: HoldSection = HoldSection()
    notices: NoticesSection = NoticesSection()
    console: ConsoleSection = ConsoleSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()
    _own_replies: OwnReplies = PrivateAttr(default_factory=dict)

    @property
    def own_replies(self) -> OwnReplies:
        """The organisation's own words for replies: no setting, but files beside the configuration."""
        return self._own_replies

    def may_show(self, rule: str) -> int:
        """How many of the hidden addresses a text may show under the rule with this name.

        Without such a rule (adopted mail, a rule that was renamed since) what the strictest one allows.
        """
        return min([one.may_show for one in self.rules if one.name == rule] or [one.may_show for one in self.rules])

    def with_own_replies(self, own_replies: OwnReplies) -> Self:
        """The same settings, and these words for replies."""
        policy = self.model_copy()
        policy._own_replies = own_replies
        return policy

    @model_validator(mode="after")
    def _check(self) -> Self:
        refused = [
            *self._refused_domains(),
            *self._refused_rules(),
            *self._refused_to(),
            *self._refused_from(),
            *self._refused_administrator(),
        ]
        if refused:
            raise RefusedTogether(refused)
        return self

    def _refused_domains(self) -> Iterator[Refused]:
        for key in ("internal_domains", "partner_domains"):
            for place, domain in enumerate(getattr(self.organisation, key)):
                if refused := refused_domain(domain, self._personal, ("organisation", key, place)):
                    yield refused

    def _refused_rules(self) -> Iterator[Refused]:
        names: set[str] = set()
        for number, rule in enumerate(self.rules):
            if rule.name in names:
                fix = "give each rule a name of its own, so that the log tells them apart"
                yield Refused("two rules have this name", fix, ("rules", number, "name"), rule.name)
            names.add(rule.name)
            for place, earlier in enumerate(self.rules[:number]):
                if earlier.covers(rule):
                    which = f"rule {place + 1} ({earlier.name!r})"
                    problem = f"{rule.name!r} is never reached: all that it could match is matched by {which} before it"
                    fix = f"move it above {which}, narrow that one, or remove this one"
                    yield Refused(problem, fix, ("rules", number))
                    break

    def _refused_to(self) -> Iterator[Refused]:
        to = self.rewrite.to
        if to == "{from}" or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _-]*: *;", to):
            return
        match = _MAILBOX.fullmatch(to)
        named = addresses(to)
        if match and len(named) == 1 and to.isascii() and named[0].text == (match[1] or match[2]):
            if self.standing(named[0].domain) is Standing.INTERNAL:
                return
            problem = "every recipient would see an address outside the organisation"
        else:
            problem = "mail programs could not read this To"
        fix = 'write "{from}", an empty group such as "undisclosed-recipients:;", or an internal address'
        yield Refused(problem, fix, ("rewrite", "to"), to)

    def _refused_from(self) -> Iterator[Refused]:
        written = self.notices.from_
        if written and self.standing(addresses(written)[0].domain) is not Standing.INTERNAL:
            problem = "outside the organisation: notices would come from there, and be refused or taken for forged"
            fix = "write an internal address, or leave it empty: postmaster at the first internal domain"
            yield Refused(problem, fix, ("notices", "from"), written)

    def _refused_administrator(self) -> Iterator[Refused]:
        given = self.notices.administrator
        if not given:
            return
        if not _ADDRESS.fullmatch(given):
            problem = "not an address"
        elif self.standing(domains.to_ascii(given.rpartition("@")[2])) is Standing.EXTERNAL:
            problem = "outside the organisation: subjects and internal senders of held mail would be sent there"
        else:
            return
        fix = f'write an internal address alone, such as "{self.postmaster}"'
        yield Refused(problem, fix, ("notices", "administrator"), given)

    @property
    def postmaster(self) -> str:
        """Postmaster at the first internal domain: every domain has one (RFC 5321, section 4.5.1)."""
        internal = self.organisation.internal_domains
        domain = next((name for name in internal if not name.startswith(".")), internal[0].removeprefix("."))
        return f"postmaster@{domain}"

    @property
    def administrator(self) -> str:
        """The address that is told where no sender can be."""
        return self.notices.administrator or self.postmaster

    def changed_settings(self, other: Policy, *sections: str) -> list[str]:
        """The settings of these sections in which the other policy differs, such as `milter.workers`."""
        return [
            f"{section}.{name}"
            for section in sections
            for name in type(getattr(self, section)).model_fields
            if getattr(getattr(self, section), name) != getattr(getattr(other, section), name)
        ]

    def uses(self, action: Action) -> bool:
        """Whether a rule names this action."""
        return any(rule.action is action for rule in self.rules)

    def can_end_in(self, action: Action) -> bool:
        """Whether a message can meet this action: by a rule, or because its recipients cannot be hidden."""
        return self.uses(action) or (self.hides and self.rewrite.when_unsafe == action)

    @property
    def hides(self) -> bool:
        """Whether a rule hides recipients."""
        return any(rule.action.effect.hides for rule in self.rules)

    @property
    def can_hold(self) -> bool:
        """Whether a message can come into the hold queue."""
        return any(self.can_end_in(action) for action in Action if action.effect.holds)

    @cached_property
    def _internal(self) -> _DomainSet:
        return _DomainSet(self.organisation.internal_domains)

    @cached_property
    def _partner(self) -> _DomainSet:
        return _DomainSet(self.organisation.partner_domains)

    @cached_property
    def _personal(self) -> frozenset[str]:
        return personal_mail(self.counting)

    @cached_property
    def counted_fields(self) -> frozenset[str]:
        """The names of the counted header fields, case-folded."""
        return frozenset(name.casefold() for name in self.counting.fields)

    def known(self, domain: str) -> Known:
        """Standing and organisation of a domain (A-label, lower case). Cached: nearly all mail has few domains."""
        # Longer ones are no domains, and a hostile header could fill the memory with them.
        return self._remembered(domain) if len(domain) <= domains.MAX_NAME else self._look_up(domain)

    @cached_property
    def _remembered(self) -> Callable[[str], Known]:
        return lru_cache(MAX_REMEMBERED_DOMAINS)(self._look_up)

    def _look_up(self, domain: str) -> Known:
        organisation = None if self.is_personal_mail(domain) else domains.registrable(domain)
        return Known(self.standing(domain), organisation)

    def standing(self, domain: str) -> Standing:
        """The standing of a domain (A-label, lower case)."""
        if domain in self._internal:
            return Standing.INTERNAL
        return Standing.PARTNER if domain in self._partner else Standing.EXTERNAL

    def is_internal(self, address: str) -> bool:
        """Whether an envelope address is internal. An address without a domain is: Postfix appends its own domain."""
        _, at, domain = address.rpartition("@")
        return not at or self.standing(domains.to_ascii(domain)) is Standing.INTERNAL

    def is_personal_mail(self, domain: str) -> bool:
        """Whether a domain (A-label, lower case) belongs to a personal-mail provider."""
        return domain in self._personal or domains.registrable(domain) in self._personal


def personal_mail(counting: CountingSection) -> frozenset[str]:
    """The domains of the personal-mail providers: the shipped list with the changes of the configuration."""
    add, remove = (
        {domain.removeprefix(".") for domain in listed}
        for listed in (counting.personal_mail_add, counting.personal_mail_remove)
    )
    return domains.PERSONAL_MAIL.union(add) - remove


def refused_domain(domain: str, personal: frozenset[str], where: Sequence[str | int]) -> Refused | None:
    """Why a domain can be neither internal nor a partner; None if it can."""
    bare = domain.removeprefix(".")
    if domains.is_public_suffix(bare):
        problem = "a public suffix: the public can register domains below it"
        fix = f'write the domain that the organisation has registered below it, such as "council.{bare}"'
        return Refused(problem, fix, where, domain)
    provider = bare if bare in personal else domains.registrable(bare)
    if provider in personal:
        problem = "a personal-mail provider: unrelated people have addresses there"
        fix = f'leave it out, or, if the list is wrong, put "{provider}" into counting.personal_mail_remove'
        return Refused(problem, fix, where, domain)
    return None


class _DomainSet:
    """Domains in the notation of the configuration: `example.org` is that domain, `.example.org` all below it."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._exact = frozenset(pattern for pattern in patterns if not pattern.startswith("."))
        self._below = tuple(pattern for pattern in patterns if pattern.startswith("."))

    def __contains__(self, domain: str) -> bool:
        return domain in self._exact or (bool(self._below) and domain.endswith(self._below))
