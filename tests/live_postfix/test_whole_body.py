"""Messages whose recipients are to be hidden, of any size: hidden, or refused or held, and told as such."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from structlog.testing import capture_logs

from lab import toml
from lab.client import Outcome
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.office import COLLEAGUE, PARENTS, Office, attached, emptied, new_gateway
from support.delivered_header import leaks
from undisclosed.incidents.records import ReleaseMode, State, parts_for
from undisclosed.policy import Action
from undisclosed.steward.requests import ATTEMPTS, RETRY

ACTIONS = ["rewrite", "split", "delay"]
HELD = ["split", "delay"]
EVERYBODY = (*PARENTS[:3], COLLEAGUE)
LATER = timedelta(minutes=5)
"""Beyond hold.delay."""

NUMBERS = count(900_000)
PDF = base64.encodebytes(random.Random(5).randbytes(1_200_000))
MULTIPART = {"MIME-Version": "1.0", "Content-Type": "multipart/mixed; boundary=b"}
NEWSLETTER = (
    b"--b\nContent-Type: text/plain\n\nDear parents,\nsee the attached newsletter, or ask office@council.test.\n"
    b"--b\nContent-Type: application/pdf; name=news.pdf\nContent-Transfer-Encoding: base64\n\n" + PDF + b"--b--\n"
)
SIGNED = {"MIME-Version": "1.0", "Content-Type": 'multipart/signed; protocol="application/pgp-signature"; boundary=b'}
SIGNATURE = b"--b\nContent-Type: text/plain\n\nDear parents\n--b\nContent-Type: application/pgp-signature\n\nx\n--b--\n"
FORWARDED = (
    NEWSLETTER.removesuffix(b"--b--\n")
    + b"--b\nContent-Type: message/rfc822\n\nTo: "
    + ",\n\t".join(PARENTS).encode()
    + b"\nSubject: School places\n\nDear all\n--b--\n"
)


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Gateway]:
    """A gateway on which the sender's name is the action for what shows too many addresses."""
    gateway = new_gateway(installed_postfix, outside)
    with attached(gateway):
        installed_postfix.set(virtual_alias_maps=f"inline:{{families@council.test={PARENTS[3]}}}")
        configure(gateway, "quarantine")
        yield gateway


@pytest.fixture
def office(standing: Gateway) -> Iterator[Office]:
    """The steward's place, with nothing held and nothing delivered."""
    configure(standing, "quarantine")
    with emptied(standing) as office:
        yield office


def configure(gateway: Gateway, when_unsafe: str) -> None:
    """The rules, and the action for what cannot be hidden."""
    rules: list[toml.Table] = [
        {"name": action, "senders": [f"{action}@council.test"], "more_than_addresses": 10, "action": action}
        for action in ACTIONS
    ]
    gateway.configure(gateway.policy(rules=rules, rewrite={"when_unsafe": when_unsafe}, hold={"delay": "1s"}))
    gateway.milter.reload()


def send(
    office: Office, action: str, body: bytes, *, to: Sequence[str] = EVERYBODY, **fields: str
) -> tuple[Outcome, str]:
    """Send a message under an action; returns the outcome and the Message-ID."""
    name = f"<body-{next(NUMBERS)}@council.test>"
    header = {
        "From": f"{action}@council.test",
        "To": ",\n\t".join(PARENTS),
        "Cc": COLLEAGUE,
        "Subject": "The newsletter",
        "Message-ID": name,
        "Date": "Mon, 02 Feb 2026 09:00:00 +0000",
        **fields,
    }
    text = "".join(f"{field}: {value}\n" for field, value in header.items()).encode() + b"\n" + body
    return office.gateway.send(text, sender=f"{action}@council.test", to=to), name


