"""The notices that are true now, and those that the policy silences."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from undisclosed.incidents.records import NoticeKind, State, least_final
from undisclosed.notices.variables import Facts
from undisclosed.policy import Policy

NEWS: Final[frozenset[NoticeKind]] = frozenset({"rewritten", "warned", "split", "released", "deleted", "expired"})
"""The kinds that `notices.after` silences. That a message is on hold, when it will be deleted, and that it left the
hold queue with its addresses visible is always told: nobody else would tell the sender."""


ENDS_OF_HOLD: Final[frozenset[NoticeKind]] = frozenset({"released", "deleted", "expired"})
"""News of a message on hold. It is told in any case where it ended before anybody was told that it is on hold: the
first notice is not true any more then."""


def why_suppressed(policy: Policy, facts: Facts) -> str | None:
    """The reason why nobody is told; None if there is none."""
    if all(copy.state is State.MONITORED for copy in facts.copies):
        return "in monitor mode nothing was done to the message"
    actions = sorted({copy.action for copy in facts.copies})
    is_first = facts.kind in ENDS_OF_HOLD and not facts.is_told
    if facts.kind in NEWS and not is_first and not set(actions) & set(policy.notices.after):
        return f"notices.after does not name {' or '.join(actions)}"
    if facts.kind == "split" and _is_released(facts) and facts.release_modes - {"split"}:
        return "a person released the message in another way"
    return None


class Timeliness(Enum):
    """Whether the text of a notice is true now."""

    NOT_YET = "not yet"
    NOW = "now"
    TOO_LATE = "too late"


_HELD: Final = frozenset({State.HELD, State.RELEASING})
"""Notices are sent after the releases of a round: one that is not finished then has stopped, and its message is still
on hold for the recipients who do not have it."""
_RELEASED: Final = frozenset({State.RELEASED})
_TRUE_IN: Final[Mapping[NoticeKind, frozenset[State]]] = {
    "held": _HELD,
    "delayed": _HELD,
    "rewritten": frozenset({State.DELIVERED}),
    "split": _RELEASED,
    "warned": frozenset({State.DELIVERED}),
    "reminder": _HELD,
    "expired": frozenset({State.EXPIRED}),
    "kept": _HELD,
    "released": _RELEASED,
    "released_by_hand": frozenset({State.RELEASED_BY_HAND}),
    "deleted": frozenset({State.DELETED, State.DELETED_BY_HAND}),
    "gone": frozenset({State.GONE}),
}
"""The states of its copies in which each kind of notice is true."""

_CAN_BECOME_TRUE_IN: Final[Mapping[NoticeKind, frozenset[State]]] = {
    **dict.fromkeys(("held", "delayed", "rewritten", "warned", "reminder", "kept"), frozenset({State.PENDING})),
    **dict.fromkeys(
        ("split", "expired", "released", "released_by_hand", "deleted", "gone"), frozenset({State.PENDING}) | _HELD
    ),
}
"""The states from which it can still become true. From all other states it cannot: the notice is suppressed."""


def state_of(facts: Facts) -> State:
    """The least final state of the copies that a notice tells of."""
    return least_final(copy.state for copy in facts.copies)


def timeliness(facts: Facts) -> Timeliness:
    """Whether a notice is true in the state of its copies: only then it is sent."""
    state = state_of(facts)
    if state in _TRUE_IN[facts.kind]:
        return Timeliness.NOW
    return Timeliness.NOT_YET if state in _CAN_BECOME_TRUE_IN[facts.kind] else Timeliness.TOO_LATE


def _is_released(facts: Facts) -> bool:
    return state_of(facts) in _RELEASED
