"""An incident -> what a notice's words may say of it: numbers, dates as instants, and words that are safe to show.

Whatever came out of the message is one line of printable text here, and shows no address: a notice must not repeat
the list that it is about, and a subject may hold a part of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from undisclosed.addresses import addresses
from undisclosed.decision.obstacles import INVITATION, PROTECTED, TNEF
from undisclosed.incidents.records import Copy, Incident, NoticeKind, State, Way
from undisclosed.policy import Policy
from undisclosed.policy.sections import OrganisationSection

LONGEST_SUBJECT: Final = 150
"""Characters of the message's subject that a notice repeats."""

Fact = str | int | bool | tuple[str, ...] | datetime | None

VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "organisation": "the organisation's name",
        "help": "whom to ask (`organisation.help`); empty where the configuration names nobody",
        "reference": "the incident's reference, such as `K7QF-3M2D`",
        "subject": "the message's subject, at most 150 characters and without addresses; empty where there is none",
        "sent": "when it was sent: date and time, as the language writes them",
        "recipients": "how many recipients the message was for",
        "count": "how many addresses each of them would have seen (or did see); 0 where nobody counted them",
        "organisations": "to how many organisations those addresses belong",
        "named": "how many of those addresses carry a person's name",
        "obstacle": "why the addresses could not be hidden: `invitation`, `outlook`, `signed` or `other`; empty where"
        " nothing stood in the way",
        "choices": "what the sender may ask for: any of `bcc`, `split`, `unchanged`, `delete`",
        "way": "how the message was released: `bcc`, `split` or `unchanged`; else empty",
        "some_received": "whether some of its recipients had received it before",
        "until": "the day on which held mail expires: a date, as the language writes it",
        "release_at": "when a delayed message is sent: date and time, as the language writes them",
        "on_expiry": "what happens to held mail then: `delete` or `keep`",
    }
)
"""What the words of a notice may name, and what each is."""

GONE_OUT: Final = frozenset({State.RELEASING, State.RELEASED, State.RELEASED_BY_HAND, State.DELIVERED})
"""States of a copy that some recipients have, or may have."""

_OBSTACLES: Final = (((INVITATION,), "invitation"), ((TNEF,), "outlook"), (("signed", "sealed", PROTECTED), "signed"))
"""How obstacles.py's texts begin, and what a template calls them."""


def facts(policy: Policy, incident: Incident, kind: NoticeKind, *, taken: Collection[str] = ()) -> dict[str, Fact]:
    """The value of every one of `VARIABLES`; dates as they are in the incident (UTC).

    `taken` are the names of the parts that were released, such as `bcc:0-94` (release.py).
    """
    copies = [copy for copy in incident.copies if copy.state is not State.NEVER_QUEUED]
    organisation = policy.organisation
    return {
        "organisation": plain(organisation.name),
        "help": ""
        if organisation.help == OrganisationSection.model_fields["help"].default
        else plain(organisation.help),
        "reference": plain(incident.reference),
        "subject": without_addresses(plain(incident.subject or ""))[:LONGEST_SUBJECT].rstrip(),
        "sent": incident.at,
        "recipients": sum(copy.recipients for copy in copies or incident.copies),
        "count": incident.count,
        "organisations": incident.organisations,
        "named": incident.named,
        "obstacle": _obstacle(incident.obstacle),
        "choices": _choices(policy, incident),
        "way": _way(copies, taken),
        "some_received": kind not in ("released", "split") and _some_received(copies, taken),
        "until": _until(policy, incident, copies),
        "release_at": incident.at + policy.hold.delay,
        "on_expiry": policy.hold.on_expiry,
    }


def plain(text: str) -> str:
    """One line of text that does nothing to what shows it: no control characters, no change of writing direction."""
    return " ".join("".join(map(_printable, text)).split())


def _printable(char: str) -> str:
    if char.isprintable() or char in "\u200c\u200d":  # without the joiners some scripts are spelled wrong
        return char
    if unicodedata.category(char) == "Cf":  # turns the text round, or hides in the middle of an address
        return ""
    return " " if char.isspace() or unicodedata.category(char) == "Cc" else "\ufffd"


def without_addresses(text: str) -> str:
    """The text with `…` for whatever has an at sign in it; empty where an address can be read even so."""
    masked = re.sub(r"\S*[@\uff20\ufe6b]\S*", "…", text)
    return "" if addresses(masked) else masked


def _obstacle(reason: str | None) -> str:
    if reason is None:
        return ""
    return next((name for starts, name in _OBSTACLES if reason.startswith(starts)), "other")


def _choices(policy: Policy, incident: Incident) -> tuple[Way | str, ...]:
    """What the sender may ask for; what cannot be hidden can only leave as it is, or not at all."""
    possible = ("unchanged", "delete") if incident.obstacle else ("bcc", "split", "unchanged", "delete")
    return tuple(choice for choice in possible if choice in policy.hold.sender_may)


def _way(copies: Collection[Copy], taken: Collection[str]) -> str:
    ways = {name.partition(":")[0] for name in taken}
    if any(copy.state is State.RELEASED_BY_HAND for copy in copies):  # by postsuper: with everything in sight
        ways.add("unchanged")
    return ways.pop() if len(ways) == 1 else ""


def _some_received(copies: Collection[Copy], taken: Collection[str]) -> bool:
    return bool(taken) or any(copy.state in GONE_OUT for copy in copies)


def _until(policy: Policy, incident: Incident, copies: Collection[Copy]) -> datetime:
    known = [copy.until for copy in copies if copy.until is not None]
    return min(known, default=incident.at + timedelta(days=policy.hold.expire_days))
