"""The journal fails under the steward, in the middle of a release by a real Postfix: nothing lost, leaked or silent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime

import pytest

from lab import milter
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.postgres import Postgres
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from postfix.office import COLLEAGUE, PARENTS, Office
from undisclosed.records import JournalError, State
from undisclosed.steward.loop import Steward as Rounds

WITHIN = 60.0
"""Seconds for the steward to notice a fault, or its end: many times what it takes on a busy machine."""

EVERYBODY = {*PARENTS[:3], COLLEAGUE}


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def standing(
    request: pytest.FixtureRequest, installed_postfix: PrivatePostfix, outside: Sink, postgres: Postgres
) -> Iterator[Gateway]:
    """A gateway that holds what shows too many, with a journal of either kind."""
    gateway = Gateway(installed_postfix, outside, user=milter.unprivileged_user())
    url = f"sqlite:///{gateway.state}/faults.db"
    if request.param == "postgresql":
        url = postgres.create("steward_faults")
    gateway.configure(gateway.policy("quarantine", journal={"url": url}))
    with gateway:
        yield gateway
        installed_postfix.wait_until_idle()
        installed_postfix.empty()
    if request.param == "postgresql":
        postgres.drop("steward_faults")


@pytest.fixture
def office(standing: Gateway) -> Iterator[Office]:
    """The steward's place, with nothing held and nothing delivered."""
    standing.postfix.empty()
    standing.sink.clear()
    office = Office(standing)
    yield office
    office.journal.close()
    standing.settle()


@contextmanager
def unreachable(office: Office, postgres: Postgres, how: str) -> Iterator[None]:
    """The journal cannot be written for as long as the block lasts."""
    url = office.place.policy.journal.url
    if not url.startswith("sqlite:"):
        begin, end = (postgres.freeze, postgres.thaw) if how == "hangs" else (postgres.stop, postgres.start)
        begin()
        try:
            yield
        finally:
            end()
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def nothing_shown(office: Office) -> bool:
    """Whether no copy that got out shows a parent's address."""
    letters = [one for one in office.gateway.sink.deliveries if one.sender]
    return not any(parent.encode() in one.header for one in letters for parent in PARENTS)


@pytest.mark.parametrize("step", ["releasing", "handed over", "taken", "deleted", "closed"])
def test_the_journal_hangs_in_the_middle_of_a_release(office: Office, postgres: Postgres, step: str) -> None:
    """The round ends with an error that says so; the next one after the fault goes on where this one was."""
    _released_once_although(office, postgres, "hangs", step)


@pytest.mark.parametrize("standing", ["postgresql"], indirect=True)
@pytest.mark.parametrize("step", ["handed over", "deleted"])
def test_the_server_stops_in_the_middle_of_a_release(office: Office, postgres: Postgres, step: str) -> None:
    """As when it hangs; with another server process afterwards."""
    _released_once_although(office, postgres, "stops", step)


def _released_once_although(office: Office, postgres: Postgres, how: str, step: str) -> None:
    incident = office.held()
    request = office.ask(incident, "release", "bcc")
    reached: list[str] = []
    with ExitStack() as fault:

        def break_at(name: str) -> None:
            if name == step and not reached:
                reached.append(name)
                fault.enter_context(unreachable(office, postgres, how))

        with office.steward(break_at) as steward:
            with pytest.raises(JournalError) as failure:
                steward.round(datetime.now(UTC))
            assert str(failure.value)
            office.gateway.settle()
            # Whatever could not be written: it is still held, or everybody has it.
            assert office.on_hold() or set(office.received()) == EVERYBODY
            fault.close()
            for _ in range(3):  # a message that is gone is looked for twice
                again(steward)
    assert reached == [step]
    assert (office.state(incident), office.on_hold()) == (State.RELEASED, [])
    assert office.answer(request)[0] == "done"
    # Also what Postfix took when nobody could write that down: the steward lives, and knows it.
    assert office.received() == dict.fromkeys(EVERYBODY, 1)
    assert nothing_shown(office)


def again(steward: Rounds) -> None:
    """A round that may still meet what the fault has left behind, such as a broken connection."""

    def works() -> bool:
        try:
            steward.round(datetime.now(UTC))
        except JournalError:
            return False
        return True

    until(works, within=WITHIN, what="the journal to work again")


def test_killed_while_the_journal_is_away(office: Office, postgres: Postgres) -> None:
    """It says in its log that it fails, and why; killed then, the next one carries out what was asked."""
    incident = office.held()
    process = Steward(office.gateway.config, directory=office.gateway.state)
    process.start()
    try:
        office.ask(incident, "release", "bcc")
        until(lambda: office.state(incident) is State.RELEASED, within=WITHIN, what="a first release")
        second = office.send()
        with unreachable(office, postgres, "stops"):
            failing = process.wait_for_log(lambda event: event["event"] == "failing", within=WITHIN)
            assert failing["level"] == "error"
            assert failing["reason"]
            process.kill()
            assert len(office.on_hold()) == 1
    finally:
        process.stop()
    with process:
        until(lambda: office.incident(second).state is State.HELD, within=WITHIN, what="the second to be seen")
        office.ask(office.incident(second), "release", "bcc")
        until(lambda: office.incident(second).state is State.RELEASED, within=WITHIN, what="the second release")
    assert office.received() == dict.fromkeys(EVERYBODY, 2)
    assert nothing_shown(office)
