"""Held mail expires only once its sender has been told, and has had a day: a wrong clock deletes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lab.gateway import Gateway
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import PARENTS, SENDER, Office, emptied, letter
from support.wall_clock import Clock
from undisclosed.config.load import load
from undisclosed.incidents.expiry import Seen
from undisclosed.incidents.records import Incident, QueueCopy, State, parts_for

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The wall clock of a steward."""
    with Clock() as clock:
        yield clock


class ClockedSteward(Steward):
    """A steward with the clock of a test."""

    clock: Clock

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self.clock.environment


def clocked(office: Office, clock: Clock) -> ClockedSteward:
    """A steward with this clock, not started yet."""
    steward = ClockedSteward(office.gateway.config, directory=office.gateway.state)
    steward.clock = clock
    return steward


def kinds(office: Office, incident: Incident) -> list[str]:
    """The kinds of the notices about it, in order."""
    return [notice.kind for notice in office.journal.notices.of(incident.id)]


def copy_of(office: Office, incident: Incident) -> QueueCopy:
    """Its only copy, as it is now."""
    [copy] = office.journal.incidents.get(incident.id).copies
    return copy


# -- the rule, with a clock of the test


def test_the_end_of_a_message_that_nobody_decides_about(office: Office) -> None:
    """The reminder comes a day before, and the end a day of sight after it, and an hour after the time."""
    incident, now = office.held(), datetime.now(UTC)
    office.tell(now)
    office.round(later=12 * DAY)
    assert kinds(office, incident) == ["held"]
    office.round(later=13 * DAY + HOUR)
    assert kinds(office, incident) == ["held", "reminder"]
    office.round(later=20 * DAY)
    office.was_seen(incident, 9 * DAY)
    office.round(later=20 * DAY)
    assert office.state(incident) is State.HELD, "the reminder was not sent"
    office.tell(now + 20 * DAY)
    office.round(later=20 * DAY)
    office.was_seen(incident, DAY - timedelta(seconds=1))
    office.round(later=21 * DAY)
    assert office.state(incident) is State.HELD
    office.was_seen(incident, timedelta(seconds=1))
    office.round(later=21 * DAY)
    assert (office.state(incident), office.on_hold(), office.received()) == (State.EXPIRED, [], {})
    assert kinds(office, incident) == ["held", "reminder", "expired"]


def test_the_hours_are_those_of_the_monotonic_clock(office: Office) -> None:
    """A round adds the time since the last one, a minute at most; it is written once a minute, and by a new steward."""
    incident, at = office.held(), [1000.0]
    writes: list[str] = []
    end = 14 * DAY - HOUR
    with office.steward(lambda call: writes.append(call), monotonic=lambda: at[0]) as steward:
        for seconds in (0, 15, 15, 15, 14, 2, 3600, 15):
            at[0] += seconds
            steward.round(datetime.now(UTC) + end)
    assert copy_of(office, incident).seen_seconds == 15 + 15 + 15 + 14 + 2 + 60
    assert writes.count("after record_seen") == 2
    at[0] = 5.0  # the host was started again
    with office.steward(monotonic=lambda: at[0]) as steward:
        for seconds in (0, 61):
            at[0] += seconds
            steward.round(datetime.now(UTC) + end)
    assert copy_of(office, incident).seen_seconds == 15 + 15 + 15 + 14 + 2 + 60 + 60


def test_mail_far_from_its_end_is_not_counted(office: Office) -> None:
    """Nothing depends on its hours yet: an idle steward does not write."""
    office.held()
    writes: list[str] = []
    at = [0.0]
    with office.steward(writes.append, monotonic=lambda: at[0]) as steward:
        for _ in range(4):
            at[0] += 60
            steward.round(datetime.now(UTC) + 11 * DAY)
    assert writes == []


