"""The senders that get a notice, and the time at which a notice is true."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from support.factories import policy
from support.notice_factories import SENT, STATES, copy, incident
from undisclosed.incidents.records import NoticeKind, State
from undisclosed.notices.eligibility import MAX_NOTICES, Timeliness, is_within_limit, timeliness, why_suppressed
from undisclosed.notices.templates import KINDS
from undisclosed.policy import Action

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ({}, None),
        ({"sender": "Clerk@Staff.Council.Test"}, None),
        ({"sender": '"the clerk"@council.test'}, None),
        ({"sender": "siân@council.test"}, None),
        ({"sender": ""}, "the null sender is never written to"),
        ({"automatic": True}, "the message was automatic or of a list"),
        ({"action": Action.REJECT}, "notices.after does not name reject"),
        ({"sender": "parent@family.test"}, "the sender is not of the organisation"),
        ({"sender": "officer@partner.test"}, "the sender is not of the organisation"),
        ({"sender": "clerk@council.test.example"}, "the sender is not of the organisation"),
        ({"sender": "clerk"}, "the envelope sender is no address that can be written to"),
        ({"sender": "a@family.test,b@council.test"}, "the envelope sender is no address that can be written to"),
        ({"sender": "-t@council.test"}, "the envelope sender is no address that can be written to"),
        ({"sender": "a@family.test b@council.test"}, "the envelope sender is no address that can be written to"),
        ({"sender": "@family.test:b@council.test"}, "the envelope sender is no address that can be written to"),
        ({"sender": '"a@family.test,b"@council.test'}, "the envelope sender is no address that can be written to"),
        ({"sender": "x" * 250 + "@council.test"}, "the envelope sender is no address that can be written to"),
        ({"copies": (copy(State.MONITORED),)}, "in monitor mode nothing was done to the message"),
    ],
)
def test_senders_who_get_no_notice(over: dict[str, Any], reason: str | None) -> None:
    """Outside senders, automatic messages, actions that notices.after leaves out: each with its reason."""
    own = policy(organisation={"partner_domains": ["partner.test"]})
    assert why_suppressed(own, incident(**over)) == reason


def test_notices_after() -> None:
    """Only the actions that it names cause a notice; it may be empty."""
    only = policy(notices={"after": ["warn"]})
    assert why_suppressed(only, incident(action=Action.WARN)) is None
    assert why_suppressed(only, incident(action=Action.QUARANTINE)) == "notices.after does not name quarantine"
    assert why_suppressed(policy(notices={"after": []}), incident()) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_notice_is_sent_only_while_it_is_true(kind: NoticeKind) -> None:
    """In its own state: now; while pending: not yet; for a message that was never queued: never."""
    assert timeliness(incident(STATES[kind]), kind) is Timeliness.NOW
    assert timeliness(incident(State.PENDING), kind) is Timeliness.NOT_YET
    for state in (State.NEVER_QUEUED, State.REJECTED, State.MONITORED):
        assert timeliness(incident(state), kind) is Timeliness.TOO_LATE


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("held", State.RELEASED, Timeliness.TOO_LATE),
        ("held", State.DELETED, Timeliness.TOO_LATE),
        ("reminder", State.RELEASING, Timeliness.NOT_YET),
        ("reminder", State.EXPIRED, Timeliness.TOO_LATE),
        ("released", State.HELD, Timeliness.NOT_YET),
        ("released", State.RELEASING, Timeliness.NOT_YET),
        ("released", State.RELEASED_BY_HAND, Timeliness.NOW),
        ("released", State.DELETED, Timeliness.TOO_LATE),
        ("split", State.HELD, Timeliness.NOT_YET),
        ("expired", State.RELEASED, Timeliness.TOO_LATE),
    ],
)
def test_a_notice_after_a_later_change(kind: NoticeKind, state: State, expected: Timeliness) -> None:
    """`held` is too late for a message that is gone; `released` waits for the release."""
    assert timeliness(incident(state), kind) is expected


def test_the_limit_for_one_sender() -> None:
    """Notices of the last hour count; older ones and those in the future do not."""
    times = [SENT - MINUTE * number for number in range(MAX_NOTICES)]
    assert not is_within_limit(times, SENT)
    assert is_within_limit(times[1:], SENT)
    assert is_within_limit(times, SENT + timedelta(minutes=61 - MAX_NOTICES))
    assert is_within_limit([SENT + MINUTE] * MAX_NOTICES, SENT)
