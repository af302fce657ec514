"""The variables of notice templates: values of one incident, as numbers, instants and text that is safe to show.

Text from the message is reduced to one line of printable characters without addresses: a notice must not repeat the
list that it reports, and a subject may contain a part of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from undisclosed.addresses import addresses
from undisclosed.incidents.expiry import day_named
from undisclosed.incidents.records import ADOPTED, Incident, NoticeKind, QueueCopy, State
from undisclosed.notices.addressee import domain_of, is_ours
from undisclosed.policy import Policy
from undisclosed.policy.sections import OrganisationSection

MAX_QUOTED_SUBJECT: Final = 150
"""Characters of the message's subject that a notice repeats."""

MAX_LISTED: Final = 200
"""Messages that a summary or a digest names one by one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one notice: the incident, and what is known of the copies that the notice tells of."""

    incident: Incident
    kind: NoticeKind
    copies: tuple[QueueCopy, ...]
    """The copies that the notice tells of."""
    release_modes: frozenset[str] = frozenset()
    """The modes of all parts of a release that Postfix accepted."""
    is_redirected: bool = False
    """Whether Postfix redirects a released copy to another address (REDIRECT)."""
    is_told: bool = True
    """Whether an earlier notice has told of each of these copies."""
    is_confirmed: bool = True
    """Whether Postfix is known to have queued a message that was delivered at once. The milters after ours may still
    have refused it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One message in a summary or a digest."""

    reference: str
    sent: datetime
    subject: str
    sender: str
    """The internal From or login, or the domain of an outside sender; empty if there is neither."""
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Group:
    """The messages of a summary or a digest that are in one state."""

    what: str
    messages: tuple[Listed, ...]
    number: int
    more: int
    """How many of them are not in `messages`."""


Value = str | int | bool | tuple[str, ...] | tuple[Group, ...] | datetime | None

VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "organisation": "the organisation's name",
        "help": "the contact for questions (`organisation.help`); empty where it is not configured",
        "administrator": "the address to which answers to a notice go (`notices.administrator`)",
        "reference": "the incident's reference, such as `K7QF-3M2D`",
        "subject": "the message's subject, at most 150 characters and without addresses; empty where there is none",
        "sent": "when it was sent: date and time, as the language writes them",
        "recipients": "how many recipients the message has",
        "count": "how many addresses each recipient would have seen (or did see); 0 where they were not counted",
        "organisations": "to how many organisations those addresses belong",
        "named": "how many of those addresses carry a person's name",
        "obstacle": "why the addresses could not be hidden: `invitation`, `outlook`, `signed`,"
        " `repeated` (the text or an attachment lists them) or `other`; empty where"
        " they can be",
        "waits": "whether an administrator has to look at the held message first; then there are no choices",
        "choices": "the choices of the sender: any of `bcc`, `split`, `unchanged`, `delete`",
        "release_mode": "how the message was released: `bcc`, `split` or `unchanged`; else empty",
        "confirmed": "whether Postfix is known to have queued a message that was sent at once (`rewrite`, `warn`)",
        "redirected": "whether Postfix sends the released message to another address than its recipients'",
        "some_received": "whether some recipients have already received it",
        "until": "the day on which held mail expires: a date, as the language writes it; empty where it does not",
        "release_at": "when a delayed message is sent: date and time, as the language writes them",
        "on_expiry": "what happens to held mail then: `delete` or `keep`",
        "number": "`summary` and `digest`: the number of messages",
        "groups": "`summary` and `digest`: the messages by state, each with `what` (`held`, `delayed`, `hidden`,"
        " `visible`, `by hand`, `gone`, `deleted`), `number`, `more` (how many are not listed) and `messages` (each"
        " with `reference`, `sent`, `subject`, `sender`, `until`)",
    }
)
"""The variables that a template may use, and their meanings."""

GONE_OUT: Final = frozenset({State.RELEASING, State.RELEASED, State.RELEASED_BY_HAND, State.DELIVERED})
"""States of a copy that some recipients have, or may have, received."""

WHAT: Final[Mapping[NoticeKind, str]] = {
    **dict.fromkeys(("held", "reminder", "kept"), "held"),
    "delayed": "delayed",
    **dict.fromkeys(("rewritten", "split", "released"), "hidden"),
    "warned": "visible",
    "released_by_hand": "by hand",
    "gone": "gone",
    **dict.fromkeys(("deleted", "expired"), "deleted"),
}
"""The group of a summary or a digest in which a message is listed; `released` unchanged is in `visible`."""

LISTED_FIRST: Final[frozenset[NoticeKind]] = frozenset({"released_by_hand", "gone"})
"""The kinds of notices that are listed before those of held mail."""

GROUPS: Final = ("by hand", "gone", "held", "delayed", "visible", "hidden", "deleted")
"""The groups in the order in which they are listed: first those about which something has to be done."""


def variables_of(policy: Policy, facts: Facts, now: datetime) -> dict[str, Value]:
    """The values of all `VARIABLES` for a notice about one message; instants in UTC."""
    incident, copies = facts.incident, _counted(facts.copies)
    return _common(policy) | {
        "reference": plain(incident.reference),
        "subject": _subject(incident),
        "sent": incident.at,
        "recipients": sum(copy.recipients for copy in copies),
        "count": incident.count,
        "organisations": incident.organisations,
        "named": incident.named,
        "obstacle": next((copy.obstacle_kind.value for copy in reversed(copies) if copy.obstacle_kind), ""),
        "waits": any(_waits(copy) for copy in copies),
        "choices": _choices(policy, copies),
        "release_mode": _release_mode(facts),
        "confirmed": facts.is_confirmed,
        "redirected": facts.is_redirected,
        "some_received": facts.kind in NOT_SENT and _some_received(facts),
        "until": _until(policy, copies, now),
        "release_at": max((copy.leaves for copy in copies if copy.leaves), default=incident.at + policy.hold.delay),
    }