def test_the_stewards_own_writes_wake_it_for_one_round(office: Office) -> None:
    """The journal's file tells that it changed, and not who wrote: a write in each round would be a spin."""
    incident, at = office.held(), [0.0]
    office.tell(datetime.now(UTC))
    office.ends(incident, datetime.now(UTC) + 2 * DAY - HOUR)
    with office.steward(monotonic=lambda: at[0]) as steward:
        rounds, now = [], datetime.now(UTC)  # the clock stands, so that the heartbeat is written once
        for seconds in (0, 15, 50, 0, 15):
            at[0] += seconds
            office.journal.wait(0)
            steward.round(now)
            rounds.append(office.journal.wait(0))
    assert copy_of(office, incident).seen_seconds == 65
    assert rounds == [True, False, True, False, False]


def test_a_request_that_waits_is_a_decision(office: Office) -> None:
    """A person's release that cannot be carried out yet is not overtaken by the end."""
    incident = ends_now(office)
    office.journal.held.ask(
        [copy_of(office, incident).id],
        verb="release",
        mode="bcc",
        actor="ann",
        reason="a test",
        not_before=datetime.now(UTC) + DAY,
    )
    office.round()
    assert (office.state(incident), len(office.on_hold())) == (State.HELD, 1)


def ends_now(office: Office) -> Incident:
    """A message whose end the next round finds."""
    incident = office.held()
    office.nearly_expired(incident)
    assert (office.state(incident), kinds(office, incident)) == (State.HELD, ["held", "reminder"])
    return incident


def test_killed_between_any_two_calls_of_an_expiry(office: Office) -> None:
    """The message is deleted, its sender is told, and nobody gets it."""
    points: list[str] = []
    while True:
        incident = ends_now(office)
        died = office.dies_at(len(points))
        for _ in range(3):
            office.round()
        assert (office.state(incident), office.on_hold(), office.received()) == (State.EXPIRED, [], {})
        assert kinds(office, incident) == ["held", "reminder", "expired"]
        if died is None:
            break
        points.append(died)
    print(f"killed at {len(points)} points of an expiry")
    calls = ["add", "read", "add_event", "delete", "set_state expired"]
    assert points == [f"before {calls[0]}", *(f"after {call}" for call in calls)]


def test_killed_between_any_two_calls_of_a_reminder(office: Office) -> None:
    """It is owed once, and its time is counted from its acceptance."""
    points: list[str] = []
    while True:
        incident = office.held()
        office.tell(datetime.now(UTC))
        office.ends(incident, datetime.now(UTC) + HOUR)
        died = office.dies_at(len(points))
        office.round()
        assert kinds(office, incident) == ["held", "reminder"]
        assert copy_of(office, incident).seen_at_reminder is None
        office.tell(datetime.now(UTC))
        office.round()
        assert copy_of(office, incident).seen_at_reminder is not None
        if died is None:
            break
        points.append(died)
    assert points == ["before add_reminder", "after add_reminder"]


def test_another_file_under_the_queue_id_is_not_deleted(office: Office) -> None:
    """Postfix uses short queue ids again: the file is read once more before it is deleted, by its Message-ID too."""
    incident = ends_now(office)
    office.change("UPDATE queue_copy SET message_id = '<other@council.test>' WHERE incident_id = ?", incident.id)
    for _ in range(2):
        office.round()
    assert (office.state(incident), len(office.on_hold())) == (State.HELD, 1)
    office.gateway.postfix.empty()


@pytest.mark.parametrize("is_reminded", [True, False])
def test_keep(standing: Gateway, is_reminded: bool) -> None:
    """`on_expiry = "keep"`: the message stays, and that is told once, an hour after its time."""
    standing.configure(standing.policy("quarantine", hold={"on_expiry": "keep"}))
    with emptied(standing) as office:
        incident = office.held()
        office.ends(incident, datetime.now(UTC) - timedelta(minutes=1))
        office.round()
        if is_reminded:
            office.tell(datetime.now(UTC))
        for _ in range(3):
            office.round()
            assert kinds(office, incident) == ["held", "reminder"]
        office.was_seen(incident, HOUR)
        for _ in range(3):
            office.round()
        assert kinds(office, incident) == ["held", "reminder", "kept"]
        office.was_seen(incident, 9 * DAY)
        office.round()
        assert (office.state(incident), len(office.on_hold())) == (State.HELD, 1)


