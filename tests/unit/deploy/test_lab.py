"""The laboratory itself: the tools of the tests and the quickstart must be able to find a leak."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab import client, processes, toml
from lab.postfix import CommandError, PrivatePostfix
from lab.sink import Delivery, Sink
from lab.waiting import until
from play import breaches, trial
from play.breaches import Breach
from support.paths import DEPLOY
from undisclosed.addresses import visible


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """An outside world of this module's own."""
    with Sink() as outside:
        yield outside


@pytest.fixture(scope="module", params=[False, True], ids=["as usual", "in a chroot"])
def postfix(sink: Sink, request: pytest.FixtureRequest) -> Iterator[PrivatePostfix]:
    """A Postfix of this module's own, also with the chroot that Debian puts its processes in."""
    with PrivatePostfix(outside=sink.port, chroot=request.param) as own:
        yield own


# -- breaches


def test_the_breaches_have_the_numbers_that_happened() -> None:
    """866 addresses in ten messages of To, at most 95 in one; 500 in one message of Cc; no address twice."""
    schools, families = breaches.schools(), breaches.families()
    shown = [len(letter.people) for letter in schools.letters]
    assert (len(shown), sum(shown), max(shown)) == (10, 866, 95)
    assert len({person.address for letter in schools.letters for person in letter.people}) == 866
    assert [len({person.address for person in letter.people}) for letter in families.letters] == [500]


@pytest.mark.parametrize("breach", [breaches.schools(), breaches.families()], ids=lambda breach: str(breach.domain))
def test_each_letter_shows_the_people_it_is_about(breach: Breach) -> None:
    """The entries of a breach's letters, in all their forms, are read as exactly these people's addresses."""
    for letter in breach.letters:
        entries = ", ".join(person.entry for person in letter.people)
        assert visible(entries) == [person.address for person in letter.people]
        assert set(letter.recipients) - {person.address for person in letter.people} <= {
            f"education.welfare@{breach.domain}",
            f"home.education@{breach.domain}",
        }


def test_nobody_in_the_breaches_can_be_written_to() -> None:
    """Every domain is one that is reserved for examples and tests (RFC 2606), and every run makes the same people."""
    for make in (breaches.schools, breaches.families):
        assert make() == make()
        domains = {recipient.rpartition("@")[2] for letter in make().letters for recipient in letter.recipients}
        assert all(domain.endswith((".example", ".test")) for domain in domains)


def test_names_come_in_the_forms_that_address_books_write() -> None:
    """Bare, plain, quoted, wrapped in apostrophes, and encoded for letters such as ŵ."""
    entries = [person.entry for letter in breaches.schools().letters for person in letter.people]
    for form in (r"^[^ ]+$", r"^\w+ \w+ <", r'^"\w+, \w+" <', r"^'.+@.+' <", r"^=\?utf-8\?[qb]\?.*\?= <", r"\?VMW1"):
        assert [entry for entry in entries if re.search(form, entry)], form


# -- the judge of a trial


def leak(breach: Breach) -> tuple[Delivery, ...]:
    """The deliveries to the outside without a milter: every letter as it was sent."""
    return tuple(
        Delivery(letter.sender, letter.recipients, letter.message.replace(b"\n", b"\r\n")) for letter in breach.letters
    )


def answered(breach: Breach, code: int) -> tuple[client.Outcome, ...]:
    """Every letter of the breach answered with this code at its end."""
    fine = client.Reply(250, ("2.1.0 Ok",))
    return tuple(client.Outcome(fine, (fine,), fine, client.Reply(code, ("text",))) for _ in breach.letters)


def hidden(deliveries: tuple[Delivery, ...]) -> tuple[Delivery, ...]:
    """The same messages without their recipient fields."""
    return tuple(
        replace(delivery, data=re.sub(rb"(?m)^(?:To|Cc): (?:.*\r\n)(?:[ \t].*\r\n)*", b"", delivery.data))
        for delivery in deliveries
    )


