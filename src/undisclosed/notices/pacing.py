"""How many notices one person gets: at most 20 an hour and one summary, and nothing is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, Protocol, TypeVar

MAX_NOTICES: Final = 20
"""Single notices to one person within `PERIOD`: a program that sends a list repeatedly must not fill a mailbox."""

PERIOD: Final = timedelta(hours=1)

GATHERING: Final = timedelta(minutes=5)
"""The time for which further notices are gathered before the summary: else it would tell of the 21st alone, and all
others would wait for an hour."""

LATE: Final = timedelta(days=1)
"""The age from which what is owed goes as one summary: the steward was away."""

TOO_LATE: Final = timedelta(days=14)
"""The age from which the administrator is told, and not the sender."""

DIGEST_PERIOD: Final = timedelta(days=1)
"""The time between two digests to the administrator."""


class Owed(Protocol):
    """A notice that is owed to a person."""

    @property
    def due(self) -> datetime:
        """The time since which it is owed."""


T = TypeVar("T", bound=Owed)


@dataclass(frozen=True, slots=True)
class Told:
    """A message that a person got within the last hour."""

    at: datetime
    is_summary: bool


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """The messages to send to one person now."""

    single: tuple[T, ...] = ()
    summary: tuple[T, ...] = ()
    """The notices that one summary tells together."""
    wait_until: datetime | None = None
    """The time to plan again what is in neither; None if nothing is left."""


def plan(owed: Sequence[T], told: Iterable[Told], now: datetime) -> Plan[T]:
    """The messages to send now of all that is owed to one person, the oldest first. The rest stays owed."""
    recent = [one for one in told if now - PERIOD < one.at <= now]
    may_sum_up = not any(one.is_summary for one in recent)
    late = [one for one in owed if now - one.due > LATE]
    new = [one for one in owed if now - one.due <= LATE]
    if len(late) == 1:  # a notice of its own says more than a summary
        late, new = [], [*late, *new]
    room = max(0, MAX_NOTICES - sum(not one.is_summary for one in recent))
    single, rest = tuple(new[:room]), new[room:]
    if may_sum_up and (late or (rest and now - rest[0].due >= GATHERING)):
        return Plan(single, (*late, *rest))
    if not (late or rest):
        return Plan(single)
    return Plan(single, wait_until=rest[0].due + GATHERING if may_sum_up else min(one.at for one in recent) + PERIOD)


def digest_is_due(last: datetime | None, now: datetime) -> bool:
    """Whether the administrator may get a digest. A last one in the future, by a wrong clock, counts for nothing."""
    return last is None or last > now or now - last >= DIGEST_PERIOD
