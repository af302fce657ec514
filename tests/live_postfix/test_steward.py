"""Held mail on a real Postfix: released in each mode, deleted, expired, and never lost when the steward dies."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from lab import milter, processes
from lab.gateway import Gateway
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, PARENTS, SENDER, Office, emptied, letter
from support.factories import transaction
from undisclosed import log
from undisclosed.incidents.records import Incident, ReleaseMode, State
from undisclosed.steward.comparison import ARRIVAL_TIME, LOGGED_WITHIN, SOON
from undisclosed.steward.due_notices import DueNotices
from undisclosed.steward.hold_queue import HoldQueue
from undisclosed.steward.release import JobRunner
from undisclosed.steward.requests import Requests


@pytest.fixture
def office_under(standing: Gateway, request: pytest.FixtureRequest) -> Iterator[Office]:
    """The same under another policy: the parameter is the action, and sections laid over it."""
    action, sections = request.param
    standing.configure(standing.policy(action, **sections))
    standing.milter.reload()
    with emptied(standing) as office:
        yield office
    standing.configure(standing.policy("quarantine"))
    standing.milter.reload()


# -- the modes


def visible(office: Office, recipient: str) -> set[str]:
    """The parents whose addresses one recipient's copy shows."""
    [delivery] = [delivery for delivery in office.gateway.sink.deliveries if recipient in delivery.recipients]
    return {parent for parent in PARENTS if parent.encode() in delivery.header}


@pytest.mark.parametrize("mode", ["bcc", "split", "unchanged"])
def test_a_release_reaches_every_recipient_once(office: Office, mode: ReleaseMode) -> None:
    """Each recipient gets one message, with the addresses that the mode lets it show; then nothing is held."""
    incident = office.held()
    request = office.ask(incident, "release", mode)
    office.round()
    assert office.answer(request) == ("done", f"as {mode}: a test")
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)
    assert (office.state(incident), office.on_hold()) == (State.RELEASED, [])
    shown = {"bcc": set(), "unchanged": set(PARENTS)}
    for parent in PARENTS[:3]:
        assert visible(office, parent) == shown.get(mode, {parent})
    assert visible(office, COLLEAGUE) == shown.get(mode, set())


def test_a_release_keeps_the_envelope_and_all_other_bytes(office: Office) -> None:
    """DSN parameters, SMTPUTF8 and BODY are passed on; the body and the fields without edits do not change."""
    with_everything = ["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=a+2Bb"]
    outcome = office.gateway.send(letter(7), sender=SENDER, to=PARENTS[:2], options=with_everything)
    assert outcome.accepted
    [before] = office.on_hold()
    envelope = office.gateway.postfix.envelope(before)
    content = office.gateway.postfix.postcat(before)
    office.round()
    office.ask(office.incident("<letter-7@council.test>"), "release", "bcc")
    with office.gateway.postfix.deferring():
        office.round()
        queue_id = office.gateway.postfix.deferred()
        after = office.gateway.postfix.envelope(queue_id)
        released = office.gateway.postfix.postcat(queue_id)
    kept = ("sender:", "named_attribute: envelope_id", "named_attribute: ret_flags", "named_attribute: encoding",
            "named_attribute: dsn_orig_rcpt", "recipient:")  # fmt: skip
    assert _starting(after, kept) == _starting(envelope, kept)
    assert _lines_but_recipients(released)[3:] == _lines_but_recipients(content)  # below one more Received


def _starting(text: str, kept: tuple[str, ...]) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(kept)]


def _lines_but_recipients(message: str) -> list[str]:
    lines, skipping = [], False
    for line in message.split("\n"):
        skipping = line.startswith(("To:", "Cc:")) or (skipping and line.startswith((" ", "\t")))
        if not skipping:
            lines.append(line)
    return lines


def test_a_deleted_message_reaches_nobody(office: Office) -> None:
    """The message is gone, and the journal has the actor."""
    incident = office.held()
    request = office.ask(incident, "delete")
    office.round()
    assert office.answer(request)[0] == "done"
    assert (office.state(incident), office.on_hold(), office.received()) == (State.DELETED, [], {})
    assert [event.actor for event in office.journal.incidents.events(incident.id) if event.what == "deleted"] == [
        "admin"
    ]