def test_what_was_told_to_be_kept_is_announced_again_before_it_is_deleted(standing: Gateway) -> None:
    """A reload from "keep" to "delete": else all that was kept would be deleted in the first round."""
    standing.configure(standing.policy("quarantine", hold={"on_expiry": "keep"}))
    with emptied(standing) as office:
        incident = office.held()
        office.ends(incident, datetime.now(UTC) - timedelta(minutes=1))
        for _ in range(3):
            office.round()
            office.tell(datetime.now(UTC))
            office.was_seen(incident, 9 * DAY)
        assert kinds(office, incident) == ["held", "reminder", "kept"]
        standing.configure(standing.policy("quarantine"))
        office.context = replace(office.context, policy=load(standing.config))
        office.round()
        assert (office.state(incident), kinds(office, incident)[3:]) == (State.HELD, ["reminder"])
        office.tell(datetime.now(UTC))
        office.round()
        office.was_seen(incident, DAY)
        office.round()
        assert office.state(incident) is State.EXPIRED


def test_a_day_of_hold_has_no_separate_reminder(standing: Gateway) -> None:
    """`expire_days = 1`: the first notice names the day, and is the reminder."""
    standing.configure(standing.policy("quarantine", hold={"expire_days": 1}))
    with emptied(standing) as office:
        incident, now = office.held(), datetime.now(UTC)
        office.round(later=HOUR)
        assert kinds(office, incident) == ["held"]
        office.tell(now)
        office.round(later=timedelta(seconds=5))
        office.was_seen(incident, DAY)
        office.round(later=DAY + timedelta(minutes=1))
        office.was_seen(incident, HOUR)
        office.round(later=DAY + HOUR)
        assert office.state(incident) is State.EXPIRED
        assert kinds(office, incident) == ["held", "expired"]


def test_what_somebody_else_put_on_hold_before_the_steward_came(office: Office) -> None:
    """The policy would hold it, too: it is listed, and never deleted (hostile review, 1 C)."""
    gateway, postfix = office.gateway, office.gateway.postfix
    strict = gateway.config.read_text()
    lenient: dict[str, str | int] = {"name": "lenient", "more_than_addresses": 1000, "action": "quarantine"}
    gateway.configure(gateway.policy(rules=[lenient]))
    gateway.milter.reload()
    with postfix.deferring():
        gateway.send(letter(98), sender=SENDER, to=[PARENTS[0]])
        postfix.postsuper("-h", postfix.deferred())
    gateway.configure(strict)
    gateway.milter.reload()
    office.round(later=15 * DAY)
    incident = office.incident("<letter-98@council.test>")
    assert incident.leading.adopted
    office.tell(datetime.now(UTC) + 15 * DAY)
    office.was_seen(incident, 99 * DAY)
    for later in (15 * DAY, 16 * DAY, 400 * DAY):
        office.round(later=later)
        office.tell(datetime.now(UTC) + later)
    assert (office.state(incident), len(office.on_hold())) == (State.HELD, 1)
    assert "expired" not in kinds(office, incident)


def test_the_second_message_of_a_message_id_has_an_end_of_its_own(office: Office) -> None:
    """The first was released: the second is told, reminded and recorded as what it is (48 reports, row 9)."""
    first = office.held(Subject="January")
    request = office.ask(first, "release", "bcc")
    office.round()
    assert office.answer(request)[0] == "done"
    number = str(first.message_id).removeprefix("<letter-").partition("@")[0]
    message = letter(int(number), Subject="February")
    assert office.gateway.send(message, sender=SENDER, to=PARENTS[:3]).accepted
    office.round()
    [second] = [found for found in office.journal.incidents.search() if found.subject == "February"]
    assert kinds(office, second) == ["held"]
    office.tell(datetime.now(UTC))
    office.ends(second, datetime.now(UTC) - timedelta(minutes=1))
    for longer in (HOUR, DAY, HOUR):
        office.round()
        office.tell(datetime.now(UTC))
        office.round()
        office.was_seen(second, longer)
    office.round()
    assert (office.state(second), office.state(first)) == (State.EXPIRED, State.RELEASED)
    assert kinds(office, second) == ["held", "reminder", "expired"]


