"""The first look at a held message: whether it can be released, and whether its recipients can be hidden.

The steward looks before it records the message as held: the first notice offers no choice that would be refused.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import structlog

from undisclosed.decision.obstacles import Obstacle
from undisclosed.decision.queue_file import QueueFileError
from undisclosed.incidents.records import QueueCopy
from undisclosed.policy import Policy
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, RootHalfGoneError
from undisclosed.steward.release_check import ReleaseCheck
from undisclosed.steward.release_parts import HeldMessage, why_not_hidden

UNDECIDED: Final = Obstacle("it could not be examined")


class Findings(NamedTuple):
    """The findings about a held message."""

    refusal: str | None = None
    """The reason why no release is possible; None if one is."""
    obstacle: Obstacle | None = None
    """The reason why only a release as unchanged is possible."""


NOTHING: Final = Findings()


class FirstLook:
    """Reads held messages."""

    def __init__(self, queue: HoldQueue, log: structlog.BoundLogger) -> None:
        self._queue = queue
        self._log = log
        self._check = ReleaseCheck()

    def begin_round(self) -> None:
        """Read the configuration of Postfix again when it is needed."""
        self._check.forget()

    def look(self, policy: Policy, copy: QueueCopy, *, is_searched: bool) -> Findings:
        """Look at one message. `is_searched`: the milter has searched it for obstacles; only its envelope is read."""
        try:
            if is_searched:
                queued = self._queue.read_beginnings([copy.queue_id], 0)[copy.queue_id]
            else:
                queued = self._queue.read([copy.queue_id])[copy.queue_id]
        except RootHalfGoneError:
            raise
        except HoldQueueError:
            return NOTHING  # it is gone since the listing: the next round finds that
        except QueueFileError as error:
            return Findings(f"it cannot be read ({error}): it can only be deleted")
        if (refusal := self._check.why_not_released(policy, queued)) is not None:
            return Findings(refusal)
        if is_searched:
            return NOTHING
        try:
            return Findings(obstacle=why_not_hidden(policy, HeldMessage.read(queued), copy.rule))
        except Exception as error:  # noqa: BLE001 - a message of anybody's would stop all releases, round after round
            reason = f"{type(error).__name__}: {error}"
            self._log.error("examination_failed", queue_id=copy.queue_id, reason=reason, exc_info=error)
            return Findings(obstacle=UNDECIDED)
