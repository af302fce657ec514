"""Nobody's mail is held without a word: senders and the administrator read what sendmail(1) and Postfix deliver."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email import policy as email_policy
from email.message import EmailMessage
from functools import partial

import pytest

from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.waiting import until
from live_postfix.office import NUMBERS, PARENTS, SENDER, Office, attached, letter, new_gateway
from support.notice_factories import words
from undisclosed import notices
from undisclosed.incidents.records import ReleaseMode
from undisclosed.notices import Dispatched, Dispatcher, DispatchStatus
from undisclosed.policy import Action

ADMINISTRATOR = "postmaster@council.test"
OUTSIDE = "bounce-77@esp.example"
WAYS: tuple[ReleaseMode, ...] = ("bcc", "split")


@pytest.fixture
def office(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Office]:
    """A gateway that holds messages with too many addresses, and whose journal is empty: nobody was told before."""
    gateway = new_gateway(installed_postfix, outside)
    gateway.configure(gateway.policy("quarantine"))
    gateway.postfix.empty()
    outside.clear()
    with attached(gateway):
        office = Office(gateway)
        yield office
        office.journal.close()


def send(office: Office, sender: str = SENDER, login: str | None = None, **fields: str) -> str:
    """Send a letter; returns its Message-ID."""
    number = next(NUMBERS)
    gateway = office.gateway
    assert gateway.send(letter(number, **fields), sender=sender, to=PARENTS[:3], login=login).accepted
    return f"<letter-{number}@council.test>"


def tell(office: Office, later: timedelta = timedelta()) -> list[Dispatched]:
    """A round of the steward, and the notices that are due."""
    office.round()
    policy = office.context.policy
    dispatcher = Dispatcher(
        office.journal, office.context.gateway, partial(notices.send, config_dir=policy.postfix.config_dir)
    )
    templates = notices.load(policy, office.gateway.config)
    return dispatcher.dispatch(policy, templates, datetime.now(UTC) + later)


def received(gateway: Gateway) -> list[tuple[str, EmailMessage]]:
    """The notices as they were delivered, with their recipients."""
    gateway.settle()
    found = []
    for delivery in gateway.sink.deliveries:
        message = message_from_bytes(delivery.data, policy=email_policy.default)
        assert isinstance(message, EmailMessage)
        assert (delivery.sender, len(delivery.recipients)) == ("", 1)
        assert not re.search(rb"parent\d+@", delivery.data), "a notice repeats a recipient's address"
        found.append((delivery.recipients[0], message))
    return found


def references(office: Office) -> dict[str, str]:
    """The references of all incidents, by Message-ID."""
    return {str(incident.message_id): incident.reference for incident in office.journal.incidents.search()}


def test_a_person_behind_any_envelope_sender_is_told(office: Office) -> None:
    """Milter reports, 21, 22 and 25, and held-mail review, 12: held with 250, deleted after 14 days, nobody told."""
    expected = {
        send(office): SENDER,
        send(office, Precedence="bulk"): SENDER,
        send(office, OUTSIDE): SENDER,
        send(office, OUTSIDE, "desk@council.test", From="News <news@esp.example>"): "desk@council.test",
        send(office, "office@council.test", "desk@council.test"): "office@council.test",
        send(office, f"{'x' * 60}@council.test"): f"{'x' * 60}@council.test",
    }
    assert {result.status for result in tell(office)} == {DispatchStatus.SENT}
    told = {str(message["In-Reply-To"]): to for to, message in received(office.gateway)}
    assert told == expected


def test_the_administrator_is_told_of_all_others(office: Office) -> None:
    """Milter reports, 23 and 26: one message, which names no outsider, and lists mail that a person put on hold."""
    ids = [
        send(office, "MAILER-DAEMON@council.test"),
        send(office, "parents-bounces@council.test"),
        send(office, "news+parent=family.example@council.test"),
        send(office, "", From="MAILER-DAEMON@council.test"),
        send(office, **{"List-Id": "<parents.council.test>"}),
        send(office, OUTSIDE, "clerk", From="News <news@esp.example>"),
    ]
    with office.gateway.postfix.deferring():
        ordinary = f"From: {SENDER}\nTo: {PARENTS[0]}\nSubject: Held by hand\nMessage-ID: <by-hand@council.test>\n\n."
        assert office.gateway.send(ordinary.encode(), sender=SENDER, to=PARENTS[:1]).accepted
        office.gateway.postfix.postsuper("-h", "ALL")
    results = Counter((result.status, result.kind) for result in tell(office))
    assert results == {(DispatchStatus.FOR_ADMINISTRATOR, "held"): 7, (DispatchStatus.SENT, "digest"): 1}
    [(to, message)] = received(office.gateway)
    assert (to, message["Reply-To"]) == (ADMINISTRATOR, ADMINISTRATOR)
    text = words(message)
    assert all(references(office)[one] in text for one in (*ids, "<by-hand@council.test>"))
    assert "from esp.example" in text
    assert "Held by hand" in text
    assert tell(office, timedelta(hours=23)) == []


def test_what_sendmail_takes_from_nobody_is_held_under_reject(office: Office) -> None:
    """Milter reports, 34: sendmail(1) said 0, Postfix discarded the bounce, and the message was gone."""
    gateway = office.gateway
    gateway.configure(gateway.policy("reject"))
    gateway.milter.reload()
    rejecting = Office(gateway)
    gateway.postfix.sendmail(["-i", "-f", "<>", *PARENTS[:3]], letter(next(NUMBERS), From="root@council.test"))
    until(lambda: rejecting.on_hold() != [], what="the message on hold")
    tell(rejecting)
    [(to, message)] = received(gateway)
    [incident] = rejecting.journal.incidents.search()
    assert (to, incident.reference in words(message)) == (ADMINISTRATOR, True)
    assert incident.leading.reason.endswith("; a bounce would reach nobody")
    rejecting.journal.close()


def test_a_header_from_nobody_that_is_too_large_is_held(office: Office) -> None:
    """It cannot be decided on, and the bounce of a refusal would reach nobody: the steward finds it on hold."""
    filler = b"".join(b"X-Filler: %s\n" % b"\n\t".join([b"y" * 900] * 60) for _ in range(22))
    gateway = office.gateway
    gateway.postfix.sendmail(["-i", "-f", "<>", PARENTS[0]], filler + letter(next(NUMBERS), Subject="Enormous"))
    until(lambda: office.on_hold() != [], what="the message on hold")
    [line] = gateway.milter.log(event="header_too_large")
    assert line["outcome"] == "held"
    tell(office)
    [(to, message)] = received(gateway)
    assert to == ADMINISTRATOR
    assert "Enormous" in words(message)


def test_everything_is_told_past_twenty_an_hour(office: Office) -> None:
    """Walk as users, 13: of 25 messages held at once, 13 senders' notices were suppressed, and all later ones."""
    for _ in range(25):
        send(office)
    assert Counter(result.kind for result in tell(office)) == {"held": 20}
    assert tell(office, timedelta(minutes=1)) == []
    [summary] = tell(office, timedelta(minutes=6))
    told = [message for _, message in received(office.gateway)]
    assert told[-1]["Subject"] == "Not sent: 5 more of your messages are on hold"
    named = Counter(
        reference for message in told for reference in references(office).values() if reference in words(message)
    )
    assert named == dict.fromkeys(references(office).values(), 1)
    assert set(summary.references) <= named.keys()


