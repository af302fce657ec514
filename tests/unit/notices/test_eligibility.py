"""The time at which a notice is true, and what notices.after silences."""

from __future__ import annotations

import pytest

from support.factories import policy
from support.notice_factories import STATES, copy, facts, incident
from undisclosed.incidents.records import NoticeKind, State
from undisclosed.notices.eligibility import NEWS, Timeliness, timeliness, why_suppressed
from undisclosed.notices.templates import KINDS
from undisclosed.policy import Action

ALWAYS_TOLD: list[NoticeKind] = ["held", "delayed", "reminder", "kept", "released_by_hand", "gone"]


def test_every_kind_is_news_or_always_told() -> None:
    """A new kind has to be put in one of them."""
    assert {*NEWS, *ALWAYS_TOLD} == set(KINDS)
    assert not NEWS & set(ALWAYS_TOLD)


@pytest.mark.parametrize("kind", KINDS)
def test_notices_after_silences_news_only(kind: NoticeKind) -> None:
    """Never the first notice and the reminder about a hold, nor that nobody's hold is what the sender believes."""
    silent = policy(notices={"after": []})
    expected = None if kind in ALWAYS_TOLD else "notices.after does not name quarantine"
    assert why_suppressed(silent, facts(incident(STATES[kind]), kind)) == expected
    assert why_suppressed(policy(), facts(incident(STATES[kind]), kind)) is None


def test_the_action_of_the_copies_counts() -> None:
    """The same message may have met another action before."""
    own = policy(notices={"after": ["warn"]})
    warned = incident(copies=(copy(State.DELIVERED, action=Action.WARN),))
    assert why_suppressed(own, facts(warned, "warned")) is None
    assert why_suppressed(own, facts(incident(State.DELIVERED, action=Action.REWRITE), "rewritten")) == (
        "notices.after does not name rewrite"
    )


def test_in_monitor_mode_nobody_is_told() -> None:
    """Nothing was done to the message."""
    about = incident(State.MONITORED)
    assert why_suppressed(policy(), facts(about, "held")) == "in monitor mode nothing was done to the message"


@pytest.mark.parametrize(("modes", "is_told"), [({"split"}, True), (set(), True), ({"bcc"}, False)])
def test_split_is_told_only_if_it_was_split(modes: set[str], is_told: bool) -> None:
    """A person may have released the message in another way: `released` says so."""
    about = facts(incident(State.RELEASED, action=Action.SPLIT), "split", release_modes=frozenset(modes))
    assert (why_suppressed(policy(), about) is None) is is_told


@pytest.mark.parametrize("kind", KINDS)
def test_a_notice_is_sent_only_while_it_is_true(kind: NoticeKind) -> None:
    """In its own state: now; while pending: not yet; for a message that was never queued: never."""
    assert timeliness(facts(incident(STATES[kind]), kind)) is Timeliness.NOW
    assert timeliness(facts(incident(State.PENDING), kind)) is Timeliness.NOT_YET
    for state in (State.NEVER_QUEUED, State.REJECTED, State.MONITORED):
        assert timeliness(facts(incident(state), kind)) is Timeliness.TOO_LATE


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("held", State.RELEASED, Timeliness.TOO_LATE),
        ("held", State.DELETED, Timeliness.TOO_LATE),
        ("reminder", State.RELEASING, Timeliness.NOW),
        ("kept", State.RELEASING, Timeliness.NOW),
        ("reminder", State.EXPIRED, Timeliness.TOO_LATE),
        ("released", State.HELD, Timeliness.NOT_YET),
        ("released", State.RELEASING, Timeliness.NOT_YET),
        ("released", State.RELEASED_BY_HAND, Timeliness.TOO_LATE),
        ("released_by_hand", State.RELEASED, Timeliness.TOO_LATE),
        ("released", State.DELETED, Timeliness.TOO_LATE),
        ("deleted", State.DELETED_BY_HAND, Timeliness.NOW),
        ("split", State.HELD, Timeliness.NOT_YET),
        ("expired", State.RELEASED, Timeliness.TOO_LATE),
    ],
)
def test_a_notice_after_a_later_change(kind: NoticeKind, state: State, expected: Timeliness) -> None:
    """`held` is too late for a message that is gone; `released` waits for the release."""
    assert timeliness(facts(incident(state), kind)) is expected


def test_only_the_copies_that_it_tells_of_count() -> None:
    """Another copy of the message, which came later, does not keep a notice waiting."""
    released, held = copy(State.RELEASED), copy(id=2)
    about = incident(copies=(released, held))
    assert timeliness(facts(about, "released", copies=(released,))) is Timeliness.NOW
    assert timeliness(facts(about, "released")) is Timeliness.NOT_YET
