"""The commands for held mail as an administrator types them: with a real Postfix, milter, journal and steward."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from lab import toml
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, NUMBERS, PARENTS, Office, attached, emptied, letter, new_gateway
from support.terminal import on_terminal
from undisclosed.incidents.records import Incident, State

WITHIN = 40.0
"""Seconds for any one thing that the steward does."""

RECIPIENTS = (*PARENTS[:3], COLLEAGUE)


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Gateway]:
    """A gateway with a rule for each sender; it stays attached for all tests of this file."""
    gateway = new_gateway(installed_postfix, outside)
    with attached(gateway):
        rules: list[toml.Table] = [
            {"name": "wait", "senders": ["later@council.test"], "action": "delay", "more_than_addresses": 10},
            {"name": "warn", "senders": ["warned@council.test"], "action": "warn", "more_than_addresses": 10},
            {"name": "hide", "senders": ["hidden@council.test"], "action": "rewrite", "more_than_addresses": 10},
            {"name": "many strangers", "action": "quarantine", "more_than_addresses": 10},
        ]
        gateway.configure(gateway.policy("quarantine", hold={"delay": "15s"}, rules=rules))
        gateway.milter.reload()
        yield gateway


@pytest.fixture
def office(standing: Gateway) -> Iterator[Office]:
    """The gateway with nothing held and nothing delivered."""
    with emptied(standing) as office:
        yield office


@pytest.fixture
def steward(office: Office) -> Iterator[Steward]:
    """A steward that runs as its unit runs it."""
    with Steward(office.gateway.config, directory=office.gateway.state) as steward:
        yield steward


def send(office: Office, sender: str = "clerk", state: State = State.HELD, **fields: str) -> Incident:
    """Send a letter from this person; returns its incident once it is in this state."""
    number = next(NUMBERS)
    message = letter(number, From=f"{sender}@council.test", **fields)
    assert office.gateway.send(message, sender=f"{sender}@council.test", to=RECIPIENTS).accepted

    def found() -> list[Incident]:
        incidents = office.journal.incidents.search(states=[state])
        return [incident for incident in incidents if incident.message_id == f"<letter-{number}@council.test>"]

    [incident] = until(found, what=f"the message to be {state}", within=WITHIN)
    return incident


def at_terminal(office: Office, *words: str, typed: str = "") -> tuple[int, str]:
    """Run a command at a terminal, and type this: its exit status and its output, with single blanks."""
    printed = on_terminal(100, *words, "--config", str(office.gateway.config), typed=typed)
    return printed.status, " ".join(re.sub(r"\x1b\[[0-9;]*m", "", printed.out).split())


def shown(office: Office, incident: Incident) -> tuple[str, int, str]:
    """The state of an incident, how many saw its list, and the same in words, as programs read it."""
    content = json.loads(office.gateway.command("incidents", "show", incident.reference, "--json").stdout)
    return content["state"], content["shown"], content["shown_words"]


@pytest.mark.usefixtures("steward")
def test_a_decision_is_asked_for_and_its_result_told(office: Office) -> None:
    """No: nothing happens. Yes: what happened, to how many; and later when, and by whom (users' walk, 6, 27)."""
    one, other = send(office, Subject="School places"), send(office, Subject="Trip on Friday")
    words = ("held", "release", other.reference, "--as", "unchanged", "--reason", "asked by phone")
    status, said = at_terminal(office, *words, typed="n\n")
    assert (status, office.state(other)) == (1, State.HELD)
    assert "1 message will be sent unchanged to 4 recipients, who can all read 12 external addresses in it:" in said
    assert f"Release {other.reference} unchanged? [y/N]" in said

    status, said = at_terminal(office, *words, typed="y\n")
    assert (status, office.state(other)) == (0, State.RELEASED)
    assert said.endswith(f"{other.reference} was released as unchanged to 4 recipients: asked by phone")
    assert shown(office, other) == ("released", 4, "shown to its 4 recipients")
    status, said = at_terminal(office, "held", "delete", one.reference, typed="y\n")
    assert (status, office.state(one)) == (0, State.DELETED)
    assert said.endswith(f"{one.reference} was deleted")
    assert shown(office, one) == ("deleted", 0, "nobody received it")

    for incident, what in ((one, "deleted"), (other, "released as unchanged")):
        done = office.gateway.command("held", "delete", incident.reference, "--yes")
        assert done.returncode == 1
        assert re.fullmatch(rf"{incident.reference} was {what} at \d\d:\d\d by root\n", done.stdout)
    assert office.received() == dict.fromkeys(RECIPIENTS, 1)


@pytest.mark.usefixtures("steward")
def test_the_record_says_whether_anybody_saw_the_list(office: Office) -> None:
    """A warned message and a rewritten one are both handed to Postfix, and differ in this (users' walk, 7)."""
    warned = send(office, "warned", State.DELIVERED)
    hidden = send(office, "hidden", State.DELIVERED)
    assert shown(office, warned) == ("handed to Postfix", 4, "shown to its 4 recipients")
    assert shown(office, hidden) == ("handed to Postfix", 0, "hidden from its 4 recipients")
    held = send(office)
    assert shown(office, held) == ("held", 0, "nobody has received it yet")
    assert at_terminal(office, "held", "release", held.reference, "--as", "split")[0] == 0
    assert shown(office, held) == ("released", 0, "hidden from its 4 recipients")


@pytest.mark.usefixtures("steward")
def test_delayed_mail_that_is_kept_does_not_leave(office: Office) -> None:
    """The list shows when it leaves; what is kept is there after that time, and the other is not (users' walk, 12)."""
    kept, other = send(office, "later"), send(office, "later", Subject="Another")
    rows = [line.split("\t") for line in office.gateway.command("held", "list").stdout.splitlines()[1:]]
    assert {(row[2], row[3].partition(" ")[0]) for row in rows} == {("delayed", "leaves")}
    done = office.gateway.command("held", "keep", kept.reference, "--reason", "stolen account")
    assert (done.returncode, done.stdout) == (0, f"{kept.reference} stays on hold until someone decides\n")
    until(lambda: office.state(other) is State.RELEASED, what="the other one to leave", within=WITHIN)
    assert office.state(kept) is State.HELD
    office.round(timedelta(hours=1))
    assert office.state(kept) is State.HELD
    assert set(office.on_hold()) == {copy.queue_id for copy in kept.copies}
    assert office.received() == dict.fromkeys(RECIPIENTS, 1)


def test_a_request_without_a_steward_is_taken_back(office: Office) -> None:
    """Nothing of it is carried out when the steward is back."""
    incident = office.held()
    assert office.gateway.command("held", "delete", incident.reference, "--yes", "--no-wait").returncode == 0
    done = office.gateway.command("held", "withdraw", incident.reference)
    assert (done.returncode, done.stdout) == (
        0, f"{incident.reference}: the request to delete it is taken back, and it stays on hold\n"
    )  # fmt: skip
    office.round()
    assert office.state(incident) is State.HELD
    assert len(office.on_hold()) == 1
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert [event.what for event in office.journal.incidents.events(incident.id) if event.at > since][-1] == (
        "request to delete withdrawn"
    )


def on_hold(office: Office) -> list[str]:
    """The senders of the messages on hold; notices, which postsuper(1) holds too, are left out."""
    return [entry["sender"] for entry in office.gateway.postfix.queue("hold") if "@council.test" in entry["sender"]]


@pytest.mark.usefixtures("steward")
def test_a_stolen_account_is_stopped_in_three_commands(office: Office) -> None:
    """docs/held-mail.md: what waits for a retry, what is delayed and what is held; none of it leaves, all is listed."""
    gateway, few = office.gateway, ", ".join(PARENTS[:2])
    with gateway.postfix.deferring():
        number = next(NUMBERS)
        passed = letter(number, From="later@council.test", To=few)
        assert gateway.send(passed, sender="later@council.test", to=PARENTS[:2]).accepted
        delayed = send(office, "later")
        until(lambda: gateway.postfix.queue("deferred"), what="a message that waits for a retry", within=WITHIN)
        gateway.postfix.postsuper("-h", "ALL")
        done = gateway.command("held", "keep", "--sender", "later@council.test", "--yes", "--reason", "stolen account")
        assert (done.returncode, delayed.reference in done.stdout) == (0, True), done.stderr

        def listed() -> list[list[str]]:
            lines = gateway.command("held", "list", "--sender", "later@council.test").stdout.splitlines()
            return [line.split("\t") for line in lines[1:]]

        until(lambda: len(listed()) == 2, what="both to be listed", within=WITHIN)
    assert {(row[2], row[7]) for row in listed()} == {("held", "wait"), ("held", "(none)")}
    gateway.postfix.run("postqueue", "-f")
    office.round(timedelta(hours=1))
    assert on_hold(office) == ["later@council.test"] * 2
    assert office.received() == {}
    done = gateway.command("held", "delete", "--sender", "later@council.test", "--yes")
    assert (done.returncode, len(done.stdout.splitlines()), on_hold(office)) == (0, 2, [])
