"""The requests that the steward refuses, and the earliest time of the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.factories import policy
from support.request_factories import COPY, INCIDENT, NOW, REQUEST
from undisclosed.steward.authorize import not_before, why_copy_refused, why_refused
from undisclosed.steward.privileged import QUEUE_ID


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"mode": "split"},
        {"mode": "unchanged", "reason": "asked by phone"},
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
        {"mode": "unchanged"},
        {"mode": "unchanged", "reason": " "},
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
    """The steward's request waits for the later of hold.delay and the row's time; an administrator's may be sooner."""
    assert not_before(policy(), replace(REQUEST, **over), COPY) == NOW + timedelta(minutes=minutes)
    assert not_before(policy(), REQUEST, COPY) is None


def test_a_copy_that_waits_for_a_person() -> None:
    """The steward's own request is refused, a person's is not; so is one for a copy with a forged queue id."""
    waiting = replace(INCIDENT, copies=(replace(COPY, waits="placed on hold by hand"),))
    assert why_refused(policy(), replace(REQUEST, actor="steward"), waiting)
    assert why_refused(policy(), REQUEST, waiting) is None
    assert why_refused(policy(), REQUEST, replace(INCIDENT, copies=(replace(COPY, queue_id="ALL"),)))


def test_hold_sender_may() -> None:
    """The setting may allow senders any mode, or none."""
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