def due(office: Office, message_id: str) -> list[str]:
    """The kinds of the notices that are due about a message."""
    incident = office.incident(message_id)
    notices = office.journal.notices.due(datetime.now(UTC) + timedelta(days=1))
    return [notice.kind for notice in notices if notice.incident_id == incident.id]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_newsletter_with_a_large_attachment_goes_out_hidden(office: Office, action: str) -> None:
    """Size alone is no obstacle (hostile review, 3; users' walk, 32)."""
    outcome, message_id = send(office, action, NEWSLETTER, **MULTIPART)
    assert outcome.accepted
    if action in HELD:
        office.round()
        office.round(LATER)
        assert office.state(office.incident(message_id)) is State.RELEASED
    assert office.received() == dict.fromkeys(EVERYBODY, 1)
    for delivery in office.gateway.sink.deliveries:
        own = {f"to: {delivery.recipients[0]}"} if action == "split" else set()
        assert set(leaks(delivery.header)) <= own
        assert PDF in delivery.data.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("fields", "body"), [(SIGNED, SIGNATURE), (MULTIPART, FORWARDED)], ids=["signed", "forwarded"])
def test_what_cannot_be_hidden_is_refused(office: Office, action: str, fields: dict[str, str], body: bytes) -> None:
    """`when_unsafe = "reject"` holds for all three actions: 550, and nothing is held."""
    configure(office.gateway, "reject")
    outcome, message_id = send(office, action, body, **fields)
    assert not outcome.accepted
    assert outcome.final.code == 550
    assert (office.received(), office.on_hold()) == ({}, [])
    assert office.incident(message_id).state is State.REJECTED


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("fields", "body"), [(SIGNED, SIGNATURE), (MULTIPART, FORWARDED)], ids=["signed", "forwarded"])
def test_what_cannot_be_hidden_is_held_and_told_as_such(
    office: Office, action: str, fields: dict[str, str], body: bytes
) -> None:
    """Nobody is told that it will be sent, and nobody tries to (hostile review, 3 and 9)."""
    outcome, message_id = send(office, action, body, **fields)
    assert outcome.accepted
    office.round()
    office.round(LATER)
    incident = office.incident(message_id)
    [copy] = incident.copies
    assert (copy.state, copy.action) == (State.HELD, Action.QUARANTINE)
    assert copy.obstacle
    assert due(office, message_id) == ["held"]
    assert office.received() == {}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_list_in_a_trace_field_is_in_sight(office: Office, action: str) -> None:
    """A scanner on the way wrote all recipients into Received (MailScanner/v5#245; milter reports, 14)."""
    received = f"from pc by scanner\n\tfor {', '.join(f'<{parent}>' for parent in PARENTS)}; now"
    outcome, message_id = send(office, action, b"Dear parents\n", Received=received)
    assert outcome.accepted
    office.round()
    office.round(LATER)
    [copy] = office.incident(message_id).copies
    assert (copy.state, copy.obstacle) == (State.HELD, "Received repeats the recipients")
    assert office.received() == {}


@pytest.mark.parametrize("action", HELD)
def test_an_obstacle_that_only_the_steward_can_see_is_told(office: Office, action: str) -> None:
    """Postfix expands an alias behind the milters: its member is hidden too, and the text names four of the hidden."""
    body = f"Ask {', '.join(PARENTS[1:4])} or x@elsewhere.example.\n".encode()
    to = (*EVERYBODY, "families@council.test")
    visible = ",\n\t".join([*PARENTS[:3], *PARENTS[4:], "x@elsewhere.example"])
    with capture_logs() as lines:
        outcome, message_id = send(office, action, body, to=to, To=visible)
        assert outcome.accepted
        office.round()
        office.round(LATER)
        office.round(LATER + LATER)
    incident = office.incident(message_id)
    assert office.state(incident) is State.HELD
    assert due(office, message_id) == ["held"]
    waits = [line["log_level"] for line in lines if line["event"] == "copy_not_releasable"]
    assert waits == ["error"]
    assert len([line for line in lines if line["event"] == "request_refused"]) == 1
    assert office.received() == {}


