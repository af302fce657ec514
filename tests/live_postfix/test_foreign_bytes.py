"""Bytes of others, on a real Postfix: replies of remote servers, Message-IDs, rows of the journal."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from io import BufferedRWPair
from socket import create_server

import pytest
from structlog.testing import capture_logs

from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, NUMBERS, PARENTS, SENDER, Office, letter
from undisclosed import log
from undisclosed.incidents.records import Incident, State
from undisclosed.steward.adoption import Adoption
from undisclosed.steward.hold_queue import HoldQueue

CUT_SEQUENCE = b"451 4.2.0 bo\xe2\x82 voll"
"""A reply that was cut within a character: `postqueue -j` of Postfix 3.7 prints these bytes as they are (3.10: `?`)."""


@contextmanager
def server_that_says(reply: bytes) -> Iterator[int]:
    """An SMTP server that gives this reply to every recipient; yields its port."""
    with create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client, client.makefile("rwb") as stream:
                    _answer(stream, reply)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def _answer(stream: BufferedRWPair, reply: bytes) -> None:
    for answer in (b"220 mx.family.test", *([b""] * 100)):
        if answer:
            stream.write(answer + b"\r\n")
            stream.flush()
            continue
        command = stream.readline().upper()
        if not command or command.startswith(b"QUIT"):
            return
        stream.write((reply if command.startswith(b"RCPT") else b"250 ok") + b"\r\n")
        stream.flush()


def test_another_servers_reply_with_a_cut_character(office: Office) -> None:
    """Such a reply in the queue ended the steward, restarts included. Now held mail is listed, told and released."""
    postfix = office.gateway.postfix
    usual = postfix.get("relayhost")
    with server_that_says(CUT_SEQUENCE) as port:
        postfix.set(relayhost=f"[127.0.0.1]:{port}")
        try:
            ordinary = letter(next(NUMBERS), To=PARENTS[0], Cc="")
            assert office.gateway.send(ordinary, sender=SENDER, to=[PARENTS[0]]).accepted
            until(lambda: b"451 4.2.0 bo" in _listing(office), what="the reply in the queue")
        finally:
            postfix.set(relayhost=usual)
    incident = office.held()
    office.ask(incident, "release", "bcc")
    office.round()
    assert office.state(incident) is State.RELEASED


def _listing(office: Office) -> bytes:
    with office.steward() as steward, steward._reconciler._queue._ask("list") as printed:
        return printed.read()


MESSAGE_IDS = [b"<caf\xe9.%d@council.test>", b"<" + b"x" * 1100 + b".%d@council.test>"]


@pytest.mark.parametrize("form", MESSAGE_IDS, ids=["raw bytes", "1,100 characters"])
@pytest.mark.parametrize("fate", [State.RELEASED, State.DELETED, State.EXPIRED])
def test_a_message_id_that_the_journal_cannot_keep(office: Office, form: bytes, fate: State) -> None:
    """Its message is released, deleted, and expires, as others (modoboa-amavis#109)."""
    incident = _held(office, form)
    if fate is State.EXPIRED:
        office.nearly_expired(incident)
        office.round()
    else:
        request = office.ask(incident, *(("release", "bcc") if fate is State.RELEASED else ("delete",)))
        office.round()
        assert office.answer(request)[0] == "done"
    assert office.state(incident) is fate
    assert office.on_hold() == []
    assert office.received() == (dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1) if fate is State.RELEASED else {})


def _held(office: Office, form: bytes) -> Incident:
    number = next(NUMBERS)
    message = letter(number).replace(b"<letter-%d@council.test>" % number, form % number)
    known = {incident.id for incident in office.journal.incidents.search()}
    assert office.gateway.send(message, sender=SENDER, to=[*PARENTS[:3], COLLEAGUE]).accepted
    office.round()
    [incident] = [found for found in office.journal.incidents.search() if found.id not in known]
    assert incident.state is State.HELD
    return incident


def test_a_row_of_the_journal_that_cannot_be_read(office: Office) -> None:
    """An error that nobody foresaw is logged with its trace, and does not end the steward."""
    gateway = office.gateway
    with Steward(gateway.config, directory=gateway.state) as steward:
        message_id = office.send()
        until(lambda: office.incident(message_id).state is State.HELD, what="the message to be held")
        _set_arrival(office, "yesterday")
        [failure] = until(lambda: steward.log(event="steward_failing"), what="the failure in the log")
        assert (failure["level"], failure["reason"].partition(":")[0]) == ("error", "ValueError")
        assert failure["exception"]
        _set_arrival(office, "2026-03-01 12:00:00.000000")
        until(lambda: steward.log(event="steward_works_again"), what="the steward to work again")
        assert len(steward.log(event="steward_failing")) == 1


def _set_arrival(office: Office, text: str) -> None:
    """Write a time into all copies, as no program of ours would."""
    with closing(sqlite3.connect(_journal_file(office), timeout=10)) as database, database:
        database.execute("UPDATE queue_copy SET arrived = ?", [text])


def test_no_address_by_way_of_postfixs_answer(office: Office) -> None:
    """A failed release leaves no recipient's address in log and journal, and keeps the answer (hostile review, 15)."""
    incident = office.held()
    office.gateway.postfix.set(queue_minfree=str(1 << 60), smtpd_reject_footer=rf"\c, not for <{PARENTS[0]}>")
    try:
        request = office.ask(incident, "release", "bcc")
        with capture_logs() as events:
            office.round()
    finally:
        office.gateway.postfix.set(queue_minfree="0", smtpd_reject_footer="")
    state, answer = office.answer(request)
    assert state == "failed"
    assert "452 4.3.1 Insufficient system storage, not for …" in answer
    recorded = f"{events} {office.journal.incidents.events(incident.id)} {answer}"
    assert [address for address in (*PARENTS, COLLEAGUE) if address in recorded] == []


def test_a_message_that_cannot_be_recorded_does_not_stop_the_others(office: Office) -> None:
    """An error that nobody foresaw, here a size that no database takes, is logged once; the others are recorded."""
    postfix = office.gateway.postfix
    with postfix.deferring():
        for _ in range(2):
            ordinary = letter(next(NUMBERS), To=PARENTS[0], Cc="")
            assert office.gateway.send(ordinary, sender=SENDER, to=[PARENTS[0]]).accepted
        until(lambda: len(postfix.queue("deferred")) == 2, what="both to be deferred")
        postfix.postsuper("-h", "ALL")
    with HoldQueue(office.context.policy.postfix.config_dir) as queue, capture_logs() as events:
        impossible, other = queue.list().held.values()
        adoption = Adoption(office.journal, queue, log.get())
        for _ in range(2):
            adopted = list(adoption.record_all(office.context, [replace(impossible, size=1 << 80), other]))
            assert [copy.queue_id for copy, _ in adopted] == [other.queue_id]
    failures = [event for event in events if event["event"] == "adoption_failed"]
    assert [event["queue_id"] for event in failures] == [impossible.queue_id]


def _journal_file(office: Office) -> str:
    return office.context.policy.journal.url.removeprefix("sqlite:///")
