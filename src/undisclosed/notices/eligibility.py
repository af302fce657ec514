"""Senders that get no notice, and states in which a notice is true: RFC 3834 section 2, policy, incident's state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from undisclosed.addresses import domains
from undisclosed.incidents.records import Incident, NoticeKind, State
from undisclosed.policy import Policy, Standing

MAX_NOTICES: Final = 20
"""Notices for one sender within `LIMIT_PERIOD`: a program that sends a list repeatedly must not fill a mailbox."""

LIMIT_PERIOD: Final = timedelta(hours=1)

NOT_AN_ADDRESS: Final = "the envelope sender is no address that can be written to"

MAX_ADDRESS: Final = 254
"""Characters of an address that SMTP can carry (RFC 5321, section 4.5.3.1.3, less the angle brackets)."""

_ATOM: Final = r"[^\s\x00-\x20\x7f-\x9f()<>@,;:\\\".\[\]\ud800-\udfff]+"
_LABEL: Final = r"[^\W_]+(?:-+[^\W_]+)*"
_ADDRESS: Final = re.compile(
    rf"""(?!-)(?:{_ATOM}(?:\.{_ATOM})* | "[ !#-+\-./0-9=?A-Z\[\]-~]+" ) @ ({_LABEL}(?:\.{_LABEL})*\.?)""", re.VERBOSE
)
"""An envelope sender that sendmail(1) takes as exactly one address (RFC 5321, section 4.1.2).

A quoted local part may contain blanks, but no address separator: some software would read two addresses. Postfix drops
mail to an address that begins with a dash (postconf(5), allow_min_user) without a bounce.
"""


def why_suppressed(policy: Policy, incident: Incident) -> str | None:
    """The reason why the sender of an incident gets no notice at all; None if there is none."""
    if not incident.sender:
        return "the null sender is never written to"
    if incident.automatic:
        return "the message was automatic or of a list"
    action = incident.leading.action
    if action not in policy.notices.after:
        return f"notices.after does not name {action}"
    domain = domain_of(incident.sender)
    if domain is None:
        return NOT_AN_ADDRESS
    if policy.standing(domain) is not Standing.INTERNAL:
        return "the sender is not of the organisation"
    if incident.state is State.MONITORED:
        return "in monitor mode nothing was done to the message"
    return None


def domain_of(sender: str) -> str | None:
    """The domain of an envelope sender as policies spell it; None if a notice cannot be sent to that address."""
    match = _ADDRESS.fullmatch(sender) if len(sender) <= MAX_ADDRESS else None
    domain = domains.to_ascii(match[1]) if match else None
    return domain if domain and domain.isascii() else None  # not ASCII: a label that is too long for DNS


class Timeliness(Enum):
    """Whether the text of a notice is true now."""

    NOT_YET = "not yet"
    NOW = "now"
    TOO_LATE = "too late"


_HELD: Final = frozenset({State.HELD, State.RELEASING})
_RELEASED: Final = frozenset({State.RELEASED, State.RELEASED_BY_HAND})
_TRUE_IN: Final[Mapping[NoticeKind, frozenset[State]]] = {
    "held": _HELD,
    "delayed": _HELD,
    "rewritten": frozenset({State.DELIVERED}),
    "split": _RELEASED,
    "warned": frozenset({State.DELIVERED}),
    "reminder": frozenset({State.HELD}),
    "expired": frozenset({State.EXPIRED}),
    "kept": frozenset({State.HELD}),
    "released": _RELEASED,
    "deleted": frozenset({State.DELETED}),
}
"""The states of an incident in which each kind of notice is true."""

_CAN_BECOME_TRUE_IN: Final[Mapping[NoticeKind, frozenset[State]]] = {
    **dict.fromkeys(("held", "delayed", "rewritten", "warned"), frozenset({State.PENDING})),
    **dict.fromkeys(("reminder", "kept"), frozenset({State.PENDING, State.RELEASING})),
    **dict.fromkeys(("split", "expired", "released", "deleted"), frozenset({State.PENDING}) | _HELD),
}
"""The states from which it can still become true. From all other states it cannot: the notice is suppressed."""


def timeliness(incident: Incident, kind: NoticeKind) -> Timeliness:
    """Whether a notice is true in the incident's state: only then it is sent."""
    if incident.state in _TRUE_IN[kind]:
        return Timeliness.NOW
    return Timeliness.NOT_YET if incident.state in _CAN_BECOME_TRUE_IN[kind] else Timeliness.TOO_LATE


def is_within_limit(sent: Iterable[datetime], now: datetime) -> bool:
    """Whether a sender who got notices at these times may get another one."""
    return sum(now - LIMIT_PERIOD < at <= now for at in sent) < MAX_NOTICES
