"""shown.py: who saw the list, for every state of a copy, and for several copies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from undisclosed.incidents.records import AcceptedPart, QueueCopy, ReleaseMode, State, parts_for
from undisclosed.incidents.shown import shown
from undisclosed.policy import Action

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def copy(number: int = 1, **over: Any) -> QueueCopy:
    """A copy of a message to 15 recipients."""
    fields: dict[str, Any] = {
        "id": number,
        "incident_id": 1,
        "gateway": "mx1",
        "queue_id": f"4dX1c23kLmz{number:02}",
        "message_id": "<1@x>",
        "client": None,
        "recipients": 15,
        "recipients_hash": "1f" * 16,
        "rule": "too many in sight",
        "action": Action.QUARANTINE,
        "reason": "",
        "state": State.HELD,
        "arrived": NOON,
    }
    return QueueCopy(**{**fields, **over})


def parts(mode: ReleaseMode, served: int, total: int = 15) -> set[AcceptedPart]:
    """The parts of a release that went to the first of the recipients."""
    return set(parts_for(mode, range(served), total))


@pytest.mark.parametrize(
    ("state", "action", "accepted", "expected"),
    [
        (State.DELIVERED, Action.WARN, (), (15, "shown to its 15 recipients")),
        (State.DELIVERED, Action.REWRITE, (), (0, "hidden from its 15 recipients")),
        (State.MONITORED, Action.REJECT, (), (15, "shown to its 15 recipients")),
        (State.REJECTED, Action.REJECT, (), (0, "nobody received it")),
        (State.NEVER_QUEUED, Action.QUARANTINE, (), (0, "nobody received it")),
        (State.PENDING, Action.DELAY, (), (0, "nobody has received it yet")),
        (State.HELD, Action.QUARANTINE, (), (0, "nobody has received it yet")),
        (State.RELEASING, Action.QUARANTINE, parts("unchanged", 12), (12, "shown to 12 of its 15 recipients")),
        (State.RELEASING, Action.SPLIT, parts("split", 3), (0, "hidden from 3 of its 15 recipients")),
        (State.RELEASED, Action.QUARANTINE, parts("unchanged", 15), (15, "shown to its 15 recipients")),
        (State.RELEASED, Action.QUARANTINE, parts("bcc", 15), (0, "hidden from its 15 recipients")),
        (State.RELEASED, Action.SPLIT, parts("split", 17, total=17), (0, "hidden from its 15 recipients")),
        (State.DELETED, Action.QUARANTINE, (), (0, "nobody received it")),
        (State.DELETED, Action.QUARANTINE, parts("unchanged", 2), (2, "shown to 2 of its 15 recipients")),
        (State.EXPIRED, Action.QUARANTINE, (), (0, "nobody received it")),
        (State.DELETED_BY_HAND, Action.QUARANTINE, (), (0, "nobody received it")),
        (State.RELEASED_BY_HAND, Action.QUARANTINE, (), (15, "shown to its 15 recipients")),
    ],
)  # fmt: skip
def test_the_recipients_who_saw_the_list(
    state: State, action: Action, accepted: set[AcceptedPart], expected: tuple[int, str]
) -> None:
    """By state, action, and what Postfix has accepted of a release (users' walk, 7)."""
    assert shown([copy(state=state, action=action)], {1: accepted}) == expected


@pytest.mark.parametrize("state", [State.GONE, State.RELEASED])
def test_where_nothing_says_what_became_of_it_the_list_may_have_been_seen(state: State) -> None:
    """The number is that of the worst case, and the words say so."""
    number, words = shown([copy(state=state)], {})
    assert (number, words) == (15, "perhaps shown to its 15 recipients: nothing says what became of it")


def test_the_copies_of_a_message_are_added_and_repeats_are_not() -> None:
    """Two parts of one list, one of them sent twice: the repeat has the same recipients."""
    copies = [
        copy(1, state=State.RELEASED),
        copy(2, state=State.RELEASED, recipients=5),
        copy(3, state=State.RELEASED_BY_HAND, recipients=5, repeat_of=2),
    ]
    accepted = {1: parts("bcc", 15), 2: parts("bcc", 5, total=5)}
    assert shown(copies, accepted) == (5, "shown to 5 of its 20 recipients")


def test_one_recipient_is_one() -> None:
    """Grammar for the record of a message to one person."""
    assert shown([copy(state=State.MONITORED, recipients=1)], {}).words == "shown to its recipient"
