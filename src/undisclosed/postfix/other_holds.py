"""Other things that can put mail on hold in a Postfix configuration: tables with HOLD, policy services, other milters.

Values in, values out: `tables.py` reads the tables that `holders` names. Sources: access(5), header_checks(5),
SMTPD_POLICY_README, MILTER_README, DATABASE_README.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from undisclosed.postfix.milter_lists import ListError, OurMilter, milters, split
from undisclosed.postfix.model import Finding, Level, PostfixConfig

RESTRICTIONS: Final = (
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
)
"""Lists of restrictions, whose tables and policy services may say HOLD. smtpd_restriction_classes names more."""

CHECKS: Final = (
    "header_checks",
    "mime_header_checks",
    "nested_header_checks",
    "body_checks",
    "milter_header_checks",
)
"""The checks of cleanup(8)."""

_POLICY_SERVICE: Final = "check_policy_service"
_TABLE: Final = re.compile(r"(?:proxy:)?(?P<type>[a-z]+):(?P<name>.*)", re.DOTALL)

_HOLD: Final = re.compile(r"(?im)^(?!\s*#)(?:.*[\s,{=:])?HOLD(?=[\s,}]|$)")
"""A line that is no comment with HOLD as a word. It may be a word of a reply, which makes one holder too many."""

_EVERY_MESSAGE: Final = re.compile(r"(?im)^(?!\s*#)\s*/\^?received:?[^/]*/\w*\s+HOLD(?=\s|$)")
"""The recipe by which other programs take every message from the hold queue (MailScanner)."""


class Kind(StrEnum):
    """The kinds of holders."""

    TABLE = "table"
    POLICY_SERVICE = "policy service"
    MILTER = "milter"


class Holder(NamedTuple):
    """Something that may put mail on hold: its kind, its name as Postfix has it, and where it is named."""

    kind: Kind
    name: str
    where: str


def holders(config: PostfixConfig, ours: OurMilter) -> list[Holder]:
    """All that a configuration names, tables without HOLD included."""
    found: list[Holder] = []
    classes = config.main.get("smtpd_restriction_classes", "").replace(",", " ").split()
    for parameters, program in (((*RESTRICTIONS, *classes), "smtpd"), (CHECKS, "cleanup")):
        for parameter in parameters:
            for group in config.groups(parameter, config.running(program)):
                found += _in_list(group.value, f"{parameter} in {group.where}")
    for parameter in ("smtpd_milters", "non_smtpd_milters"):
        for group in config.groups(parameter, [service for service, name in config.entrances if name == parameter]):
            found += _in_milters(group.value, ours, f"{parameter} in {group.where}")
    return list(dict.fromkeys(found))


def _in_list(value: str, where: str) -> Iterator[Holder]:
    try:
        words = split(value)
    except ListError:
        yield Holder(Kind.TABLE, value, where)  # nobody can say what it is
        return
    before = ""
    for word in words:
        if before == _POLICY_SERVICE:
            name = next(iter(split(word[1:-1])), word) if word.startswith("{") else word
            yield Holder(Kind.POLICY_SERVICE, name, where)
        elif _TABLE.fullmatch(word):
            yield Holder(Kind.TABLE, word, where)
        before = word


def _in_milters(value: str, ours: OurMilter, where: str) -> Iterator[Holder]:
    try:
        elements = milters(value)
    except ListError:
        return  # assessment.py reports it
    for milter in elements:
        if not ours.matches(milter):
            yield Holder(Kind.MILTER, milter.endpoint, where)


def tables(found: Iterable[Holder]) -> list[str]:
    """The tables among them."""
    return [holder.name for holder in found if holder.kind is Kind.TABLE]


def may_hold(found: Iterable[Holder], texts: Mapping[str, str | None]) -> list[Holder]:
    """Those that can put mail on hold. `texts`: the text of each, None where it cannot be read."""
    return [holder for holder in found if holder.kind is not Kind.TABLE or _has_hold(texts.get(holder.name))]


def _has_hold(text: str | None) -> bool:
    return text is None or _HOLD.search(text) is not None


def findings(found: Iterable[Holder], texts: Mapping[str, str | None]) -> Iterator[Finding]:
    """The findings that an administrator should know."""
    for holder in found:
        if holder.kind is Kind.MILTER:
            continue  # the milters behind ours do not see what ours has put on hold
        if holder.kind is Kind.POLICY_SERVICE:
            text = f"{holder.where} asks the policy service {holder.name}, which may put mail on hold."
            yield Finding(Level.NOTE, text, _WAITS)
            continue
        text_of = texts.get(holder.name)
        if text_of is not None and _EVERY_MESSAGE.search(text_of):
            text = f"{holder.where}: {holder.name} puts every message on hold (/^Received:/ HOLD), for another program."
            harm = "That program also sends what our milter holds, with its list visible."
            yield Finding(Level.PROBLEM, f"{text} {harm}", "let that program work as a milter or as a content_filter")
        elif text_of is None:
            text = f"{holder.where} names {holder.name}, which this command cannot read: it may put mail on hold."
            yield Finding(Level.NOTE, text, _WAITS)
        elif _has_hold(text_of):
            yield Finding(Level.NOTE, f"{holder.where}: {holder.name} puts mail on hold (HOLD).", _WAITS)


_WAITS: Final = (
    "nothing, if the steward can read the mail log: it releases by itself (split, delay) only what our milter alone"
    " has put on hold"
)
