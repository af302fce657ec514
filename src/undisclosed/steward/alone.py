"""Whether the steward may release a copy by itself (`split`, `delay`): only if nothing but our milter put it on hold.

With a log: cleanup(8) wrote that a milter put it on hold, which it does only if nothing else did before, and nobody has
placed mail on hold by hand since. Without one: Postfix's configuration names nothing else that can hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from enum import Enum
from typing import Final

import structlog

from undisclosed.incidents.records import QueueCopy, State
from undisclosed.policy import Policy
from undisclosed.postfix import PostfixError, other_holders
from undisclosed.postfix.log_events import LogEvents
from undisclosed.steward import authorize
from undisclosed.steward.hold_queue import HoldQueue
from undisclosed.steward.log_reader import DEADLINE, LogReader, LogState

HOLDERS_AGAIN: Final = 60.0
"""Seconds after which Postfix's configuration is read again."""

BY_HAND: Final = "mail was placed on hold by hand (postsuper -h) after it had arrived"
BY_OTHERS: Final = (
    "the mail log does not have `milter-hold` for it: something beside the milter put it on hold (an access table,"
    " header_checks, a policy service, another milter)"
)
"""Reasons why a copy waits for a person. The second one no longer holds when the line comes after all."""


class Answer(Enum):
    """The answers that are no reason to wait for a person."""

    ALONE = "alone"
    """The steward may act."""
    LATER = "later"
    """Not known yet."""


def by_log(events: LogEvents, copy: QueueCopy, *, is_overdue: bool) -> Answer | str:
    """The answer of a log that was read to its end; a text is the reason why the copy waits for a person.

    `is_overdue`: the line about it had time to appear.
    """
    if not events.is_held_by_milter(copy.queue_id):
        return BY_OTHERS if is_overdue else Answer.LATER
    return BY_HAND if events.is_placed_since(copy.queue_id) else Answer.ALONE


def by_configuration(why_unreadable: str, holders: Collection[str]) -> Answer | str:
    """The answer where no log can be read."""
    if not holders:
        return Answer.ALONE
    return f"the mail log cannot be read ({why_unreadable}), and these can put mail on hold too: {', '.join(holders)}"


def wants_release(copy: QueueCopy) -> bool:
    """Whether the steward is to release a copy by itself."""
    return copy.action.effect.release_mode is not None and copy.waits is None


def is_due(policy: Policy, copy: QueueCopy, now: datetime) -> bool:
    """Whether the steward is to release a held copy by itself now. A delay may have become shorter since it came."""
    times = filter(None, (copy.leaves, authorize.release_time(policy, copy)))
    return copy.state is State.HELD and wants_release(copy) and min(times, default=now) <= now


class Alone:
    """Gives the answers of a round. Remembers since when it has looked for the line about a copy."""

    def __init__(
        self, queue: HoldQueue, log: structlog.BoundLogger, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self.reader = LogReader(queue, log, monotonic)
        self._looked_since: dict[int, float] = {}
        self._state = LogState.LATE
        self._holders: list[str] = []
        self._holders_read_at: float | None = None

    def begin_round(self, policy: Policy, copies: Iterable[QueueCopy], now: datetime) -> None:
        """Read the log. `copies`: all open ones of this gateway, and others whose lines matter."""
        known = list(copies)
        self._looked_since = {copy.id: self._looked_since[copy.id] for copy in known if copy.id in self._looked_since}
        self.reader.read(policy.postfix.config_dir, {copy.queue_id for copy in known})
        pending = any(copy.state is State.PENDING and wants_release(copy) for copy in known)
        is_asked = not self.reader.is_found or pending or any(is_due(policy, copy, now) for copy in known)
        self._state = self.reader.state() if is_asked else LogState.LATE

    def answer(self, policy: Policy, copy: QueueCopy) -> Answer | str:
        """Whether the steward may release this copy now, if its time has come."""
        since = self._looked_since.setdefault(copy.id, self._monotonic())
        match self._state:
            case LogState.LATE:
                return Answer.LATER
            case LogState.CURRENT:
                is_overdue = self._monotonic() - since >= DEADLINE
                return by_log(self.reader.events, copy, is_overdue=is_overdue)
            case LogState.UNREADABLE:
                return by_configuration(self.reader.why_unreadable or "", self._other_holders(policy))

    def is_by_hand(self, copy: QueueCopy) -> bool:
        """Whether somebody has placed mail on hold since this copy came, as far as the log is read."""
        events = self.reader.events
        return events.is_held_by_milter(copy.queue_id) and events.is_placed_since(copy.queue_id)

    def has_line_now(self, copy: QueueCopy) -> bool:
        """Whether the line about a copy that waits for the lack of it has come after all."""
        is_milters = self.reader.events.is_held_by_milter(copy.queue_id) and not self.is_by_hand(copy)
        return copy.waits == BY_OTHERS and is_milters

    def _other_holders(self, policy: Policy) -> list[str]:
        now = self._monotonic()
        if self._holders_read_at is None or now - self._holders_read_at >= HOLDERS_AGAIN:
            try:
                self._holders = other_holders(policy)
            except PostfixError as error:
                self._holders = [f"Postfix's configuration, which cannot be read ({error})"]
            self._holders_read_at = now
        return self._holders
