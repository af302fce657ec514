"""Parts of the configuration in words: lists, limits, and the effect of an action."""

from __future__ import annotations

from collections.abc import Sequence

from undisclosed.policy.actions import Action
from undisclosed.policy.policy import Policy
from undisclosed.policy.sections import Rule
from undisclosed.policy.types import duration_text

MAX_NAMED = 5
"""Senders of a rule that are written out; a list may have thousands."""


def spoken_domains(patterns: Sequence[str]) -> list[str]:
    """Domains of the configuration in words."""
    return [f"every domain below {pattern[1:]}" if pattern.startswith(".") else pattern for pattern in patterns]


def spoken_senders(patterns: Sequence[str]) -> list[str]:
    """Senders of the configuration in words."""
    return ["the null sender" if pattern == "<>" else pattern for pattern in patterns]


def listed(names: Sequence[str], last: str = "and", most: int = MAX_NAMED) -> str:
    """Names as a list in a sentence: `a, b and c`; after the first `most`, the number of the others."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} {last} {len(names) - most:,} more"
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}" if len(shown) > 1 else "".join(shown)


def limits(rule: Rule) -> str:
    """The limits of a rule in words; empty if it has none."""
    addresses, organisations = rule.more_than_addresses, rule.more_than_organisations
    if addresses is None and organisations is None:
        return ""
    shown = "external addresses" if addresses is None else _more_than(addresses, "external address", "es")
    return shown if organisations is None else f"{shown} of {_more_than(organisations, 'organisation', 's')}"


def _more_than(limit: int, noun: str, ending: str) -> str:
    return f"any {noun}" if limit == 0 else f"more than {limit:,} {noun}{ending if limit > 1 else ''}"


def effect(policy: Policy, action: Action) -> str:
    """The effect of an action in words, after "the message is"."""
    reply = f"{policy.reply.code} {policy.reply.enhanced}"
    return action.effect.words.format(delay=duration_text(policy.hold.delay), reply=reply)
