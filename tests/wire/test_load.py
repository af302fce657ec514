"""Many sessions, slow ones, broken ones, and a long run, in small: the milter releases all resources.

Each scenario waits at its end until the workers hold no more than before, and raises TimeoutError if they go on holding
it. `tests/bench/load.py` plays the same at full size.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wire import scenarios
from wire.loads import milter
from wire.running import Running


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One milter with a rule for every action, for all tests. Its output may contain no message of Python."""
    with milter() as running:
        yield running
        assert running.milter.log(event="unstructured") == []


def test_many_sessions_of_which_some_send(running: Running) -> None:
    """300 sessions are open at once and 60 of them send: none is refused, every final answer is due."""
    found = scenarios.many(running, sessions=300, sending=60, messages=1000)
    assert (found.failures, found.wrong) == ([], [])
    assert found.open_at_the_end == 300
    assert found.opened.sockets == found.before.sockets + 240
    assert found.sent >= 1000
    assert found.after.sockets == found.before.sockets


def test_every_session_of_a_worker_may_send_at_once() -> None:
    """libmilter has a thread for each of 1,000 sessions: contention for the GIL must not stop them."""
    with milter(workers=1) as running:
        found = scenarios.many(running, sessions=1000, sending=1000, messages=1500, mixture=scenarios.ORDINARY)
    assert (found.failures, found.wrong) == ([], [])
    assert found.open_at_the_end == 1000


def test_slow_clients_delay_no_others(running: Running) -> None:
    """While 40 clients are in the middle of their headers, fast ones get 500 answers."""
    found = scenarios.slow(running, clients=40, pause=0.02, lines=10, fast=4, messages=500)
    assert (found.failures, found.wrong) == ([], [])
    assert found.messages >= 500
    assert found.final_answers == ["550"] * 40


def test_a_session_that_dies_at_any_stage_leaves_nothing(running: Running) -> None:
    """Descriptors and threads are released, and other sessions go on meanwhile."""
    found = scenarios.deaths(running, each=15, sending=10)
    assert (found.failures, found.wrong) == ([], [])
    assert found.beside >= len(scenarios.STAGES)
    assert found.after.sockets == found.before.sockets


def test_mail_without_end_leaves_nothing(running: Running) -> None:
    """After 3,000 messages of all kinds in many sessions, the workers hold no more than at the start."""
    found = scenarios.long(running, messages=3000, sessions=30)
    assert (found.failures, found.wrong) == ([], [])
    assert sum(found.final_answers.values()) == 3000
    assert {"accept", "550", "hold", "rewrite"} <= set(found.final_answers)
    assert found.tenths[-1].sockets == found.tenths[0].sockets
