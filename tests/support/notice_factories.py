"""Incidents for tests of notices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from support.factories import policy
from undisclosed.incidents.records import Incident, NoticeKind, QueueCopy, State
from undisclosed.notices import Templates, compose, load
from undisclosed.notices.templates import SeveralName
from undisclosed.notices.variables import Facts
from undisclosed.policy import Action, Policy

SENT: Final = datetime(2026, 11, 19, 14, 5, tzinfo=UTC)

STATES: Final[dict[NoticeKind, State]] = {
    "held": State.HELD,
    "delayed": State.HELD,
    "rewritten": State.DELIVERED,
    "split": State.RELEASED,
    "warned": State.DELIVERED,
    "reminder": State.HELD,
    "expired": State.EXPIRED,
    "kept": State.HELD,
    "released": State.RELEASED,
    "released_by_hand": State.RELEASED_BY_HAND,
    "deleted": State.DELETED,
    "gone": State.GONE,
}
"""A state in which each notice is true."""

HELP: Final = "the service desk, extension 1234"


def copy(state: State = State.HELD, **over: Any) -> QueueCopy:
    """A copy of a message for 96 recipients."""
    values: dict[str, Any] = {
        "id": 1,
        "incident_id": 1,
        "gateway": "mx1.council.test",
        "queue_id": "4dX1c23kLmz9Q",
        "message_id": "<1@council.test>",
        "client": "127.0.0.1",
        "recipients": 96,
        "recipients_hash": "1f",
        "rule": "too many in sight",
        "action": Action.QUARANTINE,
        "reason": "95 external addresses, the limit is 10",
        "state": state,
        "arrived": SENT,
        "until": SENT + timedelta(days=14),
    }
    return QueueCopy(**{**values, **over})


def incident(state: State = State.HELD, **over: Any) -> Incident:
    """A held message that shows 95 addresses; each keyword replaces a field, of its one copy where it belongs there."""
    of_copy = {
        name: over.pop(name) for name in ("rule", "action", "reason", "obstacle", "obstacle_kind") if name in over
    }
    values: dict[str, Any] = {
        "id": 1,
        "reference": "K7QF-3M2D",
        "identity": "1f",
        "at": SENT,
        "sender": "clerk@council.test",
        "author": "clerk@council.test",
        "login": "",
        "message_id": "<1@council.test>",
        "count": 95,
        "organisations": 12,
        "named": 90,
        "per_field": {"to": 95},
        "subject": "School admissions",
        "automatic": None,
        "copies": (copy(state, **of_copy),),
    }
    return Incident(**{**values, **over})


def organisation(*languages: str, **over: Any) -> Policy:
    """A policy whose organisation uses these languages; each keyword is a section."""
    return policy(organisation={"languages": list(languages or ("en",)), "help": HELP}, **over)


@cache
def shipped(languages: tuple[str, ...]) -> Templates:
    """The shipped templates of these languages."""
    return load(organisation(*languages), Path("config.toml"))


def facts(about: Incident, kind: NoticeKind, **over: Any) -> Facts:
    """The facts of a notice that tells of all copies of an incident; each keyword replaces a field."""
    return Facts(about, kind, **{"copies": about.copies, **over})


def render(own: Policy, about: Incident, kind: NoticeKind, zone: tzinfo | None = None, **over: Any) -> EmailMessage:
    """A notice by the shipped templates, sent at SENT to the envelope sender; each keyword replaces a fact."""
    templates = shipped(own.organisation.languages)
    return compose.render(own, facts(about, kind, **over), about.sender, now=SENT, templates=templates, zone=zone)


def notice(
    kind: NoticeKind,
    *languages: str,
    about: Incident | None = None,
    known: Mapping[str, Any] = MappingProxyType({}),
    **over: Any,
) -> EmailMessage:
    """A notice, with dates in UTC. `known` replaces facts; each keyword is a section of the policy."""
    about = about or incident(STATES[kind])
    return render(organisation(*languages, **over), about, kind, zone=UTC, **known)


def several(name: SeveralName, told: Sequence[Facts], *languages: str, **over: Any) -> EmailMessage:
    """A summary or a digest, with dates in UTC; each keyword is a section of the policy."""
    own = organisation(*languages, **over)
    templates = shipped(own.organisation.languages)
    to = own.administrator if name == "digest" else "clerk@council.test"
    return compose.render_many(own, told, to, name=name, now=SENT, templates=templates, zone=UTC)


def content(message: EmailMessage, kind: str) -> str:
    """The text of one of its parts, `plain` or `html`."""
    part = message.get_body((kind,))
    assert part is not None
    found = part.get_content()
    assert isinstance(found, str)
    return found


def words(message: EmailMessage) -> str:
    """The text part in one line."""
    return " ".join(content(message, "plain").split())


def readable(message: EmailMessage) -> str:
    """The header with its values decoded, and the text part."""
    header = "".join(f"{name}: {value}\n" for name, value in message.items())
    return f"{header}\n{content(message, 'plain')}"


def text_of(html: str) -> str:
    """The visible text of an HTML page, in one line."""
    body = html.partition("<body>")[2]
    shown = re.sub(r"<[^>]*>", "", body)
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&")):
        shown = shown.replace(entity, char)
    return " ".join(shown.split())