def test_a_trial_is_judged_by_what_got_out() -> None:
    """The result that each action promises passes, and each breach of the promise is reported."""
    breach = breaches.schools()
    sent, clean = leak(breach), hidden(leak(breach))
    ok, refused = answered(breach, 250), answered(breach, 550)
    kept = [
        trial.Trial(breach, None, ok, sent, 0),
        trial.Trial(breach, "warn", ok, sent, 0),
        trial.Trial(breach, "rewrite", ok, clean, 0),
        trial.Trial(breach, "quarantine", ok, (), 10),
        trial.Trial(breach, "reject", refused, (), 0),
    ]
    assert [list(played.broken_promises()) for played in kept] == [[], [], [], [], []]

    broken = {
        "866 strangers' addresses were visible outside": kept[2]._replace(deliveries=sent),
        "95 strangers' addresses were visible outside": kept[2]._replace(deliveries=(sent[0], *clean[1:])),
        "10 messages got out, and none should have": kept[4]._replace(deliveries=sent),
        "0 messages are in the hold queue": kept[3]._replace(held=0),
        "771 of 866 people outside were reached": kept[2]._replace(deliveries=clean[1:]),
        "0 of 866 addresses were visible: the message did not arrive as it was sent":
            kept[1]._replace(deliveries=clean),
        "the sender was answered [250]": kept[4]._replace(outcomes=ok),
    }  # fmt: skip
    for problem, played in broken.items():
        assert problem in list(played.broken_promises())


# -- Postfix, sink, client


def test_what_is_sent_arrives_byte_for_byte(postfix: PrivatePostfix, sink: Sink) -> None:
    """Raw 8-bit, leading dots and folded fields reach the sink as they were; Postfix only adds fields before them."""
    sink.clear()
    message = (
        b"From: clerk@council.test\nTo: a@x.test,\n\tb@y.test\nSubject: caf\xe9\nMessage-ID: <1@x>\nDate: now\n\n.dot\n"
    )
    outcome = client.send(postfix.port, message, sender="clerk@council.test", to=["a@x.test", "b@y.test"])
    assert outcome.accepted
    (delivery,) = sink.wait_for(1)
    assert delivery.recipients == ("a@x.test", "b@y.test")
    assert delivery.data.endswith(message.replace(b"\n", b"\r\n"))
    assert delivery.values("to") == [b"a@x.test,\r\n\tb@y.test"]
    assert [name for name, _ in delivery.fields()] == ["Received", "From", "To", "Subject", "Message-ID", "Date"]


def test_xclient_makes_strangers_and_people_who_have_logged_in(postfix: PrivatePostfix) -> None:
    """An outside client may send to the councils only; an authenticated client to all recipients."""
    message = b"Subject: hello\n\nhello\n"
    stranger = client.send(postfix.port, message, sender="x@y.test", to=["a@out.test"], address="198.51.100.7")
    assert (stranger.accepted, stranger.final.code) == (False, 554)
    to_us = client.send(postfix.port, message, sender="x@y.test", to=["a@city.test"], address="198.51.100.7")
    assert to_us.accepted
    clerk = client.send(
        postfix.port, message, sender="c@council.test", to=["a@out.test"], address="203.0.113.9", login="clerk"
    )
    assert clerk.accepted
    postfix.wait_until_idle()


def test_mail_through_sendmail_arrives(postfix: PrivatePostfix, sink: Sink) -> None:
    """sendmail(1) of this instance puts mail into this instance's queue."""
    sink.clear()
    postfix.sendmail(["-f", "cron@council.test", "a@out.test"], b"Subject: nightly\n\nfine\n")
    assert [(delivery.sender, delivery.recipients) for delivery in sink.wait_for(1)] == [
        ("cron@council.test", ("a@out.test",))
    ]


def recipients_in_queue(postfix: PrivatePostfix) -> list[str]:
    """The recipients of the queued messages; one that moves from queue to queue may be missed or be named twice."""
    return [entry["recipients"][0]["address"] for entry in postfix.queue()]


def test_what_the_sink_does_not_take_is_tried_again(postfix: PrivatePostfix, sink: Sink) -> None:
    """A 4xx leaves the message in the queue, with the words in the log, and it comes when the sink takes mail again."""
    sink.clear()
    sink.answer("451 4.3.0 come back later")
    client.send(postfix.port, b"Subject: x\n\n", sender="c@council.test", to=["a@out.test"])
    postfix.wait_for_log("451 4.3.0 come back later")
    assert sink.deliveries == ()
    assert sink.refused >= 1
    until(lambda: recipients_in_queue(postfix) == ["a@out.test"], what="the message in the queue, and not on its way")
    sink.answer()
    assert len(sink.wait_for(1)) == 1
    postfix.wait_until_idle()
    assert postfix.queue() == []