# -- the service, with a clock that is set


def test_a_steward_that_is_started_15_days_late(office: Office, clock: Clock) -> None:
    """Both messages are told and reminded of, and still held: formerly its first round deleted them (1 A).

    The sender gets the reminder; the first notice is too old by now, and goes to the administrator.
    """
    messages = [office.send(), office.send()]
    clock.jump(15 * DAY)
    with clocked(office, clock) as steward:
        until(lambda: len(steward.log(event="notice_sent", kind="reminder")) == 2, what="two reminders")
        incidents = [office.incident(message) for message in messages]
        until(
            lambda: all(copy_of(office, one).seen_at_reminder is not None for one in incidents),
            what="the reminders to count",
        )
        assert len(office.on_hold()) == 2
        for incident in incidents:
            assert kinds(office, incident) == ["held", "reminder"]
            office.was_seen(incident, DAY + timedelta(minutes=1))
        until(lambda: office.on_hold() == [], what="both messages to expire")
        until(lambda: len(steward.log(event="notice_sent", kind="expired")) == 2, what="two notices of the end")
    assert [office.state(incident) for incident in incidents] == [State.EXPIRED] * 2
    office.gateway.settle()
    told = {recipient for notice in office.gateway.sink.deliveries for recipient in notice.recipients}
    assert told == {SENDER, office.context.policy.administrator}


def test_the_end_of_a_message_that_some_have_received(office: Office, clock: Clock) -> None:
    """Held-mail review: it was never reminded of, and so never ended. Reminder and end say that some have it."""
    incident = office.held()
    [copy] = incident.copies
    office.tell(datetime.now(UTC))
    office.journal.held.set_state(copy.id, State.RELEASING)
    office.journal.held.record_accepted(copy.id, parts_for("split", [0], 4))
    clock.jump(13 * DAY + HOUR)
    with clocked(office, clock) as steward:
        until(lambda: steward.log(event="notice_sent", kind="reminder"), what="the reminder")
        until(lambda: copy_of(office, incident).seen_at_reminder is not None, what="the reminder to count")
        assert (office.state(incident), len(office.on_hold())) == (State.RELEASING, 1)
        clock.jump(15 * DAY)
        until(lambda: copy_of(office, incident).seen_at_until is not None, what="a round past the end")
        office.was_seen(incident, DAY + timedelta(minutes=1))
        until(lambda: steward.log(event="notice_sent", kind="expired"), what="the notice of the end")
    assert (office.state(incident), office.on_hold()) == (State.EXPIRED, [])
    assert kinds(office, incident) == ["held", "reminder", "expired"]
    office.gateway.settle()
    told = [delivery for delivery in office.gateway.sink.deliveries if SENDER in delivery.recipients]
    assert len(told) == 2
    assert all(b"had already received" in notice.body for notice in told)


def test_a_clock_that_jumps_ahead_by_20_days_for_some_rounds(office: Office, clock: Clock) -> None:
    """The message is still there, and nothing of the jump is left (hostile review, 1 B)."""
    with clocked(office, clock) as steward:
        message = office.send()
        until(lambda: steward.log(event="notice_sent", kind="held"), what="the first notice")
        incident = office.incident(message)
        clock.jump(20 * DAY)
        office.was_seen(incident, timedelta())
        until(lambda: copy_of(office, incident).seen_at_until is not None, what="a round with the wrong clock")
        until(lambda: copy_of(office, incident).seen_at_reminder is not None, what="a reminder by the wrong clock")
        assert len(office.on_hold()) == 1
        clock.jump(timedelta())
        until(lambda: Seen.of(copy_of(office, incident)).marks == (None, None), what="a round with the right clock")
        # Only now: a round that began by the wrong clock would take these days for days after the reminder.
        office.was_seen(incident, 9 * DAY)
        later = office.incident(office.send())
        until(lambda: office.state(later) is State.HELD, what="a later round")
        assert (office.state(incident), len(office.on_hold())) == (State.HELD, 2)
        assert steward.log(event="copy_expired") == []
