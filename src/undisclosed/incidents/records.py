"""The journal's contents as values: incidents with their copies, events, requests and notices; and its errors.

Pure, and free of SQLAlchemy: the milter builds a Transaction while a message passes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from undisclosed.addresses import Address
from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.policy import Action

MERGE_WITHIN: Final = timedelta(hours=1)
"""Transactions with the same reference within this time are one incident, if they have a Message-ID."""

MAX_TEXT: Final = 998
"""Characters kept of any text from a message (a line of a message has at most 998, RFC 5322 section 2.1.1)."""

Treatment = Literal["hold", "reject", "rewrite", "warn", "monitor"]
Verb = Literal["release", "delete"]
ReleaseMode = Literal["bcc", "split", "unchanged"]
"""bcc: recipients hidden. split: a message of its own for each external recipient. unchanged: as it was sent."""
RequestState = Literal["open", "done", "refused", "failed"]
NoticeState = Literal["due", "sent", "suppressed"]
NoticeKind = Literal[
    "held", "delayed", "rewritten", "split", "warned", "reminder", "expired", "kept", "released", "deleted"
]


class JournalError(Exception):
    """The journal cannot be reached, read or written. The text says why, and what to do."""


class UnusableError(JournalError):
    """The journal cannot be used until an administrator acts: a later attempt fails as well."""


class WrongVersionError(UnusableError):
    """The database has no tables of the journal, or those of another version. The text names the remedy."""


class WrongKeyError(UnusableError):
    """The database was made with another key: hashes and references would not match those in it."""

    def __init__(self) -> None:
        super().__init__(
            "the journal was made with another key than the one in journal.key_file: its hashes and references would"
            " not match; copy the key file from a gateway that uses this journal, or give this one a journal of its own"
        )


class NotFoundError(LookupError):
    """The journal has no such incident or request."""


class AmbiguousError(LookupError):
    """Several incidents have a reference with this beginning; the text names some."""


class State(StrEnum):
    """The state of one copy of a message."""

    PENDING = "pending"
    """To be held: the steward has not seen it in the hold queue yet."""
    HELD = "held"
    NEVER_QUEUED = "never queued"
    """The client disconnected or got a temporary failure: Postfix does not have it."""
    DELIVERED = "delivered"
    """Accepted, rewritten or with a warning to its sender."""
    REJECTED = "rejected"
    RELEASING = "releasing"
    RELEASED = "released"
    DELETED = "deleted"
    EXPIRED = "expired"
    RELEASED_BY_HAND = "released by hand"
    MONITORED = "monitored"
    """Delivered unchanged: monitor mode only records."""


OPEN: Final = frozenset({State.PENDING, State.HELD, State.RELEASING})
"""States of a copy that is not dealt with yet: every other state is final."""

BY_FINALITY: Final = (
    State.PENDING,
    State.HELD,
    State.RELEASING,
    State.RELEASED,
    State.RELEASED_BY_HAND,
    State.DELIVERED,
    State.MONITORED,
    State.REJECTED,
    State.EXPIRED,
    State.DELETED,
    State.NEVER_QUEUED,
)
"""All states, the least final first. An incident has the least final state of its copies."""


def least_final(states: Iterable[State]) -> State:
    """The state of an incident whose copies have these states."""
    return min(states, key=BY_FINALITY.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """An SMTP transaction on which a rule acted, as the milter knows it."""

    reference: str
    gateway: str
    """The host's name."""
    queue_id: str
    message_id: str | None
    sender: str
    """The envelope sender; empty for the null sender."""
    client: str | None
    """The client's numeric address; None where Postfix did not know it."""
    login: str
    rule: str
    action: Action
    """The rule's action, in monitor mode too."""
    treatment: Treatment
    """The effect on the message."""
    reason: str
    obstacle: str | None
    """The reason why a message must not be rewritten as the rule says; None: it can be."""
    obstacle_kind: ObstacleKind | None
    per_field: Mapping[str, int]
    count: int
    organisations: int
    named: int
    """The number of visible external addresses with a person's name beside them."""
    visible: tuple[Address, ...]
    """The visible external addresses; the setting `journal.addresses` says how they are recorded."""
    recipients: int
    """The number of envelope recipients of this transaction."""
    subject: str | None
    automatic: bool
    """Whether the message is automatic or from a list, so that it gets no answer (RFC 3834 section 2)."""
    at: datetime
    """UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrecordedMail:
    """A held message without a record in the journal, as the steward found it in the hold queue."""

    reference: str
    gateway: str
    queue_id: str
    message_id: str | None
    sender: str
    recipients: int
    arrived: datetime
    """UTC."""
    size: int
    """Bytes of the held message."""
    automatic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCopy:
    """One transaction of an incident: one queue file of one gateway, held or not."""

    id: int
    incident_id: int
    gateway: str
    queue_id: str
    message_id: str | None
    client: str | None
    recipients: int
    state: State
    arrived: datetime
    size: int | None = None
    """Bytes of the held message; None until the steward has seen it."""
    until: datetime | None = None
    """The time of expiry; None if it is not held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A message on which a rule acted, with all its transactions."""

    id: int
    reference: str
    at: datetime
    sender: str
    message_id: str | None
    adopted: bool
    """Whether the steward found it in the hold queue, and the milter has not recorded it."""
    rule: str
    """The rule's name; empty for adopted mail."""
    action: Action
    reason: str
    obstacle: str | None
    obstacle_kind: ObstacleKind | None
    count: int
    organisations: int
    named: int
    per_field: Mapping[str, int]
    subject: str | None
    automatic: bool
    copies: tuple[QueueCopy, ...] = ()

    @property
    def state(self) -> State:
        """The least final state of its copies."""
        return least_final(copy.state for copy in self.copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An act on an incident, or on one copy of it: the actor, the time and the reason. Events are never changed."""

    incident_id: int
    copy_id: int | None
    at: datetime
    actor: str
    what: str
    why: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to release or delete held mail. The steward checks it against the policy before it acts."""

    id: int
    incident_id: int
    copy_id: int | None
    """None: every held copy."""
    verb: Verb
    mode: ReleaseMode | None
    """None to delete."""
    actor: str
    reason: str
    state: RequestState
    answer: str | None
    """The steward's answer in words; None while the request is open."""
    at: datetime
    not_before: datetime | None
    """The earliest time to carry it out; None: at once."""


@dataclass(frozen=True, slots=True)
class AcceptedPart:
    """A part of a release that Postfix has answered with 250: recipients who must not get the message again."""

    mode: ReleaseMode
    first: int
    """The place of the first of these recipients in the held file, from 0."""
    last: int
    """The place of the last one."""
    total: int
    """The number of recipients in the held file."""

    def __str__(self) -> str:
        places = f"{self.first + 1}" if self.first == self.last else f"{self.first + 1}-{self.last + 1}"
        return f"{self.mode} {places}/{self.total}"


def parts_for(mode: ReleaseMode, places: Iterable[int], total: int) -> tuple[AcceptedPart, ...]:
    """Recipients' places in the held file as parts, one for each run of neighbours."""
    runs: list[list[int]] = []
    for place in sorted(places):
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return tuple(AcceptedPart(mode, first, last, total) for first, last in runs)


def places_served(parts: Iterable[AcceptedPart]) -> frozenset[int]:
    """The places in the held file of all recipients of these parts."""
    return frozenset(place for part in parts for place in range(part.first, part.last + 1))


def is_complete(parts: Collection[AcceptedPart]) -> bool:
    """Whether these parts together went to every recipient."""
    return bool(parts) and len(places_served(parts)) == max(part.total for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message to the sender about an incident: at most one of each kind."""

    id: int
    incident_id: int
    kind: NoticeKind
    state: NoticeState
    due: datetime
    sent_at: datetime | None


def clean(text: str) -> str:
    """The text without NUL and bytes that are not UTF-8, which databases refuse; at most MAX_TEXT characters."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else _UNCLEAN.sub("\ufffd", text)


_UNCLEAN: Final = re.compile("[\0\ud800-\udfff]")