def test_a_message_with_an_obstacle_can_only_be_released_unchanged(office: Office) -> None:
    """The obstacle is the answer to the other modes, and the message stays held."""
    incident = office.held(**{"Content-Type": "application/ms-tnef"})
    ways: tuple[ReleaseMode, ...] = ("bcc", "split")
    for way in ways:
        request = office.ask(incident, "release", way)
        office.round()
        state, why = office.answer(request)
        assert (state, office.state(incident)) == ("refused", State.HELD)
        assert "winmail.dat" in why
        assert "delete it, and ask its sender to write it again" in why  # the advice must not be to show the list
    office.ask(incident, "release", "unchanged")
    office.round()
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)


def test_of_two_requests_for_one_message_the_second_is_not_made(office: Office) -> None:
    """Two people may ask for the same message; its recipients get it once."""
    incident = office.held()
    request = office.ask(incident, "release", "bcc")
    copies = [copy.id for copy in incident.copies]
    assert not office.journal.held.ask(copies, verb="release", mode="unchanged", actor="ann", reason="")
    office.round()
    office.round()
    assert office.answer(request)[0] == "done"
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)
    assert visible(office, PARENTS[0]) == set()


# -- when it is killed

PARTS_OF_SPLIT = 4
"""One for each of three outside recipients, and one for the colleague."""


@pytest.mark.parametrize("mode", ["bcc", "split", "unchanged"])
def test_killed_between_any_two_calls_of_a_release(office: Office, mode: ReleaseMode) -> None:
    """Every recipient gets the message once. One part may come twice if its 250 is not recorded; an event says so."""
    points: list[str] = []
    while True:
        office.gateway.sink.clear()
        incident = office.held()
        request = office.ask(incident, "release", mode)
        died = office.dies_at(len(points))
        assert sum(office.received().values()) > 0 or office.on_hold()
        office.round()
        office.round()
        assert office.answer(request)[0] == "done"
        assert (office.state(incident), office.on_hold()) == (State.RELEASED, [])
        received = office.received()
        assert set(received) == {*PARENTS[:3], COLLEAGUE}
        doubts = [event for event in office.journal.incidents.events(incident.id) if "second time" in event.why]
        if died == "after send":
            assert doubts
        else:
            assert set(received.values()) == {1}
        if died is None:
            break
        points.append(died)
    print(f"killed at {len(points)} points of a release as {mode}")
    parts = ["send", "record_accepted"] * (PARTS_OF_SPLIT if mode == "split" else 1)
    calls = ["take", "read", "begin_release", *parts, "delete", "set_state released", "add", "answer"]
    assert points == ["before take", *(f"after {call}" for call in calls)]


def test_killed_between_any_two_calls_of_a_deletion(office: Office) -> None:
    """The message is deleted, and no recipient gets it."""
    points: list[str] = []
    while True:
        incident = office.held()
        request = office.ask(incident, "delete")
        died = office.dies_at(len(points))
        office.round()
        office.round()
        state, _ = office.answer(request)
        assert (state, office.on_hold(), office.received()) == ("done", [], {})
        assert office.state(incident) is State.DELETED
        if died is None:
            break
        points.append(died)
    print(f"killed at {len(points)} points of a deletion")
    calls = ["take", "read", "add_event", "delete", "set_state deleted", "add", "answer"]
    assert points == ["before take", *(f"after {call}" for call in calls)]


# -- other programs


def test_mail_released_by_hand_is_closed_in_the_journal(office: Office) -> None:
    """postsuper -H releases the message unchanged; the steward finds it in no listing any more."""
    incident = office.held()
    with capture_logs() as events, office.steward() as steward:
        steward.round(datetime.now(UTC))
        office.gateway.postfix.postsuper("-H", office.on_hold()[0])
        request = office.ask(incident, "release", "bcc")
        steward.round(datetime.now(UTC))
        steward.round(datetime.now(UTC) + SOON)
    assert office.state(incident) is State.RELEASED_BY_HAND
    assert [event.get("state") for event in events if event["event"] == "copy_left_by_hand"] == ["released by hand"]
    assert office.answer(request) == ("refused", "it is not held any more: released by hand")


