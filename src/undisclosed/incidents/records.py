"""What the journal holds, as values: incidents and their copies, events, requests, notices; and what is recorded.

Pure, and free of SQLAlchemy: the milter's path imports this room and nothing else of the journal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from undisclosed.addresses import Address
from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.policy import Action

__all__ = [
    "BY_FINALITY",
    "LONGEST_TEXT",
    "MERGE_WITHIN",
    "OPEN",
    "AmbiguousError",
    "Copy",
    "Event",
    "Incident",
    "JournalError",
    "NotFoundError",
    "Notice",
    "NoticeKind",
    "NoticeState",
    "Outcome",
    "Request",
    "RequestState",
    "State",
    "Transaction",
    "UnusableError",
    "Wanted",
    "Way",
    "WrongKeyError",
    "WrongVersionError",
    "clean",
    "least_final",
]

MERGE_WITHIN: Final = timedelta(hours=1)
"""Transactions with the same reference within this time are one incident, if they have a Message-ID."""

LONGEST_TEXT: Final = 998
"""Characters kept of any text out of a message (a line of a message has at most 998, RFC 5322 section 2.1.1)."""

Outcome = Literal["hold", "reject", "rewrite", "warn", "monitor"]
Wanted = Literal["release", "delete"]
Way = Literal["bcc", "split", "unchanged"]
RequestState = Literal["open", "taken", "done", "refused", "failed"]
NoticeState = Literal["due", "sent", "suppressed"]
NoticeKind = Literal[
    "held", "delayed", "rewritten", "split", "warned", "reminder", "expired", "kept", "released", "deleted"
]


class JournalError(Exception):
    """The journal cannot be reached, read or written. The text says why, and what to do."""


class UnusableError(JournalError):
    """The journal cannot be used until somebody acts: waiting does not help."""


class WrongVersionError(UnusableError):
    """The database has no tables of ours, or those of another version. The text names the command to run."""


class WrongKeyError(UnusableError):
    """The database was made with another key: hashes and references would not match those in it."""


class NotFoundError(LookupError):
    """No incident has a reference that begins like this."""


class AmbiguousError(LookupError):
    """Several incidents have a reference that begins like this; the text names some."""


class State(StrEnum):
    """What became of one copy of a message."""

    PENDING = "pending"
    """To be held: the hold queue has not been seen to have it yet."""
    HELD = "held"
    NEVER_QUEUED = "never queued"
    """The client went away, or was told to come back: Postfix does not have it."""
    DELIVERED = "delivered"
    """Rewritten or warned about, and accepted."""
    REJECTED = "rejected"
    RELEASING = "releasing"
    RELEASED = "released"
    DELETED = "deleted"
    EXPIRED = "expired"
    RELEASED_BY_HAND = "released by hand"
    MONITORED = "monitored"
    """Delivered unchanged: monitor mode only records."""


OPEN: Final = frozenset({State.PENDING, State.HELD, State.RELEASING})
"""States in which something can still happen to a copy."""

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
"""An incident's state is the first of these that one of its copies has."""


def least_final(states: Iterable[State]) -> State:
    """The state of an incident whose copies have these states."""
    return min(states, key=BY_FINALITY.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What the milter knows of one transaction on which a rule acted."""

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
    """What the rule decided, in monitor mode too."""
    outcome: Outcome
    """What is done to the message."""
    reason: str
    obstacle: str | None
    """Why a message that the rule wanted rewritten must not be; None where nothing stood in the way."""
    obstacle_kind: ObstacleKind | None = None
    per_field: Mapping[str, int]
    count: int
    organisations: int
    named: int
    """How many of the visible external addresses carry a person's name."""
    visible: tuple[Address, ...]
    """The visible external addresses; `journal.addresses` says how they are recorded."""
    recipients: int
    """Envelope recipients of this transaction."""
    subject: str | None
    automatic: bool
    """Whether it is itself automatic or of a list, so that nobody is to be written to (RFC 3834 section 2)."""
    at: datetime
    """UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One transaction of an incident: what one queue id of one gateway stands for."""

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
    """Bytes of the held message, once the steward has seen it."""
    until: datetime | None = None
    """When it expires; None if it is not held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A message on which a rule acted, in however many transactions."""

    id: int
    reference: str
    at: datetime
    sender: str
    message_id: str | None
    rule: str
    """Empty for held mail that the steward found without an incident."""
    action: Action
    reason: str
    obstacle: str | None
    obstacle_kind: ObstacleKind | None = None
    count: int
    organisations: int
    named: int
    per_field: Mapping[str, int]
    subject: str | None
    automatic: bool
    copies: tuple[Copy, ...] = ()

    @property
    def state(self) -> State:
        """The least final state of its copies."""
        return least_final(copy.state for copy in self.copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Who did what to an incident, or to one copy of it, and why. Never changed, never removed on its own."""

    incident_id: int
    copy_id: int | None
    at: datetime
    actor: str
    what: str
    why: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A wish that held mail be released or deleted. The steward judges it."""

    id: int
    incident_id: int
    copy_id: int | None
    """None: every held copy."""
    wanted: Wanted
    way: Way | None
    actor: str
    reason: str
    state: RequestState
    at: datetime
    not_before: datetime | None
    """When it may be carried out; None: at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message that a sender is to get about an incident; of each kind at most one."""

    id: int
    incident_id: int
    kind: NoticeKind
    state: NoticeState
    due: datetime
    sent_at: datetime | None


def clean(text: str) -> str:
    """The text as every database takes it, at most LONGEST_TEXT characters: no NUL, no raw byte that is no UTF-8."""
    text = text[:LONGEST_TEXT]
    return text if text.isprintable() else _UNCLEAN.sub("\ufffd", text)


_UNCLEAN: Final = re.compile("[\0\ud800-\udfff]")
