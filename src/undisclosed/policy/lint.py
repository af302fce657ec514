"""Warnings about a policy: things that it does not do although it may seem to."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from undisclosed.addresses import domains
from undisclosed.policy.actions import Action, Mode
from undisclosed.policy.policy import NOT_USED_YET, Policy, Standing
from undisclosed.policy.wording import limits, listed

MAX_ADDRESSES_IN_A_FIELD = 10_000
"""More addresses than a header field holds: Postfix cuts a field at 60,000 bytes and 10,240 address tokens."""


def warnings(policy: Policy) -> list[str]:
    """One warning a sentence or two."""
    return [
        *_about_this_version(policy),
        *_about_mode_and_socket(policy),
        *_about_scope(policy),
        *_about_domains(policy),
        *_about_rules(policy),
    ]


def _about_this_version(policy: Policy) -> Iterator[str]:
    if policy.can_hold:
        yield (
            "`postsuper -H` and `postsuper -r` release held mail as it is: with its list of addresses still visible to"
            " everyone who gets it. Use `undisclosed held release` instead."
        )
    if unused := not_used(policy):
        yield f"Set, but not used in this version: {listed(unused, 'and', len(unused))}."


def not_used(policy: Policy) -> list[str]:
    """The settings in the configuration that this version does not use."""
    named = [
        f"{section}.{type(getattr(policy, section)).model_fields[name].alias or name}"
        for section in type(policy).model_fields
        if section in policy.model_fields_set and hasattr(getattr(policy, section), "model_fields_set")
        for name in sorted(getattr(policy, section).model_fields_set)
    ]
    return [name for name in named if name in NOT_USED_YET or name.partition(".")[0] in NOT_USED_YET]


def _about_mode_and_socket(policy: Policy) -> Iterator[str]:
    if policy.mode is Mode.MONITOR:
        yield 'mode = "monitor": no message is changed, delayed or refused by any rule.'
    endpoint = policy.milter.endpoint
    if endpoint.family != "unix" and not _is_loopback(endpoint.host):
        where = f"on {endpoint.host}" if endpoint.host else "on every address of this host"
        yield (
            f"milter.socket listens {where}: any program that can connect can pose as Postfix, and nothing on it is"
            " encrypted. Write a loopback address such as inet:8899@127.0.0.1, or block others by a firewall."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() in ("localhost", "ip6-localhost")


def _about_scope(policy: Policy) -> Iterator[str]:
    scope = policy.scope
    if not scope.authenticated and not scope.networks:
        yield "scope names no client: only mail from clients whose address is not known is checked."
    if wide := [str(network) for network in scope.networks if network.prefixlen == 0]:
        yield (
            f"scope.networks: {listed(wide)} takes in the whole Internet. Mail from outside with an empty or a forged"
            " sender is treated as the organisation's own."
        )
    if missing := [name for name in ("To", "Cc") if name.casefold() not in policy.counted_fields]:
        yield f"counting.fields leaves out {listed(missing)}: addresses there are not counted."


def _about_domains(policy: Policy) -> Iterator[str]:
    internal, partners = policy.organisation.internal_domains, policy.organisation.partner_domains
    for domain in internal:
        if domain.startswith(".") and policy.standing(domain[1:]) is not Standing.INTERNAL:
            yield f"internal_domains has {domain}, the domains below {domain[1:]}, but not {domain[1:]} itself: add it."
    for domain in partners:
        example = f"x{domain}" if domain.startswith(".") else domain
        if policy.standing(example) is Standing.INTERNAL:
            yield f"partner_domains has {domain}, which is internal already: the entry does nothing."
    known = domains.PERSONAL_MAIL.union(name.removeprefix(".") for name in policy.counting.personal_mail_add)
    for domain in policy.counting.personal_mail_remove:
        if domain.removeprefix(".") not in known:
            yield f"personal_mail_remove has {domain}, which is not in the list: the entry does nothing."


def _about_rules(policy: Policy) -> Iterator[str]:
    acting = [rule for rule in policy.rules if rule.action is not Action.ACCEPT]
    if not acting:
        yield "Every rule accepts: nothing is limited."
    elif not any("*" in rule.senders for rule in acting):
        yield "Senders that no rule names have no limit: all their mail passes."
    for number, rule in enumerate(policy.rules, 1):
        if rule.action is Action.ACCEPT and limits(rule):
            yield f"Rule {number} ({rule.name}) lets mail pass because it shows {limits(rule)}. Is reject meant?"
        if max(rule.more_than_addresses or 0, rule.more_than_organisations or 0) >= MAX_ADDRESSES_IN_A_FIELD:
            yield (
                f"Rule {number} ({rule.name}) is hardly ever reached: Postfix cuts a header field at 60,000 bytes, and"
                f" {limits(rule)} seldom fit in."
            )