def test_mail_that_never_came_is_logged_by_an_event_of_its_own(office: Office) -> None:
    """A client that disconnects after the record leaves no message: the administrator has nothing to do."""
    gateway = office.context.gateway
    copy = office.journal.filing.record(transaction(gateway=gateway, at=datetime.now(UTC)))
    with capture_logs() as events, office.steward() as steward:
        for later in (timedelta(), ARRIVAL_TIME, ARRIVAL_TIME + SOON):
            steward.round(datetime.now(UTC) + later)
    assert office.journal.incidents.get(copy.incident_id).state is State.NEVER_QUEUED
    reference = office.journal.incidents.get(copy.incident_id).reference
    seen = [(event["event"], event["queue_id"], event["reference"]) for event in events]
    assert seen == [("copy_never_queued", copy.queue_id, reference)]
    assert "gone" not in {notice.kind for notice in office.journal.notices.of(copy.incident_id)}


def test_mail_that_came_and_went_while_no_steward_ran_is_gone(office: Office) -> None:
    """Held-mail review: of which the log says nothing any more. It may have been sent by hand: its sender is told."""
    gateway = office.context.gateway
    copy = office.journal.filing.record(transaction(gateway=gateway, at=datetime.now(UTC) - 2 * ARRIVAL_TIME))
    with capture_logs() as events, office.steward() as steward:
        steward.round(datetime.now(UTC))
        steward.round(datetime.now(UTC) + LOGGED_WITHIN)
    assert office.journal.incidents.get(copy.incident_id).state is State.GONE
    assert [event["queue_id"] for event in events if event["event"] == "copy_left_by_hand"] == [copy.queue_id]
    assert "gone" in {notice.kind for notice in office.journal.notices.of(copy.incident_id)}


def test_held_mail_without_an_incident_is_adopted(office: Office) -> None:
    """A message that a person held with postsuper is listed, never expires, and can be released."""
    with office.gateway.postfix.deferring():
        office.gateway.send(letter(99, To=PARENTS[0]), sender=SENDER, to=[PARENTS[0]])
        office.gateway.postfix.postsuper("-h", office.gateway.postfix.deferred())
    office.round()
    incident = office.incident("<letter-99@council.test>")
    assert (incident.leading.rule, incident.state, incident.copies[0].until) == ("", State.HELD, None)
    office.round(later=timedelta(days=400))
    assert office.state(incident) is State.HELD
    office.ask(incident, "release", "unchanged")
    office.round()
    assert office.received() == {PARENTS[0]: 1}


def test_an_incident_that_the_milter_could_not_record_is_recorded_later(office: Office) -> None:
    """With the rule, as the milter would have done; it waits for a person, and does not expire."""
    message_id = office.send()
    office.incident(message_id)  # reading files the milter's record
    journal = office.context.policy.journal.url.removeprefix("sqlite:///")
    with sqlite3.connect(journal) as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("DELETE FROM incident WHERE message_id = ?", [message_id])
    office.round()
    incident = office.incident(message_id)
    assert (incident.leading.rule, incident.count, incident.state) == ("many strangers", 12, State.HELD)
    assert incident.copies[0].until is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE request SET verb = 'forward' WHERE id = :id", "is not a request"),
        ("UPDATE request SET mode = 'plain' WHERE id = :id", "is not a request"),
        ("UPDATE request SET verb = 'delete' WHERE id = :id", "is not a request"),
        ("UPDATE request SET actor = '' WHERE id = :id", "names no actor"),
        ("UPDATE request SET actor = 'sender' WHERE id = :id", "hold.sender_may"),
        ("UPDATE request SET actor = 'steward' WHERE id = :id", "no rule asks"),
        ("UPDATE queue_copy SET queue_id = 'ALL' WHERE id = :copy", "is not a queue id"),
        ("UPDATE queue_copy SET queue_id = '-' WHERE id = :copy", "is not a queue id"),
        ("UPDATE queue_copy SET message_id = '<other@council.test>' WHERE id = :copy", "another Message-ID"),
        ("UPDATE queue_copy SET size = size + 1 WHERE id = :copy", "bytes"),
        ("UPDATE queue_copy SET arrived = '2020-01-01 00:00:00.000000' WHERE id = :copy", "arrived"),
    ],
)
def test_forged_rows_are_refused(office: Office, change: str, words: str) -> None:
    """A forged row in the journal cannot release or delete more than the policy allows."""
    incident = office.held()
    request = office.ask(incident, "release", "unchanged")
    journal = office.context.policy.journal.url.removeprefix("sqlite:///")
    with sqlite3.connect(journal) as database:
        database.execute(change, {"id": request.id, "copy": incident.copies[0].id})
    policy = office.context.policy
    with HoldQueue(policy.postfix.config_dir) as queue:
        requests = Requests(
            office.journal,
            JobRunner(office.journal, queue, office.context.key, lambda: None),
            DueNotices(office.journal),
            log.get(),
        )
        requests.carry_out(office.context, datetime.now(UTC), missing=(), cleared=())
    state, why = office.answer(request)
    assert (state, len(office.on_hold()), office.received()) == ("refused", 1, {})
    assert words in why


