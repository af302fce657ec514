"""The breach that this project exists for, held: ten messages, 866 parents in To, and the end of each message.

The milter and the steward run as an administrator runs them, and everything is asked for by command.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email import policy as email_policy
from subprocess import CompletedProcess

import pytest

from lab.client import Client
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Delivery, Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import Office, new_gateway
from play import breaches, held
from play.breaches import Letter
from support.delivered_header import leaks
from undisclosed.cli.held import user
from undisclosed.incidents.records import Event, Incident, State

BREACH = breaches.schools()
SENDER = "school.admissions@council.test"
COLLEAGUE = "education.welfare@council.test"

BCC, SPLIT, UNCHANGED, DELETED, EXPIRED, *STILL_HELD = BREACH.letters
RELEASED = {"bcc": BCC, "split": SPLIT, "unchanged": UNCHANGED}
BY_PHONE = ("--reason", "asked by phone", "--yes")
"""The options of a release without a terminal."""

WITHIN = 60.0
"""Seconds for any one thing that the steward does: many times what it takes on a busy machine."""

HELD = "Not sent: … is on hold"
SENT = "Sent: … is no longer on hold"
GONE = "Deleted: … was on hold"
REMINDER = "Still not sent: … is on hold"
TOO_LATE = "Deleted: nobody decided about …"
"""The subjects of notices, without the message's own."""

ADDRESS = re.compile(rb"[^\s<>\"',;:]+@[a-z0-9.-]+\.example")
"""A parent's address, wherever in a message it stands: nothing else here is below that domain."""


def name(letter: Letter | bytes) -> str:
    """The Message-ID, which identifies one of the ten."""
    return str(message_from_bytes(letter.message if isinstance(letter, Letter) else letter)["Message-ID"])


def subject(letter: Letter) -> str:
    """The subject as a person reads it."""
    return str(message_from_bytes(letter.message, policy=email_policy.default)["Subject"])


def addresses(letter: Letter) -> list[str]:
    """The parents in its To."""
    return [person.address for person in letter.people]


NOTICES = Counter(
    [(name(letter), HELD) for letter in BREACH.letters]
    + [(name(letter), SENT) for letter in RELEASED.values()]
    + [(name(DELETED), GONE), (name(EXPIRED), REMINDER), (name(EXPIRED), TOO_LATE)]
)
"""The notices that the sender gets, by message: fewer than the rate limit would let through."""


def shown(data: bytes) -> set[str]:
    """The parents whose addresses are anywhere in these bytes."""
    return {address.decode() for address in ADDRESS.findall(data)}


@dataclass(frozen=True)
class Story:
    """The observations at the end, and the output of the commands before."""

    listed: CompletedProcess[str]
    listed_json: CompletedProcess[str]
    answers: Mapping[str, CompletedProcess[str]]
    """Of each release by its way, and of the deletion."""
    early: tuple[Delivery, ...]
    """The deliveries before any release, notices included."""
    deliveries: tuple[Delivery, ...]
    left: CompletedProcess[str]
    """The list of held mail in the end."""
    on_hold: tuple[str, ...]
    incidents: Mapping[str, Incident]
    """By Message-ID, as all other messages of this file."""
    events: Mapping[str, tuple[Event, ...]]

    def copies(self, letter: Letter) -> list[Delivery]:
        """The deliveries of one of the ten."""
        return [delivery for delivery in self.deliveries if delivery.sender and name(delivery.data) == name(letter)]

    def reference(self, letter: Letter) -> str:
        """The reference of its incident."""
        return self.incidents[name(letter)].reference


@pytest.fixture(scope="module")
def story(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Story]:
    """Ten messages are held; one leaves in each way, one is deleted, one expires, five stay."""
    gateway = new_gateway(installed_postfix, outside)
    gateway.configure(gateway.policy("quarantine"))
    installed_postfix.empty()
    outside.clear()
    with gateway:
        office = Office(gateway)
        try:
            yield _played(office)
        finally:
            office.journal.close()
            outside.clear()
            installed_postfix.wait_until_idle()
            installed_postfix.empty()


def _played(office: Office) -> Story:
    gateway, sink = office.gateway, office.gateway.sink
    # As root: only root may name another configuration directory to sendmail(1).
    with Steward(gateway.config, directory=gateway.state):
        _send_all(gateway)
        early = sink.wait_for(len(BREACH.letters), within=WITHIN)
        listed, listed_json = gateway.command("held", "list"), gateway.command("held", "list", "--json")
        incidents = _by_name(office)
        references = {message_id: incident.reference for message_id, incident in incidents.items()}
        answers = {
            way: gateway.command("held", "release", references[name(letter)], "--as", way, *BY_PHONE)
            for way, letter in RELEASED.items()
        }
        duplicate = ("--reason", "a duplicate", "--yes")
        answers["delete"] = gateway.command("held", "delete", references[name(DELETED)], *duplicate)
        _expire(office, incidents[name(EXPIRED)])
        until(lambda: len(_notices(office)) >= NOTICES.total(), within=WITHIN, what="the last notice")
    gateway.settle()
    incidents = _by_name(office)
    return Story(
        listed=listed,
        listed_json=listed_json,
        answers=answers,
        early=early,
        deliveries=sink.deliveries,
        left=gateway.command("held", "list", "--json"),
        on_hold=tuple(office.on_hold()),
        incidents=incidents,
        events={
            message_id: tuple(office.journal.incidents.events(incident.id))
            for message_id, incident in incidents.items()
        },
    )


