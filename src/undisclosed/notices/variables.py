"""The variables of notice templates: values of one incident, as numbers, instants and text that is safe to show.

Text from the message is reduced to one line of printable characters without addresses: a notice must not repeat the
list that it reports, and a subject may contain a part of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from undisclosed.addresses import addresses
from undisclosed.incidents.records import Incident, NoticeKind, QueueCopy, State
from undisclosed.policy import Policy
from undisclosed.policy.sections import OrganisationSection

MAX_QUOTED_SUBJECT: Final = 150
"""Characters of the message's subject that a notice repeats."""

Value = str | int | bool | tuple[str, ...] | datetime | None

VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "organisation": "the organisation's name",
        "help": "the contact for questions (`organisation.help`); empty where it is not configured",
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
        "choices": "the choices of the sender: any of `bcc`, `split`, `unchanged`, `delete`",
        "release_mode": "how the message was released: `bcc`, `split` or `unchanged`; else empty",
        "some_received": "whether some recipients have already received it",
        "until": "the day on which held mail expires: a date, as the language writes it",
        "release_at": "when a delayed message is sent: date and time, as the language writes them",
        "on_expiry": "what happens to held mail then: `delete` or `keep`",
    }
)
"""The variables that a template may use, and their meanings."""

GONE_OUT: Final = frozenset({State.RELEASING, State.RELEASED, State.RELEASED_BY_HAND, State.DELIVERED})
"""States of a copy that some recipients have, or may have, received."""


def variables_of(
    policy: Policy, incident: Incident, kind: NoticeKind, *, release_modes: Collection[str] = ()
) -> dict[str, Value]:
    """The values of all `VARIABLES`; instants in UTC. `release_modes`: the modes of all parts that Postfix accepted."""
    copies = [copy for copy in incident.copies if copy.state is not State.NEVER_QUEUED]
    organisation, leading = policy.organisation, incident.leading
    return {
        "organisation": plain(organisation.name),
        "help": ""
        if organisation.help == OrganisationSection.model_fields["help"].default
        else plain(organisation.help),
        "reference": plain(incident.reference),
        "subject": without_addresses(plain(incident.subject or ""))[:MAX_QUOTED_SUBJECT].rstrip(),
        "sent": incident.at,
        "recipients": sum(copy.recipients for copy in copies or incident.copies if copy.repeat_of is None),
        "count": incident.count,
        "organisations": incident.organisations,
        "named": incident.named,
        "obstacle": leading.obstacle_kind.value if leading.obstacle_kind else "",
        "choices": _choices(policy, incident),
        "release_mode": _release_mode(copies, release_modes),
        "some_received": kind not in ("released", "split") and _some_received(copies, release_modes),
        "until": _until(policy, incident, copies),
        "release_at": min((copy.leaves for copy in copies if copy.leaves), default=leading.arrived + policy.hold.delay),
        "on_expiry": policy.hold.on_expiry,
    }


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


def _choices(policy: Policy, incident: Incident) -> tuple[str, ...]:
    """The choices of the sender. If the addresses cannot be hidden: unchanged or not at all."""
    possible = ("unchanged", "delete") if incident.leading.obstacle else ("bcc", "split", "unchanged", "delete")
    return tuple(choice for choice in possible if choice in policy.hold.sender_may)


def _release_mode(copies: Collection[QueueCopy], release_modes: Collection[str]) -> str:
    """The one mode of the release; empty if there were several, or none is known."""
    modes = set(release_modes)
    if any(copy.state is State.RELEASED_BY_HAND for copy in copies):  # by postsuper(1), which shows all addresses
        modes.add("unchanged")
    return modes.pop() if len(modes) == 1 else ""


def _some_received(copies: Collection[QueueCopy], release_modes: Collection[str]) -> bool:
    return bool(release_modes) or any(copy.state in GONE_OUT for copy in copies)


def _until(policy: Policy, incident: Incident, copies: Collection[QueueCopy]) -> datetime:
    known = [copy.until for copy in copies if copy.until is not None]
    return min(known, default=incident.at + timedelta(days=policy.hold.expire_days))