# -- time


def notices(office: Office, incident: Incident) -> list[str]:
    """The kinds of notices that are due about it, in order."""
    ever = datetime.now(UTC) + timedelta(days=99)
    return [notice.kind for notice in office.journal.notices.due(ever) if notice.incident_id == incident.id]


@pytest.mark.parametrize("office_under", [("split", {})], indirect=True)
def test_the_action_split(office_under: Office) -> None:
    """The steward releases the message at once: each recipient gets their own part."""
    message_id = office_under.send()
    office_under.round()
    assert office_under.incident(message_id).state is State.RELEASED
    assert office_under.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)
    assert visible(office_under, PARENTS[1]) == {PARENTS[1]}


@pytest.mark.parametrize("office_under", [("delay", {"hold": {"delay": "10m"}})], indirect=True)
def test_the_action_delay(office_under: Office) -> None:
    """The steward releases as bcc after hold.delay; a message that was deleted meanwhile is not sent."""
    message_id, stopped = office_under.send(), office_under.send()
    office_under.round()
    office_under.round(later=timedelta(minutes=9))
    assert (office_under.incident(message_id).state, office_under.received()) == (State.HELD, {})
    office_under.ask(office_under.incident(stopped), "delete")
    office_under.round()
    office_under.round(later=timedelta(minutes=11))
    assert office_under.incident(message_id).state is State.RELEASED
    assert office_under.incident(stopped).state is State.DELETED
    assert office_under.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)
    assert visible(office_under, PARENTS[0]) == set()


@pytest.mark.parametrize("office_under", [("delay", {"hold": {"delay": "10m"}})], indirect=True)
def test_a_delay_that_becomes_longer(office_under: Office) -> None:
    """Held-mail review: a held message leaves later after a reload, and `held list` still named the old time."""
    message_id = office_under.send()
    with office_under.steward() as steward:
        steward.round(datetime.now(UTC))
        [before] = office_under.incident(message_id).copies
        policy = office_under.context.policy
        hold = policy.hold.model_copy(update={"delay": timedelta(minutes=30)})
        steward.context = replace(office_under.context, policy=policy.model_copy(update={"hold": hold}))
        for _ in range(2):
            steward.round(datetime.now(UTC))
    [after] = office_under.incident(message_id).copies
    assert before.leaves is not None
    assert after.leaves == before.leaves + timedelta(minutes=20)
    events = office_under.journal.incidents.events(after.incident_id)
    assert [event.why for event in events if event.what == "leaves later"] == ["hold.delay is longer now"]


def test_mail_that_came_while_the_clock_was_ahead(office: Office) -> None:
    """Held-mail review: it expires as mail of today, and not as much later as the clock was ahead."""
    message_id = office.send()
    with office.steward() as steward:
        set_right = datetime.now(UTC) - timedelta(days=365)
        steward.round(set_right)
    [copy] = office.incident(message_id).copies
    assert copy.until == set_right + timedelta(days=office.context.policy.hold.expire_days)


# -- the process, and its commands


