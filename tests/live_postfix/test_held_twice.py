"""The steward releases by itself what the milter alone has put on hold, and nothing that something else held too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.waiting import until
from live_postfix.office import NUMBERS, PARENTS, SENDER, Office, attached, emptied, letter, new_gateway
from live_postfix.policy_service import HELD_AT, other_holds
from undisclosed.incidents.records import Incident, State
from undisclosed.steward.alone import BY_HAND, BY_OTHERS
from undisclosed.steward.log_reader import ASK_AGAIN, DEADLINE
from undisclosed.steward.rounds import Steward

DELAY = timedelta(minutes=5)


class Clock:
    """Monotonic time that a test can move on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Gateway]:
    """A gateway with everything that can put mail on hold, attached once for all tests of this file."""
    gateway = new_gateway(installed_postfix, outside)
    with attached(gateway), other_holds(installed_postfix):
        yield gateway


@pytest.fixture(params=["split", "delay"])
def office(standing: Gateway, request: pytest.FixtureRequest) -> Iterator[Office]:
    """Under the actions that the steward carries out by itself."""
    with under(standing, request.param) as office:
        yield office


@contextmanager
def under(gateway: Gateway, action: str) -> Iterator[Office]:
    """A gateway with nothing held, under this action."""
    gateway.configure(gateway.policy(action))
    gateway.milter.reload()
    with emptied(gateway) as office:
        yield office


def send(office: Office, sender: str = SENDER, body: bytes = b"", **fields: str) -> str:
    """Send a letter that the milter holds; returns its Message-ID."""
    number = next(NUMBERS)
    assert office.gateway.send(letter(number, **fields) + body, sender=sender, to=PARENTS[:3]).accepted
    return f"<letter-{number}@council.test>"


def rounds(steward: Steward, clock: Clock, *, seconds: float = DEADLINE + 1) -> None:
    """Rounds until everything is decided: the log had its time, and the delay is over."""
    steward.round(datetime.now(UTC))
    clock.ahead += seconds
    for _ in range(2):
        steward.round(datetime.now(UTC) + 2 * DELAY)


def seen(steward: Steward, office: Office, message_id: str) -> None:
    """Rounds until the steward has seen that the milter alone held the message."""

    def is_seen() -> bool:
        steward.round(datetime.now(UTC))
        return office.incident(message_id).state is not State.PENDING

    until(is_seen, what="the milter's line in the log")


def kinds(office: Office, incident: Incident) -> list[str]:
    """The notices that are owed."""
    return [notice.kind for notice in office.journal.notices.of(incident.id)]


def test_what_the_milter_alone_held_is_released(office: Office) -> None:
    """The control of the tests below."""
    clock = Clock()
    message_id = send(office)
    with office.steward(monotonic=clock) as steward:
        seen(steward, office, message_id)
        rounds(steward, clock)
    incident = office.incident(message_id)
    assert incident.state is State.RELEASED
    assert office.received() == dict.fromkeys(PARENTS[:3], 1)
    assert kinds(office, incident)[0] == {"split": "split", "delay": "delayed"}[incident.copies[0].action]


@pytest.mark.parametrize(
    "hold",
    [
        lambda office: send(office, "suspect@council.test"),
        *(lambda office, sender=sender: send(office, sender) for sender in HELD_AT),
        lambda office: send(office, Subject="HOLD this"),
        lambda office: send(office, body=b"HOLD this\n"),
    ],
    ids=["access table", *HELD_AT.values(), "header_checks", "body_checks"],
)
def test_what_postfix_held_as_well_waits_for_a_person(office: Office, hold: Callable[[Office], str]) -> None:
    """milter-reports 5: two held it, and one let go. Its sender is told that it is on hold, and nothing else."""
    clock = Clock()
    message_id = hold(office)
    with capture_logs() as events, office.steward(monotonic=clock) as steward:
        rounds(steward, clock)
        rounds(steward, clock)
    incident = office.incident(message_id)
    [copy] = incident.copies
    assert (copy.state, copy.waits, copy.leaves) == (State.HELD, BY_OTHERS, None)
    assert kinds(office, incident) == ["held"]
    assert (len(office.on_hold()), office.received()) == (1, {})
    assert [event["log_level"] for event in events if event["event"] == "copy_waits"] == ["warning"]
    request = office.ask(incident, "release", "bcc")
    office.round()
    assert office.answer(request)[0] == "done"
    assert office.received() == dict.fromkeys(PARENTS[:3], 1)