@pytest.mark.parametrize("action", ["rewrite", "quarantine"])
def test_the_notice_of_an_invitation(office: Office, action: str) -> None:
    """Walk as users, 14: as its sender reads it in a mail program."""
    gateway = office.gateway
    gateway.configure(gateway.policy(action))
    gateway.milter.reload()
    rewriting = Office(gateway)
    send(rewriting, **{"Content-Type": "text/calendar; method=REQUEST", "MIME-Version": "1.0", "Subject": "Evening"})
    tell(rewriting)
    [(to, message)] = received(gateway)
    [incident] = rewriting.journal.incidents.search()
    assert (to, message["Subject"]) == (SENDER, f"Not sent: “Evening” is on hold ({incident.reference})")
    assert "Please write an ordinary message instead" in words(message)
    assert "which of these" not in words(message)
    rewriting.journal.close()


@pytest.mark.parametrize(
    ("fields", "kind", "advice"),
    [
        ({"Content-Type": "text/calendar; method=REQUEST"}, "invitation", "write an ordinary message instead"),
        ({"Content-Type": "multipart/signed; boundary=b"}, "signed", "would no longer be valid"),
        ({"Content-Type": "application/ms-tnef"}, "outlook", "choose HTML or plain text"),
        ({"Received": f"by scanner\n\tfor {', '.join(PARENTS)}; now"}, "other", "cannot be changed safely"),
    ],
    ids=["invitation", "signed", "outlook", "traces"],
)
def test_a_quarantined_message_that_cannot_be_hidden(
    office: Office, fields: dict[str, str], kind: str, advice: str
) -> None:
    """Its notice offered to hide the addresses, and the release was then refused (walk as users, on Debian 13)."""
    send(office, **fields)
    tell(office)
    [(_, message)] = received(office.gateway)
    [incident] = office.journal.incidents.search()
    [copy] = incident.copies
    assert (copy.action, copy.obstacle_kind) == (Action.QUARANTINE, kind)
    assert advice in words(message)
    assert "which of these" not in words(message)
    for way in WAYS:
        request = office.ask(incident, "release", way)
        office.round()
        state, why = office.answer(request)
        assert state == "refused"
        assert str(copy.obstacle) in why


def test_a_quarantined_message_that_can_be_hidden_is_offered_so(office: Office) -> None:
    """Nothing is in the way of an ordinary letter."""
    send(office)
    tell(office)
    [(_, message)] = received(office.gateway)
    [incident] = office.journal.incidents.search()
    assert (incident.leading.obstacle, incident.leading.waits) == (None, None)
    assert "which of these" in words(message)


def test_a_quarantined_message_that_cannot_be_released_offers_no_choice(office: Office) -> None:
    """With VERP no release is possible: an administrator has to delete it."""
    office.gateway.postfix.sendmail(["-V", "-i", "-f", SENDER, *PARENTS[:3]], letter(next(NUMBERS)))
    until(lambda: office.on_hold() != [], what="the message on hold")
    tell(office)
    [(_, message)] = received(office.gateway)
    [incident] = office.journal.incidents.search()
    assert "VERP" in str(incident.leading.waits)
    assert "An administrator must decide" in words(message)
    request = office.ask(incident, "release", "unchanged")
    office.round()
    assert office.answer(request)[0] == "refused"