def test_the_commands_and_the_process_without_rights(office: Office) -> None:
    """The commands list, show, release and delete held mail, by a steward without root's rights."""
    gateway = office.gateway
    user = (milter.unprivileged_user() or ("root", ""))[0]
    ids = [office.send() for _ in range(4)]
    with Steward(gateway.config, directory=gateway.state, rights_of=user) as steward:
        until(lambda: all(office.incident(message_id).state is State.HELD for message_id in ids), what="all to be held")
        with open(f"/proc/{steward.pid}/status") as status:  # noqa: PTH123  a line of /proc
            uids = next(line for line in status if line.startswith("Uid:")).split()[1:]
        assert user == "root" or "0" not in uids
        assert steward.reload_command().returncode == 0
        listed = [json.loads(line) for line in gateway.command("held", "list", "--json").stdout.splitlines()]
        references = [row["reference"] for row in listed]
        assert sorted(office.incident(message_id).reference for message_id in ids) == sorted(references)
        ways = ("bcc", "split", "unchanged")
        for way, reference in zip(ways, references, strict=False):
            why = ("--reason", "asked by phone", "--yes")
            done = gateway.command("held", "release", reference[:6].lower(), "--as", way, *why)
            answered = f"{reference} was released as {way} to 4 recipients: asked by phone\n"
            assert (done.returncode, done.stdout) == (0, answered)
        again = gateway.command("held", "release", references[0], "--as", "bcc", "--json")
        answer: dict[str, Any] = json.loads(again.stdout)
        assert (again.returncode, answer["answer"]) == (1, "refused")
        done = gateway.command("held", "delete", "--sender", SENDER, "--yes")
        assert (done.returncode, done.stdout) == (0, f"{references[3]} was deleted\n")
        assert gateway.command("held", "list").stdout == "nothing is held\n"
        shown = gateway.command("held", "show", references[0]).stdout
        assert "asked by phone" in shown
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 3)


def test_a_killed_steward_leaves_no_process_and_the_next_one_continues(office: Office) -> None:
    """SIGKILL of the unprivileged half ends the root half too; the next steward carries out the open request."""
    gateway = office.gateway
    incident = office.held()
    steward = Steward(gateway.config, directory=gateway.state)
    steward.start()
    steward.kill()
    assert gateway.command("held", "release", incident.reference, "--as", "bcc", "--no-wait").returncode == 0
    with steward:
        until(lambda: office.state(incident) is State.RELEASED, what="the release")
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)


def test_a_steward_whose_root_half_is_killed_ends_to_be_started_again(office: Office) -> None:
    """Exit status 1, at its next request to the root half; the next steward continues."""
    gateway = office.gateway
    message_id = office.send()
    steward = Steward(gateway.config, directory=gateway.state)
    steward.start()
    until(lambda: office.incident(message_id).state is State.HELD, what="the message to be held")
    incident = office.incident(message_id)
    os.kill(root_half_of(steward), signal.SIGKILL)
    office.ask(incident, "release", "bcc")
    assert steward.wait() == 1
    assert "(exit status 1): the root half of the steward has ended" in steward.log_file.read_text().splitlines()[-1]
    with Steward(gateway.config, directory=gateway.state):
        until(lambda: office.state(incident) is State.RELEASED, what="the release")
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)


def test_sighup_to_all_processes_of_the_steward_reloads(office: Office) -> None:
    """The root half ignores it (OpenDMARC#322: it died, and the steward with it). The next release is as ever."""
    gateway = office.gateway
    message_id = office.send()
    with Steward(gateway.config, directory=gateway.state) as steward:
        until(lambda: office.incident(message_id).state is State.HELD, what="the message to be held")
        root_half = root_half_of(steward)
        for pid in (root_half, steward.pid):
            os.kill(pid, signal.SIGHUP)
        until(lambda: steward.log(event="reloaded"), what="the reload")
        incident = office.incident(message_id)
        office.ask(incident, "release", "bcc")
        until(lambda: office.state(incident) is State.RELEASED, what="the release")
        assert root_half_of(steward) == root_half
        os.kill(root_half, signal.SIGTERM)
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)


def root_half_of(steward: Steward) -> int:
    """The process id of its root half; sendmail(1) may be another child."""
    for pid in processes.children(steward.pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"undisclosed.steward.privileged" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    raise LookupError("the steward has no root half")
