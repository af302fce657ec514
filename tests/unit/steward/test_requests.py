"""Which requests the steward refuses, and when it carries out the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.factories import policy
from undisclosed.incidents.records import Incident, QueueCopy, Request, State
from undisclosed.policy import Action
from undisclosed.steward.authorize import not_before, why_copy_refused, why_refused
from undisclosed.steward.context import Context
from undisclosed.steward.privileged import QUEUE_ID
from undisclosed.steward.reconcile import SOON
from undisclosed.steward.requests import CarryOut, Refuse, Wait, classify

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COPY = QueueCopy(
    id=1, incident_id=7, gateway="mx1", queue_id="4jXkbq5QPvzJ9sp", message_id="<1@council.test>", client="127.0.0.1",
    recipients=3, state=State.HELD, arrived=NOW - timedelta(hours=1), size=1000,
)  # fmt: skip
INCIDENT = Incident(
    id=7, reference="K7QF-3M2D", at=NOW, sender="clerk@council.test", message_id="<1@council.test>", adopted=False,
    rule="r", action=Action.DELAY, reason="", obstacle=None, count=12, organisations=12, named=0, per_field={},
    subject=None, automatic=False, copies=(COPY,),
)  # fmt: skip
REQUEST = Request(
    id=1, incident_id=7, copy_id=None, verb="release", mode="bcc", actor="admin", reason="", state="open", answer=None,
    at=NOW, not_before=None,
)  # fmt: skip


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"mode": "split"},
        {"mode": "unchanged"},
        {"verb": "delete", "mode": None},
        {"copy_id": 1},
        {"actor": "sender clerk@council.test"},
        {"actor": "steward", "not_before": NOW + timedelta(minutes=5)},
    ],
)
def test_requests_that_may_be_carried_out(over: dict[str, Any]) -> None:
    """Administrators may choose every mode, senders those in hold.sender_may, the steward that of the rule."""
    assert why_refused(policy(), replace(REQUEST, **over), INCIDENT) is None


@pytest.mark.parametrize(
    "over",
    [
        {"verb": "forward"},
        {"verb": "release", "mode": None},
        {"mode": "ALL"},
        {"mode": "delete"},
        {"verb": "delete"},
        {"incident_id": 8},
        {"copy_id": 2},
        {"actor": " "},
        {"actor": "sender", "mode": "unchanged"},
        {"actor": "steward", "mode": "unchanged"},
        {"actor": "steward", "mode": "split", "not_before": NOW + timedelta(minutes=5)},
        {"actor": "steward", "verb": "delete", "mode": None},
    ],
)
def test_requests_that_are_refused(over: dict[str, Any]) -> None:
    """Malformed ones, and those that the policy does not allow to the actor."""
    assert why_refused(policy(), replace(REQUEST, **over), INCIDENT)


@pytest.mark.parametrize(
    ("over", "minutes"),
    [
        ({"actor": "steward"}, 5),
        ({"actor": "steward", "not_before": NOW + timedelta(minutes=4)}, 5),
        ({"actor": "steward", "not_before": NOW + timedelta(minutes=9)}, 9),
        ({"not_before": NOW + timedelta(minutes=1)}, 1),
    ],
)
def test_delayed_mail_waits_for_hold_delay(over: dict[str, Any], minutes: int) -> None:
    """Whatever time the row has, also if hold.delay has grown; an administrator may send it sooner."""
    assert not_before(policy(), replace(REQUEST, **over), INCIDENT) == NOW + timedelta(minutes=minutes)
    assert not_before(policy(), REQUEST, INCIDENT) is None


def test_hold_sender_may() -> None:
    """It may allow senders any mode, or none."""
    request = replace(REQUEST, actor="sender clerk@council.test", mode="unchanged")
    assert why_refused(policy(hold={"sender_may": ["unchanged"]}), request, INCIDENT) is None
    assert why_refused(policy(hold={"sender_may": []}), replace(request, mode="bcc"), INCIDENT)


@pytest.mark.parametrize("queue_id", ["4jXkbq5QPvzJ9sp", "3F2A1B", "0123456789ABCDEF"])
def test_queue_ids(queue_id: str) -> None:
    """The short form and the long one."""
    assert QUEUE_ID.fullmatch(queue_id)
    assert why_copy_refused(replace(COPY, queue_id=queue_id)) is None


@pytest.mark.parametrize(
    "queue_id",
    ["ALL", "-", "", "hold", "3F2A1", "3f2a1b", "../3F2A1B", "3F2A1B 3F2A1C", "3F2A1B\n", "-d3F2A1B", "\uff13F2A1B"],
)
def test_invalid_queue_ids(queue_id: str) -> None:
    """postsuper's special words, options, paths and lists are not queue ids."""
    assert not QUEUE_ID.fullmatch(queue_id)
    assert why_copy_refused(replace(COPY, queue_id=queue_id))


# -- classification

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
    step = classify(CONTEXT, REQUEST, incident(COPY, OTHER, releasing, closed), AT)
    assert step == CarryOut((COPY, releasing))


def test_a_request_for_one_copy_leaves_the_others() -> None:
    """A command names the copies that it showed."""
    second = replace(COPY, id=3, queue_id="4jXkbq5QPvzJ9sr")
    assert classify(CONTEXT, replace(REQUEST, copy_id=3), incident(COPY, second), AT) == CarryOut((second,))


def test_a_request_without_open_copies_only_has_to_be_answered() -> None:
    """Another request, or a person, was faster."""
    assert classify(CONTEXT, REQUEST, incident(replace(COPY, state=State.RELEASED)), AT) == CarryOut(())


def test_a_refused_request() -> None:
    """The reason comes from the policy or from a copy."""
    refused = classify(CONTEXT, replace(REQUEST, actor=""), INCIDENT, AT)
    assert refused == Refuse("the request names no actor")
    forged = incident(replace(COPY, queue_id="ALL"))
    assert classify(CONTEXT, REQUEST, forged, AT) == Refuse("'ALL' is not a queue id")
    elsewhere = incident(COPY, replace(OTHER, queue_id="ALL"))
    assert classify(CONTEXT, REQUEST, elsewhere, AT) == CarryOut((COPY,))


def test_a_request_that_waits_for_its_time() -> None:
    """For `not_before`, and for the next attempt after a failure, whichever is later."""
    later, latest = AT + timedelta(minutes=1), AT + timedelta(minutes=2)
    assert classify(CONTEXT, replace(REQUEST, not_before=later), INCIDENT, AT) == Wait(later)
    assert classify(CONTEXT, replace(REQUEST, not_before=later), INCIDENT, AT, retry_at=latest) == Wait(latest)
    assert classify(CONTEXT, replace(REQUEST, not_before=AT), INCIDENT, AT, retry_at=AT) == CarryOut((COPY,))


def test_a_request_waits_until_the_state_of_its_copies_is_known() -> None:
    """While a copy is pending, or was missing in the last listing."""
    assert classify(CONTEXT, REQUEST, incident(replace(COPY, state=State.PENDING)), AT) == Wait(AT + SOON)
    assert classify(CONTEXT, REQUEST, INCIDENT, AT, unseen_once={COPY.id}) == Wait(AT + SOON)


def test_of_two_requests_for_one_copy_the_second_waits_for_the_next_round() -> None:
    """It is classified then by the result of the first one."""
    assert classify(CONTEXT, REQUEST, INCIDENT, AT, busy={COPY.id}) == Wait(AT)