@pytest.mark.parametrize("action", HELD)
def test_a_release_that_fails_for_half_an_hour_is_told(office: Office, action: str) -> None:
    """It was tried twice a minute for 14 days, and nobody was told (hostile review, 3)."""
    outcome, message_id = send(office, action, b"Dear parents\n")
    assert outcome.accepted
    postfix = office.gateway.postfix
    postfix.set(undisclosed_release_milters="inet:127.0.0.1:9", milter_default_action="tempfail")
    elapsed = LATER
    try:
        with capture_logs() as lines, office.steward() as steward:
            steward.round(datetime.now(UTC))
            for attempt in range(ATTEMPTS + 2):
                steward.round(datetime.now(UTC) + elapsed)
                elapsed += RETRY * 2**attempt
    finally:
        postfix.run("postconf", "-X", "undisclosed_release_milters")
    events = [
        line["event"] for line in lines if line["event"] in ("release_failed", "copy_not_releasable", "request_failed")
    ]
    assert events == ["release_failed"] * (ATTEMPTS - 1) + ["copy_not_releasable", "request_failed"]
    assert office.state(office.incident(message_id)) is State.HELD
    assert due(office, message_id) == ["held"]


def begun(office: Office, message_id: str, mode: ReleaseMode, served: int = 1) -> None:
    """Let the first recipients have the message: the steward was interrupted then."""
    [copy] = office.incident(message_id).copies
    office.journal.held.set_state(copy.id, State.RELEASING)
    office.journal.held.record_accepted(copy.id, parts_for(mode, range(served), len(EVERYBODY)))


@pytest.mark.parametrize("action", HELD)
def test_a_release_that_fails_after_some_have_the_message_waits_for_a_person_too(office: Office, action: str) -> None:
    """Held-mail review: it was tried for ever. A person's release serves the others, and nobody gets it twice."""
    outcome, message_id = send(office, action, b"Dear parents\n")
    assert outcome.accepted
    postfix = office.gateway.postfix
    postfix.set(undisclosed_release_milters="inet:127.0.0.1:9", milter_default_action="tempfail")
    elapsed = LATER
    try:
        with capture_logs() as lines, office.steward() as steward:
            steward.round(datetime.now(UTC))
            begun(office, message_id, "split" if action == "split" else "bcc")
            for attempt in range(ATTEMPTS + 2):
                steward.round(datetime.now(UTC) + elapsed)
                elapsed += RETRY * 2**attempt
    finally:
        postfix.run("postconf", "-X", "undisclosed_release_milters")
        postfix.reload()
    events = [
        line["event"] for line in lines if line["event"] in ("release_failed", "copy_not_releasable", "request_failed")
    ]
    assert events == ["release_failed"] * (ATTEMPTS - 1) + ["copy_not_releasable", "request_failed"]
    incident = office.incident(message_id)
    [copy] = incident.copies
    assert (copy.state, copy.waits is None) == (State.RELEASING, False)
    assert due(office, message_id) == ["held"]
    office.round(elapsed)
    assert (office.state(incident), office.received()) == (State.RELEASING, {})
    office.ask(incident, "release", "bcc")
    office.round(elapsed)
    assert office.state(incident) is State.RELEASED
    assert office.received() == dict.fromkeys(EVERYBODY[1:], 1)
    assert "released" in due(office, message_id)


@pytest.mark.parametrize("served", [1, len(EVERYBODY)])
def test_a_release_that_is_refused_after_some_have_the_message_waits_for_a_person(office: Office, served: int) -> None:
    """It was neither tried again nor told, and never expired. If all have it, only its file has to be deleted."""
    body = f"Ask {', '.join(PARENTS[1:4])} or x@elsewhere.example.\n".encode()
    to = (*EVERYBODY, "families@council.test")
    visible = ",\n\t".join([*PARENTS[:3], *PARENTS[4:], "x@elsewhere.example"])
    outcome, message_id = send(office, "delay", body, to=to, To=visible)
    assert outcome.accepted
    office.round()
    begun(office, message_id, "bcc", served)
    with capture_logs() as lines:
        office.round(LATER)
    [copy] = office.incident(message_id).copies
    is_waiting = served < len(EVERYBODY)
    assert (copy.state, copy.waits is not None) == (State.RELEASING, is_waiting)
    assert due(office, message_id) == (["held"] if is_waiting else ["delayed"])
    events = [line["event"] for line in lines if line["log_level"] in ("warning", "error")]
    assert events == (["copy_not_releasable", "request_refused"] if is_waiting else ["release_failed"])
