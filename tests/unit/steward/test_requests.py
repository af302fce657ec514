"""The next step for a request: carry it out, refuse it, wait or answer it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from support.factories import policy
from support.request_factories import COPY, INCIDENT, NOW, REQUEST
from undisclosed.incidents.records import STEWARD, Incident, QueueCopy, State
from undisclosed.policy import Action
from undisclosed.steward.comparison import SOON
from undisclosed.steward.context import Context
from undisclosed.steward.requests import Answered, CarryOut, RefuseRequest, RoundState, Wait, classify

CONTEXT = Context(policy(), b"key", "mx1")
AT = NOW + timedelta(minutes=10)


def incident(*copies: QueueCopy) -> Incident:
    """The incident with these copies."""
    return replace(INCIDENT, copies=copies)


def test_a_request_is_carried_out_on_its_copy() -> None:
    """On one that is held, or in release after an interruption; the other copies of the message stay."""
    second = replace(COPY, id=3, queue_id="4jXkbq5QPvzJ9sr", state=State.RELEASING)
    assert classify(CONTEXT, REQUEST, incident(COPY, second), RoundState(AT)) == CarryOut(COPY)
    assert classify(CONTEXT, replace(REQUEST, copy_id=3), incident(COPY, second), RoundState(AT)) == CarryOut(second)


def test_a_request_for_a_copy_that_is_dealt_with_only_has_to_be_answered() -> None:
    """Another request, or a person, was faster."""
    released = replace(COPY, state=State.RELEASED)
    assert classify(CONTEXT, REQUEST, incident(released), RoundState(AT)) == Answered(released)


def test_a_refused_request() -> None:
    """The reason comes from the policy or from the copy."""
    refused = classify(CONTEXT, replace(REQUEST, actor=""), INCIDENT, RoundState(AT))
    assert refused == RefuseRequest("the request names no actor")
    forged = incident(replace(COPY, queue_id="ALL"))
    assert classify(CONTEXT, REQUEST, forged, RoundState(AT)) == RefuseRequest("'ALL' is not a queue id")


def test_a_request_that_waits_for_its_time() -> None:
    """For `not_before`, and for the next attempt after a failure, whichever is later."""
    later, latest = AT + timedelta(minutes=1), AT + timedelta(minutes=2)
    timed = replace(REQUEST, not_before=later)
    assert classify(CONTEXT, timed, INCIDENT, RoundState(AT)) == Wait(later)
    assert classify(CONTEXT, timed, INCIDENT, RoundState(AT, {REQUEST.id: latest})) == Wait(latest)
    assert classify(CONTEXT, timed, INCIDENT, RoundState(later, {REQUEST.id: AT})) == CarryOut(COPY)


def test_a_request_waits_until_the_state_of_its_copy_is_known() -> None:
    """While the copy is pending, or was missing in the last listing."""
    assert classify(CONTEXT, REQUEST, incident(replace(COPY, state=State.PENDING)), RoundState(AT)) == Wait(AT + SOON)
    assert classify(CONTEXT, REQUEST, INCIDENT, RoundState(AT, missing={COPY.id})) == Wait(AT + SOON)


def test_the_stewards_own_release_needs_to_be_cleared() -> None:
    """DESIGN, what the steward does by itself: a person's request does not. One that has begun goes on."""
    delayed = replace(COPY, action=Action.DELAY, arrived=NOW - timedelta(hours=1))
    own = replace(REQUEST, actor=STEWARD)
    assert classify(CONTEXT, own, incident(delayed), RoundState(AT)) == Wait(AT + SOON)
    assert classify(CONTEXT, own, incident(delayed), RoundState(AT, cleared={COPY.id})) == CarryOut(delayed)
    assert classify(CONTEXT, REQUEST, incident(delayed), RoundState(AT)) == CarryOut(delayed)
    begun = replace(delayed, state=State.RELEASING)
    assert classify(CONTEXT, own, incident(begun), RoundState(AT)) == CarryOut(begun)


def test_a_clock_that_was_set_back_does_not_stop_a_retry() -> None:
    """The time of the next attempt may be a year away by then."""
    far = AT + timedelta(days=365)
    assert classify(CONTEXT, REQUEST, INCIDENT, RoundState(AT, {REQUEST.id: far})) == CarryOut(COPY)
