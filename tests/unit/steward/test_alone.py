"""Whether the steward may act alone on a copy: by the log, or by Postfix's configuration."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from support.factories import policy
from support.request_factories import COPY, NOW
from undisclosed.incidents.records import State
from undisclosed.policy import Action
from undisclosed.postfix.log_events import LogEvents, LogLine
from undisclosed.steward.alone import BY_HAND, BY_OTHERS, Answer, by_configuration, by_log, is_due, wants_release

HELD = ("cleanup", f"{COPY.queue_id}: milter-hold: END-OF-MESSAGE from x[192.0.2.1]: reason; x")
BY_ID = ("postsuper", f"{COPY.queue_id}: placed on hold")
OF_ALL = ("postsuper", "Placed on hold: 0 messages")


def events(*lines: tuple[str, str]) -> LogEvents:
    """The events in these lines."""
    found = LogEvents()
    found.add(LogLine("postfix", program, "1", text) for program, text in lines)
    return found


@pytest.mark.parametrize(
    ("lines", "is_overdue", "expected"),
    [
        ([HELD], False, Answer.ALONE),
        ([HELD], True, Answer.ALONE),
        ([], False, Answer.LATER),
        ([], True, BY_OTHERS),
        ([HELD, BY_ID], False, BY_HAND),
        ([HELD, OF_ALL], False, BY_HAND),
        ([OF_ALL, HELD], False, Answer.ALONE),
        ([BY_ID], True, BY_OTHERS),
    ],
)
def test_the_log_decides(lines: list[tuple[str, str]], is_overdue: bool, expected: Answer | str) -> None:
    """The milter's line and no hold by hand behind it. A line that is missing may come late."""
    assert by_log(events(*lines), COPY, is_overdue=is_overdue) == expected


def test_without_a_log_the_configuration_decides() -> None:
    """Anything else that can hold makes the copy wait, by name."""
    assert by_configuration("no such file", []) is Answer.ALONE
    why = by_configuration("no such file", ["hash:/etc/postfix/access", "inet:localhost:8891"])
    assert why == (
        "the mail log cannot be read (no such file), and these can put mail on hold too:"
        " hash:/etc/postfix/access, inet:localhost:8891"
    )


@pytest.mark.parametrize("action", Action)
def test_only_split_and_delay_are_released_by_the_steward(action: Action) -> None:
    """And none that waits for a person."""
    copy = replace(COPY, action=action)
    assert wants_release(copy) == (action in (Action.SPLIT, Action.DELAY))
    assert not wants_release(replace(copy, waits="held mail without a record"))


def test_a_release_is_due_by_its_time_and_by_the_policy() -> None:
    """A delay that was made shorter by a reload: the request may be carried out at once, so the log is asked."""
    delayed = replace(COPY, action=Action.DELAY, arrived=NOW, leaves=NOW + timedelta(hours=1))
    short, long = policy(hold={"delay": "1m"}), policy(hold={"delay": "2h"})
    at = NOW + timedelta(minutes=30)
    assert (is_due(short, delayed, at), is_due(long, delayed, at)) == (True, False)
    assert is_due(long, delayed, NOW + timedelta(hours=1))
    assert is_due(long, replace(COPY, action=Action.SPLIT), NOW)
    assert not is_due(long, replace(COPY, action=Action.SPLIT, state=State.PENDING), NOW)
