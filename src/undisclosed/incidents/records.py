"""The journal's contents as values: incidents with their copies, events, requests and notices; and its errors.

Pure, and free of SQLAlchemy: the milter builds a Transaction while a message passes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from undisclosed.addresses import Address
from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.incidents.automatic import Automatic
from undisclosed.policy import Action

MERGE_WITHIN: Final = timedelta(hours=1)
"""Transactions with the same identity are one incident within this time of the first, if they have a Message-ID."""

MAX_TRANSFER: Final = timedelta(hours=1)
"""The time that a client may take to send a message: Postfix's arrival time can be that much before the record."""

CLOCK_ERROR: Final = timedelta(seconds=5)
"""The time that the record may be before Postfix's arrival time: they are rounded differently."""

REDIRECTED: Final = "redirected"
"""The event of a copy whose release goes to another address than its recipients' (Postfix's REDIRECT)."""

STEWARD: Final = "steward"
"""The actor of requests that the steward makes for a rule."""

ADOPTED: Final = "held mail without a record"
"""The reason why adopted mail is held, and why it waits for a person."""

MAX_TEXT: Final = 998
"""Characters kept of any text from a message (a line of a message has at most 998, RFC 5322 section 2.1.1)."""

Treatment = Literal["hold", "reject", "rewrite", "warn", "monitor"]
Verb = Literal["release", "delete"]
ReleaseMode = Literal["bcc", "split", "unchanged"]
"""bcc: recipients hidden. split: a message of its own for each external recipient. unchanged: as it was sent."""
RequestState = Literal["open", "taken", "done", "refused", "failed", "withdrawn"]
"""taken: the steward of the copy's gateway carries it out. withdrawn: the steward's own, when a person asked."""
NoticeState = Literal["due", "sent", "suppressed"]
Addressee = Literal["sender", "administrator"]
NoticeKind = Literal[
    "held",
    "delayed",
    "rewritten",
    "split",
    "warned",
    "reminder",
    "expired",
    "kept",
    "released",
    "released_by_hand",
    "deleted",
    "gone",
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


class State(StrEnum):
    """The state of one copy of a message."""

    PENDING = "pending"
    """To be held: the steward has not seen it in the hold queue yet."""
    HELD = "held"
    NEVER_QUEUED = "never queued"
    """The client disconnected or got a temporary failure: Postfix does not have it."""
    DELIVERED = "handed to Postfix"
    """Accepted, rewritten or with a warning to its sender."""
    REJECTED = "rejected"
    RELEASING = "releasing"
    RELEASED = "released"
    DELETED = "deleted"
    EXPIRED = "expired"
    RELEASED_BY_HAND = "released by hand"
    DELETED_BY_HAND = "deleted by hand"
    GONE = "gone"
    """Not in Postfix's queue any more, and nothing says whether it was released or deleted."""
    MONITORED = "monitored"
    """Delivered unchanged: monitor mode only records."""


OPEN: Final = frozenset({State.PENDING, State.HELD, State.RELEASING})
"""States of a copy that is not dealt with yet: every other state is final."""

LEFT: Final = frozenset(
    {State.RELEASED, State.DELETED, State.EXPIRED, State.RELEASED_BY_HAND, State.DELETED_BY_HAND, State.GONE}
)
"""States of a copy that was held, and is not any more."""

BY_FINALITY: Final = (
    State.PENDING,
    State.HELD,
    State.RELEASING,
    State.RELEASED,
    State.RELEASED_BY_HAND,
    State.GONE,
    State.DELIVERED,
    State.MONITORED,
    State.REJECTED,
    State.EXPIRED,
    State.DELETED,
    State.DELETED_BY_HAND,
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
    identity: str
    """Tells messages apart: decision.reference."""
    gateway: str
    """The gateway's id."""
    queue_id: str
    message_id: str | None
    sender: str
    """The envelope sender; empty for the null sender."""
    author: str | None
    """The one internal address in From; None if there is none, or several."""
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
    recipients_hash: str
    """A keyed hash of the envelope recipients."""
    subject: str | None
    automatic: Automatic | None
    """None: a person may read an answer."""
    at: datetime
    """UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrecordedMail:
    """A held message without a record in the journal, as the steward found it in the hold queue."""

    reference: str
    identity: str
    gateway: str
    queue_id: str
    message_id: str | None
    sender: str
    author: str | None
    recipients: int
    recipients_hash: str
    arrived: datetime
    """UTC."""
    size: int
    """Bytes of the held message."""
    subject: str | None
    automatic: Automatic | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCopy:
    """One transaction of an incident: one queue file of one gateway, held or not.

    Rule, action and all that follows from them belong to the copy: the same message can come again under another rule.
    """

    id: int
    incident_id: int
    gateway: str
    """The gateway's id."""
    queue_id: str
    message_id: str
    """Empty if it has none."""
    client: str | None
    recipients: int
    recipients_hash: str
    rule: str
    """The rule's name; empty for adopted mail that no rule holds."""
    action: Action
    reason: str
    obstacle: str | None = None
    obstacle_kind: ObstacleKind | None = None
    adopted: bool = False
    """Whether the steward found it in the hold queue, and the milter has not recorded it."""
    state: State
    arrived: datetime
    size: int | None = None
    """Bytes of the held message; None until the steward has seen it."""
    until: datetime | None = None
    """The time of expiry; None if it is not held."""
    leaves: datetime | None = None
    """The time at which the steward releases a delayed copy by itself; None if it does not."""
    waits: str | None = None
    """The reason why the steward must not act alone on it: it waits for a person. None: the steward may act."""
    confirmed: bool = False
    """Whether Postfix is known to have queued a message that was delivered at once: a milter behind ours may still
    refuse it."""
    body_hash: str | None = None
    """A keyed hash of all that is sent, without Received fields; None until the steward has read it."""
    repeat_of: int | None = None
    """The id of the first copy with the same recipients and the same body_hash."""
    seen_seconds: float = 0.0
    """Seconds of monotonic time for which stewards saw it held."""
    seen_at_reminder: float | None = None
    """The value of seen_seconds when a reminder was accepted; None: not yet."""
    seen_at_until: float | None = None
    """The value of seen_seconds when a round first found the wall clock past `until`; None: not yet."""

    @property
    def is_open(self) -> bool:
        """Whether it is not dealt with yet."""
        return self.state in OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A message on which a rule acted, with all its transactions."""

    id: int
    reference: str
    identity: str
    at: datetime
    """The time of the first transaction."""
    sender: str
    author: str | None
    login: str
    message_id: str | None
    count: int
    organisations: int
    named: int
    per_field: Mapping[str, int]
    subject: str | None
    automatic: Automatic | None
    copies: tuple[QueueCopy, ...] = ()

    @property
    def state(self) -> State:
        """The least final state of its copies."""
        return least_final(copy.state for copy in self.copies)

    @property
    def leading(self) -> QueueCopy:
        """The copy that lists show for the incident: of those in its least final state, the newest."""
        state = self.state
        return next(copy for copy in reversed(self.copies) if copy.state is state)

    @property
    def adopted(self) -> bool:
        """Whether the milter has recorded none of its copies."""
        return all(copy.adopted for copy in self.copies)

    @property
    def recipients(self) -> int:
        """The number of envelope recipients; those of a transaction that a client repeated are counted once."""
        return sum({copy.recipients_hash: copy.recipients for copy in self.copies}.values())

    def narrowed_to(self, copy_ids: Collection[int]) -> Incident:
        """The incident with only these of its copies: all that is derived from copies is then that of these."""
        return replace(self, copies=tuple(copy for copy in self.copies if copy.id in copy_ids))


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
    """A request to release or delete one held copy. The steward checks it against the policy before it acts."""

    id: int
    incident_id: int
    copy_id: int
    verb: Verb
    mode: ReleaseMode | None
    """None to delete."""
    actor: str
    reason: str
    state: RequestState
    answer: str | None
    """The steward's answer in words; None while there is none."""
    at: datetime
    not_before: datetime | None
    """The earliest time to carry it out; None: at once."""
    taken_by: str | None = None
    """The id of the gateway whose steward carries it out, or has."""
    taken_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRecord:
    """A gateway that uses this journal."""

    id: str
    name: str
    """Its host's name, for people."""
    seen_at: datetime | None
    """The last time at which its steward made a round; None: never."""


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
    """A message to the sender or the administrator about some copies of an incident."""

    id: int
    incident_id: int
    kind: NoticeKind
    state: NoticeState
    due: datetime
    sent_at: datetime | None
    addressee: Addressee | None = None
    """None until it is known."""
    sent_in: str | None = None
    """The Message-ID of the message that told it; several notices can be told in one."""
    copies: tuple[int, ...] = ()
    """The ids of the copies that it tells of."""


@dataclass(frozen=True, slots=True)
class SentNotice:
    """A message that was sent to the sender of an incident; it told of one notice or of several."""

    message_id: str
    at: datetime
    incident_id: int
    """One of its incidents: all have the same addressee."""


def is_same_file(recorded: datetime, arrived: datetime) -> bool:
    """Whether a copy that was recorded then can be of a queue file with this arrival time: queue ids are used again."""
    return -CLOCK_ERROR <= recorded - arrived <= MAX_TRANSFER


def clean(text: str) -> str:
    """The text without NUL and bytes that are not UTF-8, which databases refuse; at most MAX_TEXT characters."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else _UNCLEAN.sub("\ufffd", text)


_UNCLEAN: Final = re.compile("[\0\ud800-\udfff]")