@pytest.mark.parametrize("of_all", [False, True], ids=["by id", "ALL"])
def test_a_hold_by_hand_during_a_delay_stops_it(standing: Gateway, of_all: bool) -> None:
    """hostile-review 5: what an administrator does about a stolen account. The notice of the delay is corrected."""
    with under(standing, "delay") as office:
        clock = Clock()
        message_id = send(office)
        with office.steward(monotonic=clock) as steward:
            seen(steward, office, message_id)
            assert office.incident(message_id).copies[0].leaves is not None
            office.gateway.postfix.postsuper("-h", "ALL" if of_all else office.on_hold()[0])
            rounds(steward, clock)
        incident = office.incident(message_id)
        assert (incident.state, incident.copies[0].waits) == (State.HELD, BY_HAND)
        assert kinds(office, incident) == ["held"]
        assert office.received() == {}
        later = send(office)
        with office.steward(monotonic=clock) as steward:
            rounds(steward, clock)
        assert office.incident(later).state is State.RELEASED  # the hold was of what was there


def test_a_hold_by_hand_just_before_the_release_is_seen(standing: Gateway) -> None:
    """The steward was away when somebody held the mail, and begins when the delay is over."""
    with under(standing, "delay") as office:
        message_id = send(office)
        with office.steward() as steward:
            seen(steward, office, message_id)
        office.gateway.postfix.postsuper("-h", "ALL")
        office.round(2 * DELAY)
        assert office.incident(message_id).copies[0].waits == BY_HAND
        assert office.received() == {}


def test_mail_of_a_stolen_account_that_was_placed_on_hold_is_not_sent(office: Office) -> None:
    """hostile-review 5: deferred mail, `postsuper -h ALL`, then the rule and the steward: 12 people had it."""
    standing = office.gateway
    standing.configure(standing.policy("warn", mode="monitor"))
    standing.milter.reload()
    with standing.postfix.deferring():
        message_id = send(office)
        standing.postfix.deferred()
        standing.postfix.postsuper("-h", "ALL")
        clock = Clock()
        with office.steward(monotonic=clock) as steward:
            rounds(steward, clock)
        held = [found for found in office.journal.incidents.search() if found.message_id == message_id]
        assert {copy.state for found in held for copy in found.copies if copy.is_open} == {State.HELD}
        assert (len(office.on_hold()), office.received()) == (1, {})
        standing.postfix.empty()


# -- the log


@contextmanager
def moved(path: Path) -> Iterator[Path]:
    """The log under another name: Postfix goes on writing into it, and the steward does not find it."""
    other = path.with_name("elsewhere.log")
    path.rename(other)
    try:
        yield other
    finally:
        other.replace(path)


def test_a_log_that_comes_late_delays_the_release(office: Office) -> None:
    """A logger that buffers: nothing is decided meanwhile, nobody is told, and then it goes on by itself."""
    postfix = office.gateway.postfix
    clock = Clock()
    log = postfix.maillog.read_bytes()
    with ExitStack() as running:
        with moved(postfix.maillog) as written:
            postfix.maillog.touch()  # the logger goes on in the file that was moved, and the steward has never seen it
            steward = running.enter_context(office.steward(monotonic=clock))
            message_id = send(office)
            until(lambda: b"milter-hold" in written.read_bytes()[len(log) :], what="the line")
            rounds(steward, clock, seconds=DEADLINE / 2)
            incident = office.incident(message_id)
            assert (incident.state, incident.copies[0].waits) == (State.PENDING, None)
            assert office.received() == {}
        rounds(steward, clock)
    assert office.incident(message_id).state is State.RELEASED


def test_without_a_log_the_configuration_decides(standing: Gateway) -> None:
    """Here tables with HOLD and a policy service: it waits. Without them, the steward acts alone."""
    with under(standing, "split") as office:
        postfix = office.gateway.postfix
        message_id = send(office)
        clock = Clock()
        with moved(postfix.maillog), capture_logs() as events, office.steward(monotonic=clock) as steward:
            rounds(steward, clock)
        copy = office.incident(message_id).copies[0]
        assert copy.state is State.HELD
        assert "the mail log cannot be read" in (copy.waits or "")
        assert f"regexp:{postfix.config_dir}/access" in (copy.waits or "")
        unreadable = [event for event in events if event["event"] == "mail_log_unreadable"]
        assert [(event["log_level"], "no such file" in event["reason"]) for event in unreadable] == [("warning", True)]
        usual = ("smtpd_sender_restrictions", "smtpd_recipient_restrictions", "smtpd_data_restrictions",
                 "smtpd_end_of_data_restrictions", "header_checks", "body_checks")  # fmt: skip
        before = {name: postfix.get(name) for name in usual}
        postfix.set(**dict.fromkeys(usual, ""))
        message_id = send(office)
        with office.steward(monotonic=clock) as steward:
            with moved(postfix.maillog), capture_logs() as events:
                rounds(steward, clock)
            assert office.incident(message_id).state is State.RELEASED
            clock.ahead += ASK_AGAIN
            with capture_logs() as events:
                rounds(steward, clock)
        assert [event["event"] for event in events if event["event"].startswith("mail_log")] == ["mail_log_found"]
        postfix.set(**before)