def _send_all(gateway: Gateway) -> None:
    with Client(gateway.postfix.port) as client:
        for letter in BREACH.letters:
            outcome = client.send(letter.message, sender=letter.sender, to=letter.recipients, options=["BODY=8BITMIME"])
            assert outcome.accepted


def _by_name(office: Office) -> dict[str, Incident]:
    return {str(incident.message_id): incident for incident in office.journal.incidents.search()}


def _expire(office: Office, incident: Incident) -> None:
    """Let thirteen days and a half pass for one message, then the rest of its fourteen, and a day of sight."""
    now = datetime.now(UTC)
    office.ends(incident, now + timedelta(hours=12))
    until(lambda: (incident.message_id, REMINDER) in _notices(office), within=WITHIN, what="the reminder")
    office.ends(incident, now - timedelta(seconds=1))
    for mark in ("seen_at_reminder", "seen_at_until"):
        until(lambda mark=mark: _copy(office, incident, mark) is not None, within=WITHIN, what=mark)  # type: ignore[misc]
    office.was_seen(incident, timedelta(days=1))
    until(lambda: office.state(incident) is State.EXPIRED, within=WITHIN, what="the message to expire")


def _copy(office: Office, incident: Incident, field: str) -> object:
    [copy] = office.journal.incidents.get(incident.id).copies
    return getattr(copy, field)


def _notices(office: Office) -> Counter[tuple[str, str]]:
    return told(office.gateway.sink.deliveries)


def told(deliveries: Iterable[Delivery]) -> Counter[tuple[str, str]]:
    """The notices, by the message they are about and their subject without its own subject and the reference."""
    policy = email_policy.default
    headers = [message_from_bytes(delivery.data, policy=policy) for delivery in deliveries if not delivery.sender]
    return Counter(
        (str(header["In-Reply-To"]), re.sub("“.*”", "…", str(header["Subject"])).rpartition(" (")[0])
        for header in headers
    )


# -- the administrator's commands


def test_all_ten_are_listed(story: Story) -> None:
    """Each with its reference, the numbers of visible addresses and of recipients, and its time of expiry."""
    rows = [json.loads(line) for line in story.listed_json.stdout.splitlines()]
    expected = {
        (story.reference(letter), name(letter), subject(letter), SENDER, "held", len(letter.people))
        for letter in BREACH.letters
    }
    keys = ("reference", "message_id", "subject", "sender", "state", "count")
    assert {tuple(row[key] for key in keys) for row in rows} == expected
    assert sum(row["count"] for row in rows) == 866
    [copies] = zip(*(row["copies"] for row in rows), strict=True)
    assert sorted(copy["recipients"] for copy in copies) == sorted(len(letter.recipients) for letter in BREACH.letters)
    assert all(datetime.fromisoformat(copy["until"]) > datetime.now(UTC) + timedelta(days=13) for copy in copies)
    assert (story.listed.returncode, story.listed_json.returncode, len(rows)) == (0, 0, 10)


def test_the_list_for_people_names_the_same_ten(story: Story) -> None:
    """It shows no recipient."""
    lines = story.listed.stdout.splitlines()
    for letter in BREACH.letters:
        [line] = [line for line in lines if line.lstrip().startswith(story.reference(letter))]
        school = subject(letter).partition(":")[0]
        assert {"held", str(len(letter.people)), str(len(letter.recipients)), *school.split()} <= set(
            line.replace(":", " ").split()
        )
    assert shown((story.listed.stdout + story.listed_json.stdout).encode()) == set()


def test_each_wish_is_answered(story: Story) -> None:
    """The answer is a sentence with the reference, and the exit status is 0."""
    said = {wish: (answer.returncode, answer.stdout) for wish, answer in story.answers.items()}
    released = {
        way: (
            0,
            f"{story.reference(letter)} was released as {way} to {len(letter.recipients)} recipients: asked by phone\n",
        )
        for way, letter in RELEASED.items()
    }
    assert said == {**released, "delete": (0, f"{story.reference(DELETED)} was deleted: a duplicate\n")}


# -- mail that left


def test_nothing_gets_out_unasked(story: Story) -> None:
    """Before a decision only the sender's notices were sent."""
    assert [delivery.recipients for delivery in story.early] == [(SENDER,)] * 10
    assert told(story.early) == Counter((name(letter), HELD) for letter in BREACH.letters)


def test_each_recipient_of_what_was_released_has_one_copy_and_nobody_else_has_any(story: Story) -> None:
    """Counted by message and envelope recipient: 281 parents and, three times, the colleague in Cc."""
    received = Counter(
        (name(delivery.data), to) for delivery in story.deliveries if delivery.sender for to in delivery.recipients
    )
    expected = Counter((name(letter), to) for letter in RELEASED.values() for to in letter.recipients)
    assert received == expected
    assert (received.total(), len({to for _, to in received})) == (284, 282)


