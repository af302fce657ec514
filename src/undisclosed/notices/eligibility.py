"""Who gets no notice, and when: RFC 3834 section 2, the policy, and what has become of the message meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from undisclosed.addresses import domains
from undisclosed.incidents.records import Incident, NoticeKind, State
from undisclosed.policy import Action, Policy, Standing

FIRST_KIND: Final[Mapping[Action, NoticeKind]] = {
    Action.WARN: "warned",
    Action.REWRITE: "rewritten",
    Action.SPLIT: "split",
    Action.DELAY: "delayed",
    Action.QUARANTINE: "held",
}
"""What a sender is told first after an action.

A rejected message was answered over SMTP, an accepted one needs no word.
"""

MOST: Final = 20
"""Notices that one sender gets within `WITHIN`: a program that sends a list again and again must not fill a mailbox."""

WITHIN: Final = timedelta(hours=1)

LONGEST_ADDRESS: Final = 254
"""Characters of an address that SMTP can carry (RFC 5321, section 4.5.3.1.3, less the angle brackets)."""

_ATOM: Final = r"[^\s\x00-\x20\x7f-\x9f()<>@,;:\\\".\[\]\ud800-\udfff]+"
_LABEL: Final = r"[^\W_]+(?:-+[^\W_]+)*"
_ADDRESS: Final = re.compile(
    rf"""(?!-)(?:{_ATOM}(?:\.{_ATOM})* | "[ !#-+\-./0-9=?A-Z\[\]-~]+" ) @ ({_LABEL}(?:\.{_LABEL})*\.?)""", re.VERBOSE
)
"""An envelope sender that a notice can go to (RFC 5321, section 4.1.2), as sendmail(1) reads it: as one address.

A quoted local part may have blanks in it, but nothing that separates addresses: somebody would read two in it. Postfix
drops mail to an address that begins with a dash (postconf(5), allow_min_user), and nobody would learn of it.
"""


def suppressed(policy: Policy, incident: Incident) -> str | None:
    """Why the sender of an incident gets no notice at all; None if there is no reason."""
    if not incident.sender:
        return "the null sender is never written to"
    if incident.automatic:
        return "the message was automatic or of a list"
    if incident.action not in policy.notices.after:
        return f"notices.after does not name {incident.action}"
    domain = domain_of(incident.sender)
    if domain is None:
        return "the envelope sender is no address that can be written to"
    if policy.standing(domain) is not Standing.INTERNAL:
        return "the sender is not of the organisation"
    if incident.state is State.MONITORED:
        return "in monitor mode nothing was done to the message"
    return None


def domain_of(sender: str) -> str | None:
    """The domain of an envelope sender, as policies know it; None where it is no address that a notice can go to."""
    match = _ADDRESS.fullmatch(sender) if len(sender) <= LONGEST_ADDRESS else None
    return domains.to_ascii(match[1]) if match else None


class Moment(Enum):
    """Whether what a notice says is true by now."""

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
"""The states of an incident in which each notice says the truth."""

_BEFORE: Final[Mapping[NoticeKind, frozenset[State]]] = {
    **dict.fromkeys(("held", "delayed", "rewritten", "warned"), frozenset({State.PENDING})),
    **dict.fromkeys(("reminder", "kept"), frozenset({State.PENDING, State.RELEASING})),
    **dict.fromkeys(("split", "expired", "released", "deleted"), frozenset({State.PENDING}) | _HELD),
}
"""The states from which it may still come true. In all others it never will: something else has happened."""


def moment(incident: Incident, kind: NoticeKind) -> Moment:
    """Whether a notice says what is true of the incident: only then is it sent."""
    if incident.state in _TRUE_IN[kind]:
        return Moment.NOW
    return Moment.NOT_YET if incident.state in _BEFORE[kind] else Moment.TOO_LATE


def within_limit(sent: Iterable[datetime], now: datetime) -> bool:
    """Whether a sender who got notices at these times may get one more."""
    return sum(now - WITHIN < at <= now for at in sent) < MOST
