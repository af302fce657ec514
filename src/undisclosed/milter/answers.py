"""The six answers of a session to an event of the milter protocol. `callbacks.py` translates them for libmilter."""

from __future__ import annotations

from dataclasses import dataclass

from undisclosed.decision.edits import Edit
from undisclosed.decision.reply import Reply


@dataclass(frozen=True, slots=True)
class Accept:
    """Deliver the message as it is; no further event of this message is needed."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on: the answer comes with a later event."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Send no more of the body."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse the message with this reply: 5xx for good, 4xx for now."""

    reply: Reply
    in_one_line: bool = False
    """Whether the client shows all lines as one, as sendmail(1) does in its bounce."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Deliver the message with these edits to its header."""

    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Put the message into the hold queue."""

    reason: str


Answer = Accept | Continue | Skip | Refuse | Rewrite | Hold
