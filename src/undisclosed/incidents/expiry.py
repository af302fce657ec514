"""When held mail expires. Deleting cannot be undone, so no single outside fact causes it, least of all the clock.

A copy expires if all of this holds:

- A reminder that names the day was accepted by sendmail(1), and not more than two days before that day.
- Stewards have seen the copy held for 24 hours since.
- The wall clock was past `until` in two rounds that are an hour apart.

The hours are those of the monotonic clock, kept in the journal as seconds seen: a restart loses nothing, and a wall
clock that jumps adds nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Self

from undisclosed.incidents.records import NoticeKind, NoticeState, QueueCopy

REMINDER: Final = timedelta(days=1)
"""The time before `until` at which the reminder is due."""

COUNTS: Final = timedelta(days=2)
"""The time before `until` from which on a reminder counts: one that was sent earlier is forgotten by then."""

AHEAD: Final = timedelta(days=1)
"""A reminder sent so much later than now was sent by a clock that was wrong: nobody knows when. With a clock that is
less ahead it was sent at most two days before `until`."""

AFTER_REMINDER: Final = 24 * 3600.0
"""Seconds for which the copy must be seen held after its reminder."""

APART: Final = 3600.0
"""Seconds between the two rounds that find the wall clock past `until`."""

MAX_ROUND: Final = 60.0
"""Seconds that one round adds at most: a steward that stood still, or was suspended, has seen nothing meanwhile."""


class Told(NamedTuple):
    """A notice about a copy."""

    state: NoticeState
    sent_at: datetime | None
    kind: NoticeKind = "reminder"


@dataclass(frozen=True, slots=True)
class Seen:
    """How long stewards saw a copy held, in seconds, and how long until two things were so. See `QueueCopy`."""

    seconds: float
    at_reminder: float | None
    at_until: float | None

    @classmethod
    def of(cls, copy: QueueCopy) -> Self:
        """The values that the journal has of a copy."""
        return cls(copy.seen_seconds, copy.seen_at_reminder, copy.seen_at_until)

    @property
    def marks(self) -> tuple[float | None, float | None]:
        """The two times of which the seconds are counted."""
        return self.at_reminder, self.at_until

    @property
    def is_past_until(self) -> bool:
        """Whether two rounds an hour apart found the wall clock past `until`."""
        return self.at_until is not None and self.seconds - self.at_until >= APART

    @property
    def is_over(self) -> bool:
        """Whether the copy expires now."""
        is_warned = self.at_reminder is not None and self.seconds - self.at_reminder >= AFTER_REMINDER
        return is_warned and self.is_past_until


def is_near(until: datetime, now: datetime) -> bool:
    """Whether the end of a hold is so near that its copy must be watched."""
    return now >= until - COUNTS


def seen(before: Seen, until: datetime, *, now: datetime, elapsed: float, is_reminded: bool) -> Seen:
    """The same after a round that sees the copy held. `elapsed`: the seconds that are not in `before` yet."""
    seconds = before.seconds + elapsed
    is_reminded = is_reminded and is_near(until, now)
    return Seen(
        seconds,
        (before.at_reminder if before.at_reminder is not None else seconds) if is_reminded else None,
        (before.at_until if before.at_until is not None else seconds) if now >= until else None,
    )


def day_named(until: datetime, now: datetime) -> datetime:
    """The day that a notice of now names as the end of a hold: it cannot be sooner than a day after a reminder."""
    return max(until, now + REMINDER)


def reminders(expire_days: int) -> Collection[NoticeKind]:
    """The kinds of notices that count as a reminder. A message held for a day has its first notice a day before."""
    first: tuple[NoticeKind, ...] = ("held",) if timedelta(days=expire_days) <= REMINDER else ()
    return ("reminder", *first)


def not_taken_back(notices: Collection[Told]) -> list[Told]:
    """The notices that still hold: one that said that the message is kept takes back every deletion announced before.

    Else a reload from `on_expiry = "keep"` to "delete" would delete at once what its sender was told is kept.
    """
    kept_at = max((told.sent_at for told in notices if told.kind == "kept" and told.sent_at is not None), default=None)
    return [
        told
        for told in notices
        if told.kind != "kept" and (kept_at is None or told.sent_at is None or told.sent_at > kept_at)
    ]


def is_reminded(notices: Collection[Told], until: datetime, now: datetime) -> bool:
    """Whether one of these notices about a copy was sent at a time at which it counts as its reminder."""
    return any(
        notice.state == "sent" and notice.sent_at is not None and until - COUNTS <= notice.sent_at <= now + AHEAD
        for notice in notices
    )


def owes_reminder(notices: Collection[Told], until: datetime, now: datetime) -> bool:
    """Whether a reminder is to be added: it is time, none of these counts, and all of them were sent.

    One that was suppressed is not added again: whoever it was for cannot be told, and the copy does not expire.
    """
    if now < until - REMINDER or is_reminded(notices, until, now):
        return False
    return all(notice.state == "sent" for notice in notices)
