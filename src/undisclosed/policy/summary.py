"""The policy in plain words, for `check-config`, and what an administrator should mind about it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from undisclosed.addresses import domains
from undisclosed.policy import Action, Mode, Policy, Rule, Standing
from undisclosed.policy.policy import NOT_USED_YET
from undisclosed.policy.types import duration_text

WIDTH = 100
MOST_NAMED = 5
"""Senders of a rule that are written out; a list may have thousands."""

MOST_IN_A_FIELD = 10_000
"""Addresses that no header field holds: Postfix cuts one at 60,000 bytes and 10,240 address tokens (TRAPS)."""


def describe(policy: Policy) -> str:
    """What the policy does, in words: whose mail it looks at, what it counts, rule by rule, and what to mind."""
    sections = [
        (f"The mail of {policy.organisation.name}", [_mode(policy)]),
        ("Which mail", _scope(policy)),
        ("Whose addresses", _domains(policy)),
        ("What counts", _counting(policy)),
        (
            "Rules: the first that matches decides",
            [*_rules(policy), "Where none matches, the message passes as it is."],
        ),
        ("Rewriting", _rewriting(policy)),
        ("Refusing", _refusing(policy)),
        ("Holding", _holding(policy)),
        ("Recording", _recording(policy)),
        ("Not used in this version, wherever they stand", [f"{_all_not_used()}."]),
        ("Mind", warnings(policy)),
    ]
    return "\n\n".join(_section(title, items) for title, items in sections if items)


def warnings(policy: Policy) -> list[str]:
    """What the policy does not do although it may seem to, in a sentence or two each."""
    return [
        *_about_this_version(policy),
        *_about_mode_and_socket(policy),
        *_about_scope(policy),
        *_about_domains(policy),
        *_about_rules(policy),
    ]


def _recording(policy: Policy) -> list[str]:
    journal = policy.journal
    where = re.sub(r"://[^@/]*@", "://…@", journal.url)  # a user's name may come with a password
    how = {"hashed": "as keyed hashes", "plain": "as they are written", "none": "not at all"}[journal.addresses]
    strict = ": without a record nothing is delivered changed or with a warning" if policy.mode is Mode.ENFORCE else ""
    return [
        f"Every message on which a rule acts is recorded in {where} before Postfix has the answer{strict}.",
        f"Visible addresses are recorded {how}; subjects are {'too' if journal.subjects else 'not'}.",
    ]


def _section(title: str, items: Sequence[str]) -> str:
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
    return "\n".join([title, *map(wrapper.fill, items)])


def _mode(policy: Policy) -> str:
    if policy.mode is Mode.MONITOR:
        return (
            'Mode "monitor": each message is decided on, and the decision is logged, but nothing is changed, delayed or'
            " refused. What is said below would happen."
        )
    return 'Mode "enforce": what is said below is done.'


def _scope(policy: Policy) -> list[str]:
    clients = []
    if policy.scope.authenticated:
        clients.append("Mail from a client that has logged in.")
    if policy.scope.networks:
        networks = _listed([str(network) for network in policy.scope.networks], "or", len(policy.scope.networks))
        clients.append(
            f"Mail from {networks} (or from a client whose address is not known), if its envelope sender is internal or"
            " empty, or its From is internal."
        )
    else:
        clients.append(
            "Mail from a client whose address is not known, if its envelope sender is internal or empty, or its From is"
            " internal."
        )
    return [*clients, "All other mail passes untouched, and so does mail whose recipients are all internal."]


def _domains(policy: Policy) -> list[str]:
    lines = [f"Internal: {_listed(_spoken_domains(policy.organisation.internal_domains))}."]
    if partners := policy.organisation.partner_domains:
        lines.append(f"Partners, whose addresses are not counted: {_listed(_spoken_domains(partners))}.")
    return [*lines, "External: all others."]


def _counting(policy: Policy) -> list[str]:
    fields = _listed(policy.counting.fields, "and", len(policy.counting.fields))
    added, removed = policy.counting.personal_mail_add, policy.counting.personal_mail_remove
    providers = f"{len(domains.PERSONAL_MAIL):,} domains are known"
    if added:
        providers += f", and {_listed(added)}"
    if removed:
        providers += f", but not {_listed(removed)}"
    return [
        f"The distinct external addresses that a recipient can read in {fields}. Who received it as Bcc and stands in"
        " none of them is not visible, and does not count.",
        "An organisation is a registered domain; at a personal-mail provider each address is an organisation of its own"
        f" ({providers}).",
    ]


def _rules(policy: Policy) -> Iterator[str]:
    for number, rule in enumerate(policy.rules, 1):
        yield f"{number}. {rule.name}: {_sentence(policy, rule)}"


def _sentence(policy: Policy, rule: Rule) -> str:
    limits = _limits(rule)
    effect = _effect(policy, rule.action)
    if not limits:
        return f"Mail from {_senders(rule)} {effect}."
    return f"If mail from {_senders(rule)} would show its recipients {limits}, it {effect}."


def _senders(rule: Rule) -> str:
    named = "anybody" if "*" in rule.senders else _listed(_spoken_senders(rule.senders), "or")
    return f"{named} but {_listed(_spoken_senders(rule.except_senders), 'or')}" if rule.except_senders else named


def _limits(rule: Rule) -> str:
    addresses, organisations = rule.more_than_addresses, rule.more_than_organisations
    if addresses is None and organisations is None:
        return ""
    shown = "outside addresses" if addresses is None else _more_than(addresses, "outside address", "es")
    return shown if organisations is None else f"{shown} of {_more_than(organisations, 'organisation', 's')}"


def _more_than(limit: int, one: str, ending: str) -> str:
    return f"any {one}" if limit == 0 else f"more than {limit:,} {one}{ending if limit > 1 else ''}"


def _effect(policy: Policy, action: Action) -> str:
    reply = policy.reply
    told = "; the sender is told" if action in policy.notices.after else "; the sender is told nothing"
    return {
        Action.ACCEPT: "passes as it is",
        Action.WARN: f"is delivered as it is{told}",
        Action.REWRITE: f"is delivered with those addresses out of sight{told}",
        Action.SPLIT: f"goes to each outside recipient as a copy of their own, with only their own address{told}",
        Action.DELAY: f"is held for {duration_text(policy.hold.delay)}, then delivered with those addresses out of"
        f" sight{told}",
        Action.QUARANTINE: f"is held until someone decides{told}",
        Action.REJECT: f"is refused ({reply.code} {reply.enhanced}), and the sender is told why",
    }[action]


def _rewriting(policy: Policy) -> list[str]:
    if not _uses(policy, Action.REWRITE):
        return []
    rewrite = policy.rewrite
    kept = "Internal ones stay visible" if rewrite.keep_internal else "Internal ones go, too"
    to = (
        "the author's own address where it is internal, else undisclosed-recipients:;"
        if rewrite.to == "{from}"
        else rewrite.to
    )
    return [
        "External and partner addresses are taken out of every counted field; everybody still gets the message."
        f" {kept}. Where nobody is left in To, it shows {to}.",
        "Instead, a message that must not be changed (signed, encrypted, an invitation and the like)"
        f" {_effect(policy, Action(rewrite.when_unsafe))}.",
    ]


def _refusing(policy: Policy) -> list[str]:
    if not _may(policy, Action.REJECT):
        return []
    whom = f"whom to ask ({policy.organisation.help})" if policy.organisation.help else "whom to ask"
    return [
        "The reply says how many outside addresses would have been visible, never what the limit is; what to do;"
        f" {whom}; and a reference that is in the log, too.",
    ]


HOLDING = (Action.QUARANTINE, Action.SPLIT, Action.DELAY)
"""Actions that put a message into the hold queue, if only for a moment."""


def _holding(policy: Policy) -> list[str]:
    if not any(_may(policy, action) for action in HOLDING):
        return []
    hold = policy.hold
    end = "deleted" if hold.on_expiry == "delete" else "kept for the administrator"
    return [
        "Held mail is in Postfix's hold queue, and `undisclosed steward` sees to it: `undisclosed held list` shows it,"
        " `undisclosed held release REF --as bcc` (or split, or unchanged) sends it, `undisclosed held delete REF`"
        " deletes it.",
        f"After {hold.expire_days} days without a decision it is {end}.",
    ]


def _may(policy: Policy, action: Action) -> bool:
    """Whether some rule can end in this action, also because a message must not be rewritten."""
    return _uses(policy, action) or (_uses(policy, Action.REWRITE) and policy.rewrite.when_unsafe == action)


def _uses(policy: Policy, action: Action) -> bool:
    return any(rule.action is action for rule in policy.rules)


def _about_this_version(policy: Policy) -> Iterator[str]:
    if any(_may(policy, action) for action in HOLDING):
        yield (
            "`postsuper -H` releases held mail as it is: with its list of addresses still visible to everyone who gets"
            " it. Use `undisclosed held release` instead."
        )
    if unused := not_used(policy):
        yield f"Set, but not used in this version: {_listed(unused, 'and', len(unused))}."


def not_used(policy: Policy) -> list[str]:
    """The settings that the configuration sets and that nothing acts on in this version."""
    named = [
        f"{section}.{type(getattr(policy, section)).model_fields[name].alias or name}"
        for section in type(policy).model_fields
        if section in policy.model_fields_set and hasattr(getattr(policy, section), "model_fields_set")
        for name in sorted(getattr(policy, section).model_fields_set)
    ]
    return [name for name in named if name in NOT_USED_YET or name.partition(".")[0] in NOT_USED_YET]


def _all_not_used() -> str:
    return _listed([f"[{name}]" if "." not in name else name for name in NOT_USED_YET], "and", len(NOT_USED_YET))


def _about_mode_and_socket(policy: Policy) -> Iterator[str]:
    if policy.mode is Mode.MONITOR:
        yield 'mode = "monitor": no message is changed, delayed or refused, whatever the rules say.'
    endpoint = policy.milter.endpoint
    if endpoint.family != "unix" and not _is_loopback(endpoint.host):
        where = f"on {endpoint.host}" if endpoint.host else "on every address of this host"
        yield (
            f"milter.socket listens {where}: whoever reaches it can speak as Postfix, and what it is told travels in"
            " plain text. Write a loopback address such as inet:8899@127.0.0.1, or keep others away by a firewall."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() in ("localhost", "ip6-localhost")


def _about_scope(policy: Policy) -> Iterator[str]:
    scope = policy.scope
    if not scope.authenticated and not scope.networks:
        yield "scope names no client: nothing is looked at but mail from clients whose address is not known."
    if wide := [str(network) for network in scope.networks if network.prefixlen == 0]:
        yield (
            f"scope.networks: {_listed(wide)} takes in the whole Internet. Mail from outside with an empty or a forged"
            " sender is treated as the organisation's own."
        )
    if missing := [name for name in ("To", "Cc") if name.casefold() not in policy.counted_fields]:
        yield f"counting.fields leaves out {_listed(missing)}: a list of addresses there passes unseen."


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
        yield "No rule limits mail from anybody whom the rules do not name: all of it passes, whatever it shows."
    for number, rule in enumerate(policy.rules, 1):
        if rule.action is Action.ACCEPT and _limits(rule):
            yield f"Rule {number} ({rule.name}) lets mail pass because it shows {_limits(rule)}. Is reject meant?"
        if max(rule.more_than_addresses or 0, rule.more_than_organisations or 0) >= MOST_IN_A_FIELD:
            yield (
                f"Rule {number} ({rule.name}) is hardly ever reached: Postfix cuts a header field at 60,000 bytes, and"
                f" {_limits(rule)} seldom fit in."
            )


def _spoken_domains(patterns: Sequence[str]) -> list[str]:
    return [f"every domain below {pattern[1:]}" if pattern.startswith(".") else pattern for pattern in patterns]


def _spoken_senders(patterns: Sequence[str]) -> list[str]:
    return ["the null sender" if pattern == "<>" else pattern for pattern in patterns]


def _listed(names: Sequence[str], last: str = "and", most: int = MOST_NAMED) -> str:
    """Names as a sentence lists them: `a, b and c`; of more than `most` the rest is a number."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} {last} {len(names) - most:,} more"
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}" if len(shown) > 1 else "".join(shown)
