"""The next step for a request: carry it out, refuse it or wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from support.factories import policy
from support.request_factories import COPY, INCIDENT, NOW, REQUEST
from undisclosed.incidents.records import Incident, QueueCopy, State
from undisclosed.steward.context import Context
from undisclosed.steward.reconcile import SOON
from undisclosed.steward.requests import CarryOut, RefuseRequest, RoundState, Wait, classify

CONTEXT = Context(policy(), b"key", "mx1")
AT = NOW + timedelta(minutes=10)
OTHER = replace(COPY, id=2, gateway="mx2", queue_id="4jXkbq5QPvzJ9sq")


def incident(*copies: QueueCopy) -> Incident:
    """The incident with these copies."""
    return replace(INCIDENT, copies=copies)


def test_a_request_is_carried_out_on_the_copies_of_this_gateway() -> None:
    """On those that are held, or in release after an interruption."""
    releasing = replace(COPY, id=3, queue_id="4jXkbq5QPvzJ9sr", state=State.RELEASING)
    closed = replace(COPY, id=4, queue_id="4jXkbq5QPvzJ9st", state=State.DELETED)
    step = classify(CONTEXT, REQUEST, incident(COPY, OTHER, releasing, closed), RoundState(AT))
    assert step == CarryOut((COPY, releasing))


def test_a_request_for_one_copy_leaves_the_others() -> None:
    """A command names the copies that it showed."""
    second = replace(COPY, id=3, queue_id="4jXkbq5QPvzJ9sr")
    assert classify(CONTEXT, replace(REQUEST, copy_id=3), incident(COPY, second), RoundState(AT)) == CarryOut((second,))


def test_a_request_without_open_copies_only_has_to_be_answered() -> None:
    """Another request, or a person, was faster."""
    assert classify(CONTEXT, REQUEST, incident(replace(COPY, state=State.RELEASED)), RoundState(AT)) == CarryOut(())


def test_a_refused_request() -> None:
    """The reason comes from the policy or from a copy."""
    refused = classify(CONTEXT, replace(REQUEST, actor=""), INCIDENT, RoundState(AT))
    assert refused == RefuseRequest("the request names no actor")
    forged = incident(replace(COPY, queue_id="ALL"))
    assert classify(CONTEXT, REQUEST, forged, RoundState(AT)) == RefuseRequest("'ALL' is not a queue id")
    elsewhere = incident(COPY, replace(OTHER, queue_id="ALL"))
    assert classify(CONTEXT, REQUEST, elsewhere, RoundState(AT)) == CarryOut((COPY,))


def test_a_request_that_waits_for_its_time() -> None:
    """For `not_before`, and for the next attempt after a failure, whichever is later."""
    later, latest = AT + timedelta(minutes=1), AT + timedelta(minutes=2)
    timed = replace(REQUEST, not_before=later)
    assert classify(CONTEXT, timed, INCIDENT, RoundState(AT)) == Wait(later)
    assert classify(CONTEXT, timed, INCIDENT, RoundState(AT, {REQUEST.id: latest})) == Wait(latest)
    assert classify(CONTEXT, timed, INCIDENT, RoundState(later, {REQUEST.id: AT})) == CarryOut((COPY,))


def test_a_request_waits_until_the_state_of_its_copies_is_known() -> None:
    """While a copy is pending, or was missing in the last listing."""
    assert classify(CONTEXT, REQUEST, incident(replace(COPY, state=State.PENDING)), RoundState(AT)) == Wait(AT + SOON)
    assert classify(CONTEXT, REQUEST, INCIDENT, RoundState(AT, missing={COPY.id})) == Wait(AT + SOON)


def test_of_two_requests_for_one_copy_the_second_waits_for_the_next_round() -> None:
    """The second request is then classified by the result of the first one."""
    assert classify(CONTEXT, REQUEST, INCIDENT, RoundState(AT, busy={COPY.id})) == Wait(AT)
