"""The policy in plain words, for `check-config`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from undisclosed.addresses import domains
from undisclosed.policy.actions import Action, Mode
from undisclosed.policy.lint import warnings
from undisclosed.policy.policy import NOT_USED_YET, Policy
from undisclosed.policy.sections import Rule
from undisclosed.policy.wording import effect, limits, listed, spoken_domains, spoken_senders


def describe(policy: Policy, width: int | None = None) -> str:
    """The policy in words: which mail, which addresses, each rule, and the warnings.

    `width`: the columns of the terminal; without it each sentence is one line.
    """
    sections = [
        (f"The mail of {policy.organisation.name}", [_mode(policy)]),
        ("Which mail", _scope(policy)),
        ("Whose addresses", _domains(policy)),
        ("Counting", _counting(policy)),
        (
            "Rules: the first that matches decides",
            [*_rules(policy), "If none matches, the message is delivered as it is."],
        ),
        ("Rewriting", _rewriting(policy)),
        ("Refusing", _refusing(policy)),
        ("Holding", _holding(policy)),
        ("Recording", _recording(policy)),
        ("Not used in this version", [f"{_all_not_used()}."]),
        ("Warnings", warnings(policy)),
    ]
    return "\n\n".join(_section(title, items, width) for title, items in sections if items)


def _recording(policy: Policy) -> list[str]:
    journal = policy.journal
    where = re.sub(r"://[^@/]*@", "://…@", journal.url)  # a user's name may come with a password
    how = {"hashed": "as keyed hashes", "plain": "as they are written", "none": "not at all"}[journal.addresses]
    strict = ": without a record nothing is delivered changed or with a warning" if policy.mode is Mode.ENFORCE else ""
    return [
        f"Every message on which a rule acts is recorded in {where} before Postfix has the answer{strict}.",
        f"Visible addresses are recorded {how}; subjects are {'too' if journal.subjects else 'not'}.",
    ]


def _section(title: str, items: Sequence[str], width: int | None) -> str:
    if width is None:
        return "\n".join([title, *(f"  {item}" for item in items)])
    wrapper = textwrap.TextWrapper(
        width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
    return "\n".join([title, *map(wrapper.fill, items)])


def _mode(policy: Policy) -> str:
    if policy.mode is Mode.MONITOR:
        return (
            'Mode "monitor": each decision is logged, but no message is changed, delayed or refused. The policy below'
            " is not carried out."
        )
    return 'Mode "enforce": the policy below is carried out.'


def _scope(policy: Policy) -> list[str]:
    clients = []
    if policy.scope.authenticated:
        clients.append("Mail from a client that has logged in.")
    if policy.scope.networks:
        networks = listed([str(network) for network in policy.scope.networks], "or", len(policy.scope.networks))
        clients.append(
            f"Mail from {networks} (or from a client whose address is not known), if its envelope sender is internal or"
            " empty, or its From is internal."
        )
    else:
        clients.append(
            "Mail from a client whose address is not known, if its envelope sender is internal or empty, or its From is"
            " internal."
        )
    return [*clients, "All other mail passes unchanged, and so does mail whose recipients are all internal."]


def _domains(policy: Policy) -> list[str]:
    lines = [f"Internal: {listed(spoken_domains(policy.organisation.internal_domains))}."]
    if partners := policy.organisation.partner_domains:
        lines.append(f"Partners, whose addresses are not counted: {listed(spoken_domains(partners))}.")
    return [*lines, "External: all others."]


def _counting(policy: Policy) -> list[str]:
    fields = listed(policy.counting.fields, "and", len(policy.counting.fields))
    added, removed = policy.counting.personal_mail_add, policy.counting.personal_mail_remove
    providers = f"{len(domains.PERSONAL_MAIL):,} domains are known"
    if added:
        providers += f", and {listed(added)}"
    if removed:
        providers += f", but not {listed(removed)}"
    return [
        f"The distinct external addresses that a recipient can read in {fields}. Bcc recipients"
        " who are in none of these fields are not visible, and are not counted.",
        "An organisation is a registered domain; at a personal-mail provider each address is an organisation of its own"
        f" ({providers}).",
    ]


def _rules(policy: Policy) -> Iterator[str]:
    for number, rule in enumerate(policy.rules, 1):
        yield f"{number}. {rule.name}: {_sentence(policy, rule)}"


def _sentence(policy: Policy, rule: Rule) -> str:
    limit, consequence = limits(rule), _effect(policy, rule.action)
    if not limit:
        return f"Mail from {_senders(rule)} {consequence}."
    return f"If mail from {_senders(rule)} would show its recipients {limit}, it {consequence}."


def _senders(rule: Rule) -> str:
    named = "anybody" if "*" in rule.senders else listed(spoken_senders(rule.senders), "or")
    return f"{named} but {listed(spoken_senders(rule.except_senders), 'or')}" if rule.except_senders else named


def _effect(policy: Policy, action: Action) -> str:
    if action.effect.first_notice is None:
        told = ", and the sender is told why" if action.effect.stops else ""
    else:
        is_told = action in policy.notices.after or action.effect.first_notice in ("held", "delayed")
        told = "; the sender is told" if is_told else "; the sender is told nothing"
    return f"is {effect(policy, action)}{told}"


def _rewriting(policy: Policy) -> list[str]:
    if not policy.hides:
        return []
    rewrite = policy.rewrite
    kept = "Internal addresses stay visible" if rewrite.keep_internal else "Internal addresses are removed too"
    to = (
        "the author's own address where it is internal, else undisclosed-recipients:;"
        if rewrite.to == "{from}"
        else rewrite.to
    )
    return [
        "External and partner addresses are removed from every counted field; all recipients still get the message."
        f" {kept}. If no address stays in To, its value is {to}.",
        "Instead, for `rewrite`, `split` and `delay` alike, a message whose recipients cannot be hidden (signed or"
        " encrypted, an invitation, winmail.dat, or more than three of the addresses, or than the rule allows, in its"
        f" text, attached messages and text files) {_effect(policy, Action(rewrite.when_unsafe))}.",
        "The whole message is searched, whatever its size, but not inside compressed attachments (PDF and the like).",
    ]


def _refusing(policy: Policy) -> list[str]:
    if not policy.can_end_in(Action.REJECT):
        return []
    whom = f"a contact ({policy.organisation.help})" if policy.organisation.help else "a contact"
    return [
        "The reply has the number of external addresses that would have been visible (never the limit), advice,"
        f" {whom}, and a reference that is also in the log.",
        "Instead, mail that sendmail(1) takes with an empty envelope sender is held, because a bounce would reach"
        f" nobody. `undisclosed steward` must run: it tells {policy.administrator}.",
    ]


def _holding(policy: Policy) -> list[str]:
    if not policy.can_hold:
        return []
    hold = policy.hold
    end = "deleted" if hold.on_expiry == "delete" else "kept for the administrator"
    return [
        "Held mail is in Postfix's hold queue; `undisclosed steward` releases, deletes and expires it."
        " `undisclosed held list` shows it, `undisclosed held release REF --as bcc` (or split, or unchanged) sends it,"
        " `undisclosed held delete REF` deletes it.",
        f"After {hold.expire_days} days without a decision it is {end}. Where no sender can be told of it,"
        f" {policy.administrator} is, once a day.",
    ]


def _all_not_used() -> str:
    return listed([f"[{name}]" if "." not in name else name for name in NOT_USED_YET], "and", len(NOT_USED_YET))
