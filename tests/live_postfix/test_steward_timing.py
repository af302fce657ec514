"""The time until the sender of a held message gets a notice, and the wake-ups of an idle steward."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import processes
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.postgres import Postgres
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import Office, attached, new_gateway

TOLD_WITHIN = 2.0
"""Seconds from the 250 to the moment at which sendmail(1) has the notice."""

MAX_SERIES = 8
"""Series of messages to try: on a busy machine any of them may be late by chance. A steward that looked every six
seconds would be in time for a whole series once in some thousand."""

IDLE_SECONDS = 5
"""The length of a period: a third of the steward's pause between two rounds, so that most periods have no round."""

MAX_PERIODS = 8
"""Periods to try, the first ones with the rounds of a steward that starts."""


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def standing(
    request: pytest.FixtureRequest, installed_postfix: PrivatePostfix, outside: Sink, postgres: Postgres
) -> Iterator[Gateway]:
    """A gateway that holds messages with too many addresses, with a journal of either kind."""
    gateway = new_gateway(installed_postfix, outside)
    url = postgres.create("steward_timing") if request.param == "postgresql" else gateway.journal["url"]
    gateway.configure(gateway.policy("quarantine", journal={"url": url}))
    with attached(gateway):
        yield gateway
    if request.param == "postgresql":
        postgres.drop("steward_timing")


def test_the_sender_of_a_held_message_is_told_within_two_seconds(standing: Gateway) -> None:
    """The message may come at any moment: at the beginning, middle or end of the steward's wait, or in a round."""
    office = Office(standing)
    with closing(office.journal), Steward(standing.config, directory=standing.state) as steward:
        for _ in range(MAX_SERIES):
            took = [told_after(office, steward, 0.17 * number) for number in range(8)]
            print("told after", ", ".join(f"{seconds:.2f} s" for seconds in took))
            if max(took) <= TOLD_WITHIN:
                break
    assert max(took) <= TOLD_WITHIN


def told_after(office: Office, steward: Steward, pause: float) -> float:
    """After a pause, send a message: the seconds from its 250 to its notice."""
    told = len(steward.log(event="notice_sent", kind="held"))
    time.sleep(pause)
    office.send()
    accepted = datetime.now(UTC)
    return (told_at(steward, told) - accepted).total_seconds()


def told_at(steward: Steward, before: int) -> datetime:
    """The time at which sendmail(1) had accepted one notice more than `before`; waits for it."""
    events = until(lambda: steward.log(event="notice_sent", kind="held")[before:], what="a notice to be sent")
    return datetime.fromisoformat(events[0]["timestamp"])


def test_an_idle_steward_wakes_once_a_second_at_most(standing: Gateway) -> None:
    """As the kernel counts voluntary context switches, between two rounds: a round itself waits for many answers."""
    counts: list[int] = []
    with Steward(standing.config, directory=standing.state) as steward:
        while not counts or (counts[-1] > IDLE_SECONDS and len(counts) < MAX_PERIODS):
            before = switches(steward)
            time.sleep(IDLE_SECONDS)
            counts.append(switches(steward) - before)
    print(f"woke {counts} times in {IDLE_SECONDS} s each")
    assert counts[-1] <= IDLE_SECONDS


def switches(steward: Steward) -> int:
    """The number of voluntary context switches of the steward's processes."""
    pids = [steward.pid, *processes.children(steward.pid)]
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(map(int, re.findall(r"^voluntary_ctxt_switches:\s+(\d+)$", status, re.MULTILINE)))