def variables_of_many(policy: Policy, told: Sequence[Facts], now: datetime) -> dict[str, Value]:
    """The values of all `VARIABLES` for a summary or a digest: those of one message are empty."""
    by_what: dict[str, list[Facts]] = {}
    for facts in told:
        by_what.setdefault(_what(facts), []).append(facts)
    room = MAX_LISTED
    groups = []
    for what in GROUPS:
        if found := by_what.get(what):
            listed = tuple(_listed(policy, facts, now) for facts in found[:room])
            room -= len(listed)
            groups.append(Group(what, listed, len(found), len(found) - len(listed)))
    return _common(policy) | {"number": len(told), "groups": tuple(groups)}


def _common(policy: Policy) -> dict[str, Value]:
    """The values that depend on the policy alone, and empty values for all others."""
    organisation = policy.organisation
    return {
        "organisation": plain(organisation.name),
        "help": ""
        if organisation.help == OrganisationSection.model_fields["help"].default
        else plain(organisation.help),
        "administrator": policy.administrator,
        **dict.fromkeys(("reference", "subject", "obstacle", "release_mode"), ""),
        **dict.fromkeys(("recipients", "count", "organisations", "named", "number"), 0),
        **dict.fromkeys(("waits", "redirected", "some_received"), False),
        **dict.fromkeys(("sent", "until", "release_at"), None),
        "confirmed": True,
        "choices": (),
        "on_expiry": policy.hold.on_expiry,
        "groups": (),
    }


def _counted(copies: tuple[QueueCopy, ...]) -> tuple[QueueCopy, ...]:
    """The copies whose recipients count: not those that Postfix never had, nor repeats of another one."""
    return tuple(copy for copy in copies if copy.state is not State.NEVER_QUEUED and copy.repeat_of is None) or tuple(
        copies
    )


def _subject(incident: Incident) -> str:
    return without_addresses(plain(incident.subject or ""))[:MAX_QUOTED_SUBJECT].rstrip()


def _what(facts: Facts) -> str:
    is_visible = facts.kind == "released" and _release_mode(facts) == "unchanged"
    return "visible" if is_visible else WHAT[facts.kind]


def _listed(policy: Policy, facts: Facts, now: datetime) -> Listed:
    incident, copies = facts.incident, _counted(facts.copies)
    expires = WHAT[facts.kind] == "held" and all(copy.until is not None for copy in copies)
    return Listed(
        plain(incident.reference),
        incident.at,
        _subject(incident),
        _internal_sender(policy, incident),
        _until(policy, copies, now) if expires else None,
    )


def _internal_sender(policy: Policy, incident: Incident) -> str:
    """The sender as the administrator's digest names it: of an outside one the domain only."""
    for address in (incident.author, incident.login, incident.sender):
        if address and is_ours(policy, address):
            return plain(address)
    return plain(domain_of(incident.sender) or "")


def plain(text: str) -> str:
    """The text as one printable line, without control characters and changes of writing direction."""
    return " ".join("".join(map(_printable, text)).split())


def _printable(char: str) -> str:
    if char.isprintable() or char in "\u200c\u200d":  # some scripts need these joiners
        return char
    if unicodedata.category(char) == "Cf":  # changes the direction, or is invisible in an address
        return ""
    return " " if char.isspace() or unicodedata.category(char) == "Cc" else "\ufffd"


def without_addresses(text: str) -> str:
    """The text with `…` for each word with an at sign; empty if an address can still be read in it."""
    masked = re.sub(r"\S*[@\uff20\ufe6b]\S*", "…", text)
    return "" if addresses(masked) else masked


NOT_SENT: Final = frozenset({"held", "delayed", "reminder", "kept", "deleted", "expired"})
"""The notices that say who has not received the message."""


def _waits(copy: QueueCopy) -> bool:
    """Whether a person must look first: not of adopted mail as such, which can be released like any other."""
    return copy.is_open and copy.waits not in (None, ADOPTED)


def _choices(policy: Policy, copies: Collection[QueueCopy]) -> tuple[str, ...]:
    """The choices of the sender, none that would be refused: a message that cannot be hidden goes unchanged or not."""
    if any(_waits(copy) for copy in copies):
        return ()
    is_unsafe = any(copy.obstacle for copy in copies)
    possible = ("unchanged", "delete") if is_unsafe else ("bcc", "split", "unchanged", "delete")
    return tuple(choice for choice in possible if choice in policy.hold.sender_may)


def _release_mode(facts: Facts) -> str:
    """The one mode of the release; empty if there were several, or none is known."""
    modes = set(facts.release_modes)
    if any(copy.state is State.RELEASED_BY_HAND for copy in facts.copies):  # by postsuper(1), which shows all addresses
        modes.add("unchanged")
    return modes.pop() if len(modes) == 1 else ""


def _some_received(facts: Facts) -> bool:
    """Whether a part of these copies, or another copy of the message, has gone out."""
    told = {copy.id for copy in facts.copies}
    others = [copy for copy in facts.incident.copies if copy.id not in told]
    went_out = any(copy.state in GONE_OUT for copy in (*facts.copies, *others))
    return (bool(facts.release_modes) or went_out) and not facts.is_redirected


def _until(policy: Policy, copies: Collection[QueueCopy], now: datetime) -> datetime | None:
    """The day of the first end; None if there is none, since adopted mail does not expire."""
    known = [copy.until for copy in copies if copy.until is not None]
    if not known and all(copy.adopted for copy in copies):
        return None
    first = min(copy.arrived for copy in copies)
    return day_named(min(known, default=first + timedelta(days=policy.hold.expire_days)), now)