def test_a_held_message_can_be_read_released_and_deleted(postfix: PrivatePostfix, sink: Sink) -> None:
    """Settings are in force when `set` returns; the hold queue can be looked at and acted on."""
    sink.clear()
    postfix.set(header_checks="static:HOLD")
    assert postfix.get("header_checks") == "static:HOLD"
    for subject in (b"first", b"second"):
        client.send(postfix.port, b"Subject: " + subject + b"\n\nbody\n", sender="c@council.test", to=["a@out.test"])
    postfix.restore()
    assert postfix.get("header_checks") == ""
    postfix.wait_until_idle()
    held = [entry["queue_id"] for entry in postfix.queue("hold")]
    assert len(held) == 2
    (first,) = [queue_id for queue_id in held if "Subject: first" in postfix.postcat(queue_id)]
    assert "recipient: a@out.test" in postfix.envelope(first)
    postfix.postsuper("-H", first)
    assert b"Subject: first" in sink.wait_for(1)[0].data
    postfix.empty()
    assert postfix.queue() == []


def test_a_command_that_fails_says_why(postfix: PrivatePostfix) -> None:
    """The error of a Postfix command carries Postfix's own words."""
    with pytest.raises(CommandError, match="FFFFFF"):
        postfix.postcat("FFFFFF")


def test_one_session_carries_messages_with_different_answers(postfix: PrivatePostfix, sink: Sink) -> None:
    """After a refusal the session goes on with the next message; every reply comes with its lines."""
    sink.clear()
    with client.Client(postfix.port, address="198.51.100.7") as session:
        outcomes = [
            session.send(b"Subject: x\n\n", sender="x@y.test", to=[to])
            for to in ("a@council.test", "a@out.test", "b@council.test")
        ]
        greeting = session.command("EHLO", "again.test")
    assert [outcome.accepted for outcome in outcomes] == [True, False, True]
    assert outcomes[1].final == client.Reply(554, ("5.7.1 <a@out.test>: Relay access denied",))
    assert greeting.lines[0] == "mx.council.test"
    assert len(greeting.lines) > 3
    assert [delivery.recipients for delivery in sink.wait_for(2)] == [("a@council.test",), ("b@council.test",)]


def test_nothing_is_left_of_a_postfix_that_is_stopped(sink: Sink) -> None:
    """Port, processes and directory are gone when the context ends."""
    with PrivatePostfix(outside=sink.port) as own:
        client.send(own.port, b"Subject: x\n\n", sender="c@council.test", to=["a@out.test"])
        master, port = own.master_pid, own.port
        assert len(processes.session(master)) > 3
    assert processes.session(master) == []
    assert not own.directory.exists()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_postfix_dies_with_a_test_run_that_is_killed() -> None:
    """SIGKILL to the process that started it leaves no process of Postfix behind."""
    program = (
        "from lab.postfix import PrivatePostfix\n"
        "own = PrivatePostfix(outside=9)\nown.start()\n"
        "print(own.master_pid, own.directory, flush=True)\ninput()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(DEPLOY)},
        text=True,
    )
    assert child.stdout is not None
    master, directory = child.stdout.readline().split()
    assert processes.is_running(int(master))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    until(lambda: not processes.session(int(master)), what="Postfix to notice that it is alone")
    subprocess.run(["rm", "-r", directory], check=True)


def test_the_sink_is_fast_enough_for_thousands(sink: Sink) -> None:
    """Two thousand messages over one connection all arrive, in order."""
    sink.clear()
    with client.Client(sink.port) as session:
        for number in range(2000):
            session.send(f"Subject: {number}\n\n".encode(), sender="c@council.test", to=["a@out.test"])
    subjects = [delivery.values("Subject") for delivery in sink.wait_for(2000)]
    assert subjects == [[str(number).encode()] for number in range(2000)]


# -- configurations


def test_written_toml_is_read_back_as_it_was() -> None:
    """Quotes, backslashes, line ends, letters beyond ASCII, truth values, lists and lists of tables."""
    document: toml.Document = {
        "mode": "monitor",
        "organisation": {"name": 'Llŷn "Cyngor" \\ \u2028\n', "internal_domains": ["council.test", ".council.test"]},
        "scope": {"authenticated": False, "networks": []},
        "rules": [{"name": "first", "more_than_addresses": 10}, {"name": "second", "senders": ["<>"]}],
    }
    assert tomllib.loads(toml.dumps(document)) == document