def test_bcc_shows_nobody(story: Story) -> None:
    """One message for all, with no parent's address anywhere in it."""
    [copy] = story.copies(BCC)
    assert (copy.sender, shown(copy.data), leaks(copy.header)) == (SENDER, set(), [])


def test_split_shows_each_their_own_address(story: Story) -> None:
    """A message for each parent with that parent in To; the colleague's shows none of them."""
    copies = story.copies(SPLIT)
    assert [copy.recipients for copy in copies if len(copy.recipients) != 1] == []
    assert {copy.recipients[0]: shown(copy.data) for copy in copies} == {
        **{parent: {parent} for parent in addresses(SPLIT)},
        COLLEAGUE: set(),
    }
    for copy in copies:
        own = copy.recipients[0]
        [to] = copy.values("To")
        assert own == COLLEAGUE or own.encode() in to
        assert leaks(copy.header, internal=("council.test", own.rpartition("@")[2])) == []


def test_unchanged_shows_what_its_sender_wrote(story: Story) -> None:
    """Every parent to every parent: so it was asked for. Field by field and byte by byte; Postfix has added its own."""
    [copy] = story.copies(UNCHANGED)
    sent = Delivery(SENDER, UNCHANGED.recipients, UNCHANGED.message.replace(b"\n", b"\r\n"))
    assert shown(copy.data) == set(addresses(UNCHANGED))
    assert [field for field in copy.fields() if field[0] not in ("Received", "Date")] == sent.fields()
    assert copy.body == sent.body


# -- the sender's notices


def test_the_sender_is_told_of_each_step(story: Story) -> None:
    """Notices: ten held, three sent, one deleted; for mail without a decision first the reminder, then its expiry."""
    assert told(story.deliveries) == NOTICES


def test_no_notice_shows_an_address(story: Story) -> None:
    """Each goes to the sender alone, quotes the reference of its message, and repeats no address."""
    references = {message_id: incident.reference for message_id, incident in story.incidents.items()}
    notices = [delivery for delivery in story.deliveries if not delivery.sender]
    assert len(notices) == NOTICES.total()
    for notice in notices:
        texts = [part.get_content() for part in held.parts(notice)]
        assert (notice.recipients, len(texts)) == ((SENDER,), 2)
        assert shown(notice.data) | shown("".join(texts).encode()) == set()
        reference = references[str(message_from_bytes(notice.data)["In-Reply-To"])]
        assert all(reference in text for text in texts)


# -- the end


def test_the_hold_queue_holds_the_five_others(story: Story) -> None:
    """The list shows the same."""
    left = {copy.queue_id for letter in STILL_HELD for copy in story.incidents[name(letter)].copies}
    assert (len(left), sorted(story.on_hold)) == (5, sorted(left))
    listed = {json.loads(line)["message_id"] for line in story.left.stdout.splitlines()}
    assert listed == {name(letter) for letter in STILL_HELD}


def test_the_journal_says_what_became_of_each(story: Story) -> None:
    """Ten incidents with one copy each, and their states."""
    states = {message_id: (incident.state, len(incident.copies)) for message_id, incident in story.incidents.items()}
    assert states == {
        **{name(letter): (State.RELEASED, 1) for letter in RELEASED.values()},
        name(DELETED): (State.DELETED, 1),
        name(EXPIRED): (State.EXPIRED, 1),
        **{name(letter): (State.HELD, 1) for letter in STILL_HELD},
    }


def test_the_journal_says_who_did_what_and_why(story: Story) -> None:
    """Every step of each of them, in its order."""
    asked = user()
    beginning = [("milter", "recorded"), ("steward", "held"), ("steward", "notice sent")]
    expected: dict[str, list[tuple[str, str]]] = {
        **{
            name(letter): [
                *beginning,
                (asked, "asked to release"),
                (asked, "releasing"),
                (asked, "released"),
                ("steward", "request to release done"),
                ("steward", "notice sent"),
            ]
            for letter in RELEASED.values()
        },
        name(DELETED): [
            *beginning,
            (asked, "asked to delete"),
            (asked, "deleting"),
            (asked, "deleted"),
            ("steward", "request to delete done"),
            ("steward", "notice sent"),
        ],
        name(EXPIRED): [
            *beginning,
            ("steward", "notice sent"),
            ("steward", "deleting"),
            ("steward", "expired"),
            ("steward", "notice sent"),
        ],
        **{name(letter): beginning for letter in STILL_HELD},
    }
    assert {
        message_id: [(event.actor, event.what) for event in events] for message_id, events in story.events.items()
    } == expected
    why = {
        message_id: [event.why for event in events if event.what in ENDS] for message_id, events in story.events.items()
    }
    assert why == {
        **{name(letter): [f"as {way}: asked by phone"] for way, letter in RELEASED.items()},
        name(DELETED): ["a duplicate"],
        name(EXPIRED): ["held for 14 days"],
        **{name(letter): [] for letter in STILL_HELD},
    }


ENDS = {state.value for state in (State.RELEASED, State.DELETED, State.EXPIRED)}
