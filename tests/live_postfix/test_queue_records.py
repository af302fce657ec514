"""The records of a queue file that a release has to carry over, has to refuse, or must not believe."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from lab import milter
from lab.client import Client
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, PARENTS, SENDER, Office, attached, emptied, letter, new_gateway
from undisclosed.incidents.records import Incident, ReleaseMode, State

CATCH_ALL = "catchall@council.test"
FILTERED = "filtered@council.test"
REDIRECTED = "redirected@council.test"
DECIDED = f"/{FILTERED}/ FILTER smtp:[127.0.0.1]:9\n/{REDIRECTED}/ REDIRECT {CATCH_ALL}\n"
MODES: tuple[ReleaseMode, ...] = ("bcc", "split", "unchanged")


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Gateway]:
    """A gateway that holds what shows too many, with an access table and header_checks that decide about some mail."""
    gateway = new_gateway(installed_postfix, outside)
    with attached(gateway):
        (installed_postfix.config_dir / "decided").write_text(DECIDED)
        (installed_postfix.config_dir / "checks").write_text("/^Subject:.*secure/ FILTER smtp:[127.0.0.1]:9\n")
        installed_postfix.set(
            smtpd_sender_restrictions=f"check_sender_access regexp:{installed_postfix.config_dir}/decided",
            header_checks=f"regexp:{installed_postfix.config_dir}/checks",
            smtpd_authorized_verp_clients="127.0.0.1",
        )
        gateway.configure(gateway.policy("quarantine"))
        gateway.milter.reload()
        yield gateway


@pytest.fixture
def office_under(standing: Gateway, request: pytest.FixtureRequest) -> Iterator[Office]:
    """The same under another action."""
    standing.configure(standing.policy(request.param, hold={"delay": "1s"}))
    standing.milter.reload()
    with emptied(standing) as office:
        yield office
    standing.configure(standing.policy("quarantine"))
    standing.milter.reload()


numbers = iter(range(700_000, 800_000))


def held(
    office: Office, *, sender: str = SENDER, rcpt: str = "", mail: tuple[str, ...] = (), **fields: str
) -> Incident:
    """Send a letter with these options, and make a round, so that it is held."""
    number = next(numbers)
    with Client(office.gateway.postfix.port) as client:
        assert client.mail(sender, *mail).positive
        for person in (*PARENTS[:3], COLLEAGUE):
            assert client.command(f"RCPT TO:<{person}> {rcpt}".rstrip()).positive
        assert client.command("DATA").code == 354
        assert client.content(letter(number, **fields)).positive
    office.round()
    return office.incident(f"<letter-{number}@council.test>")


def released(office: Office, incident: Incident, mode: ReleaseMode) -> tuple[str, str]:
    """Ask for a release; returns the answer."""
    request = office.ask(incident, "release", mode)
    office.round()
    return office.answer(request)


FORGED_MESSAGE = (
    "recipient:+20victim@elsewhere.example",
    "***+20MESSAGE+20CONTENTS+20hold/A+20***",
    "regular_text:+20From:+20CEO+20<ceo@council.test>",
    "***+20HEADER+20EXTRACTED+20hold/A+20***",
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "forged", [FORGED_MESSAGE, FORGED_MESSAGE[:1], ("redirect_to:+20victim@elsewhere.example",), ("padding:+200",)]
)
def test_a_message_forged_in_orcpt_can_only_be_deleted(
    office: Office, mode: ReleaseMode, forged: tuple[str, ...]
) -> None:
    """smtpd decodes the line ends, and postcat prints records that the sender made up: no recipient gets anything."""
    incident = held(office, rcpt="+0A".join(["ORCPT=rfc822;a", *forged]))
    state, answer = released(office, incident, mode)
    assert state == "refused"
    assert "it cannot be read" in answer
    assert office.state(incident) is State.HELD
    delete = office.ask(incident, "delete")
    office.round()
    assert office.answer(delete)[0] == "done"
    assert (office.received(), office.on_hold(), office.state(incident)) == ({}, [], State.DELETED)


@pytest.mark.parametrize("mode", MODES)
def test_redirected_mail_is_released_to_its_one_address(office: Office, mode: ReleaseMode) -> None:
    """REDIRECT of an access table: the catch-all gets one message, the parents none."""
    incident = held(office, sender=REDIRECTED)
    assert released(office, incident, mode)[0] == "done"
    assert office.received() == {CATCH_ALL: 1}
    assert office.state(incident) is State.RELEASED


@pytest.mark.parametrize("office_under", ["split", "delay"], indirect=True)
def test_redirected_mail_goes_to_its_one_address_without_any_person(office_under: Office) -> None:
    """The steward's own releases are no different."""
    held(office_under, sender=REDIRECTED)
    office_under.round(timedelta(minutes=5))
    assert office_under.received() == {CATCH_ALL: 1}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"sender": FILTERED}, "smtp:[127.0.0.1]:9"),
        ({"Subject": "[secure] places"}, "smtp:[127.0.0.1]:9"),
        ({"mail": ("XVERP=+=",)}, "VERP"),
    ],
)
def test_what_a_release_cannot_carry_over_is_refused(
    office: Office, mode: ReleaseMode, options: dict[str, Any], word: str
) -> None:
    """FILTER of an access table and of header_checks, and VERP: still held, with the reason and the remedy."""
    incident = held(office, **options)
    state, answer = released(office, incident, mode)
    assert state == "refused"
    assert word in answer
    assert "delete it, and ask its sender to send it again" in answer
    assert (office.received(), office.state(incident)) == ({}, State.HELD)
    delete = office.ask(incident, "delete")
    office.round()
    assert office.answer(delete)[0] == "done"


@pytest.mark.parametrize("office_under", ["split", "delay"], indirect=True)
@pytest.mark.parametrize("options", [{"sender": FILTERED}, {"rcpt": "ORCPT=rfc822;a+0Apadding:+200"}])
def test_a_message_that_the_steward_cannot_release_waits_for_a_person(
    office_under: Office, options: dict[str, Any]
) -> None:
    """Its sender is told that it is on hold, and not that it will be sent; nothing is tried."""
    with capture_logs() as lines:
        incident = held(office_under, **options)
        office_under.round(timedelta(minutes=5))
    assert [line["reference"] for line in lines if line["event"] == "copy_not_releasable"] == [incident.reference]
    assert not [line for line in lines if line["event"].startswith(("request_", "release_"))]
    due = office_under.journal.notices.due(datetime.now(UTC))
    assert [notice.kind for notice in due if notice.incident_id == incident.id] == ["held"]
    assert (office_under.received(), office_under.state(incident)) == ({}, State.HELD)
    delete = office_under.ask(incident, "delete")
    office_under.round()
    assert office_under.answer(delete)[0] == "done"


def test_the_content_filter_of_main_cf_is_carried_over(office: Office) -> None:
    """The released message goes through it, by a steward without root's rights; another one than it had is refused."""
    postfix = office.gateway.postfix
    with Sink() as scanner:
        postfix.set(content_filter=f"smtp:[127.0.0.1]:{scanner.port}")
        try:
            first, second = held(office), held(office)
            user = (milter.unprivileged_user() or ("root", ""))[0]
            with Steward(office.gateway.config, directory=office.gateway.state, rights_of=user):
                request = office.ask(first, "release", "bcc")
                until(lambda: office.journal.held.answered([request.id]), what="the release")
            assert office.answer(request)[0] == "done"
            assert len(scanner.wait_for(1)) == 1
            postfix.set(content_filter="smtp:[127.0.0.1]:9")
            state, answer = released(office, second, "bcc")
            assert state == "refused"
            assert str(scanner.port) in answer
        finally:
            postfix.set(content_filter="")
    assert office.received() == {}


def test_a_message_with_all_that_dsn_has_is_read(office: Office) -> None:
    """The length of its envelope is that of its records: all DSN parameters, SMTPUTF8, AUTH, always_bcc."""
    options = ("SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=a+2Bb", "AUTH=<>")
    office.gateway.postfix.set(always_bcc="archive@council.test", delay_warning_time="4h")
    try:
        held(office, mail=options, rcpt="NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+20y@x.example+20")
    finally:
        office.gateway.postfix.set(always_bcc="", delay_warning_time="0h")
    with office.steward() as steward:
        queue = steward._reconciler._queue
        [queued] = queue.read(office.on_hold()).values()
    assert [person.automatic for person in queued.recipients] == [False] * 4 + [True]
    assert (queued.ret, queued.envelope_id, queued.recipients[0].original) == ("HDRS", "a+b", "rfc822;x y@x.example")


def test_a_release_that_a_content_filter_puts_back_on_hold(office: Office) -> None:
    """The filter's listener has our milter: answer and log say that it is on hold again (milter-reports, 30)."""
    postfix = office.gateway.postfix
    with Sink() as scanner:
        postfix.set(content_filter=f"smtp:[127.0.0.1]:{scanner.port}")
        try:
            incident = held(office)
            with office.steward() as steward, capture_logs() as lines:
                request = office.ask(incident, "release", "unchanged")
                steward.round(datetime.now(UTC))
                assert office.journal.held.answered([request.id]) == []
                [letter_] = scanner.wait_for(1)
                assert office.gateway.send(letter_.data, sender=letter_.sender, to=letter_.recipients).accepted
                steward.round(datetime.now(UTC))
        finally:
            postfix.set(content_filter="")
    state, answer = office.answer(request)
    [queue_id] = office.on_hold()
    assert state == "failed"
    assert f"is on hold again as {queue_id}: the content filter smtp:[127.0.0.1]:{scanner.port}" in answer
    assert [line["reason"] for line in lines if line["event"] == "released_copy_held_again"] == [answer]
    assert office.received() == {}


def test_a_release_through_a_content_filter_that_delivers(office: Office) -> None:
    """The answer waits for ten seconds, and then says that the message was released."""
    postfix = office.gateway.postfix
    with Sink() as scanner:
        postfix.set(content_filter=f"smtp:[127.0.0.1]:{scanner.port}")
        try:
            incident = held(office)
            with office.steward() as steward:
                request = office.ask(incident, "release", "bcc")
                asked_at = datetime.now(UTC)
                for seconds in (0, 9):
                    steward.round(asked_at + timedelta(seconds=seconds))
                    assert office.journal.held.answered([request.id]) == []
                steward.round(asked_at + timedelta(seconds=11))
        finally:
            postfix.set(content_filter="")
    assert office.answer(request)[0] == "done"
