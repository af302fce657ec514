"""A gateway that holds mail, with its journal and hold queue, and a steward whose rounds the test starts."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg

from lab import milter, processes
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.waiting import until
from live_postfix.interruption import Report, reported
from support import children
from undisclosed import log
from undisclosed.config.gateway_file import read_gateway
from undisclosed.config.key_file import read_key
from undisclosed.config.load import load
from undisclosed.incidents.records import Incident, ReleaseMode, Request, State, Verb
from undisclosed.journal.journal import Journal
from undisclosed.steward.context import Context
from undisclosed.steward.hold_queue import HoldQueue
from undisclosed.steward.rounds import Steward

SENDER = "clerk@council.test"
PARENTS = [f"parent{number}@family{number}.example" for number in range(12)]
COLLEAGUE = "head@school.council.test"

STORED = "%Y-%m-%d %H:%M:%S.%f"
"""A time as SQLite has it, in UTC."""

NUMBERS = count(1000)
"""Numbers of letters: two letters with one Message-ID would be one incident."""


def letter(number: int, **fields: str) -> bytes:
    """A message that shows all of PARENTS and a colleague."""
    header = {
        "From": f"The Clerk <{SENDER}>",
        "To": ",\n\t".join(PARENTS),
        "Cc": COLLEAGUE,
        "Subject": "School places",
        "Message-ID": f"<letter-{number}@council.test>",
        "Date": "Mon, 02 Feb 2026 09:00:00 +0000",
        **fields,
    }
    return "".join(f"{name}: {value}\n" for name, value in header.items()).encode() + b"\nDear all,\n.dot\n\xff\n"


def new_gateway(postfix: PrivatePostfix, sink: Sink) -> Gateway:
    """A gateway with an empty journal: no steward here could close the incidents of other tests' files."""
    gateway = Gateway(postfix, sink, user=milter.unprivileged_user())
    for file in gateway.state.glob("journal*"):
        file.unlink()
    return gateway


@contextmanager
def attached(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway in use; its queue is empty afterwards."""
    with gateway:
        yield gateway
        gateway.postfix.wait_until_idle()
        gateway.postfix.empty()


@contextmanager
def emptied(gateway: Gateway) -> Iterator[Office]:
    """The steward's side of the gateway, with nothing held, nothing delivered and no open copy in the journal."""
    gateway.postfix.empty()
    gateway.settle()
    gateway.sink.clear()
    office = Office(gateway)
    with office.steward() as steward:  # the first listing that lacks a copy is not enough to close it
        for minutes in (10, 20):
            steward.round(datetime.now(UTC) + timedelta(minutes=minutes))
    yield office
    office.journal.close()
    gateway.settle()


class Office:
    """The steward's side of a gateway whose milter holds mail."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        policy = load(gateway.config)
        key = read_key(policy, create=False)
        self.context = Context(policy, key, read_gateway(policy, create=True))
        self.journal = Journal(policy.journal, key)

    @contextmanager
    def steward(
        self, report: Report = lambda _: None, monotonic: Callable[[], float] = time.monotonic
    ) -> Iterator[Steward]:
        """A new steward, in this process. Its calls are reported."""
        with (
            closing(Journal(self.context.policy.journal, self.context.key)) as journal,
            HoldQueue(self.context.policy.postfix.config_dir) as queue,
            reported(journal, queue, report),
        ):
            steward = Steward(self.context, journal, queue, log.get(), lambda _: None, monotonic)
            yield steward
            steward.close()

    def round(self, later: timedelta = timedelta()) -> None:
        """One round of a new steward, at a later time."""
        with self.steward() as steward:
            steward.round(datetime.now(UTC) + later)

    def send(self, *to: str, **fields: str) -> str:
        """Send a letter to these envelope recipients; returns its Message-ID."""
        number = next(NUMBERS)
        outcome = self.gateway.send(letter(number, **fields), sender=SENDER, to=to or (*PARENTS[:3], COLLEAGUE))
        assert outcome.accepted
        return f"<letter-{number}@council.test>"

    def incident(self, message_id: str) -> Incident:
        """The incident about a message."""
        [incident] = [found for found in self.journal.incidents.search() if found.message_id == message_id]
        return incident

    def held(self, *to: str, **fields: str) -> Incident:
        """Send a letter and make a round, so that it is held; returns its incident."""
        message_id = self.send(*to, **fields)
        self.round()
        incident = self.incident(message_id)
        assert incident.state is State.HELD
        return incident

    def ask(self, incident: Incident, verb: Verb, mode: ReleaseMode | None = None, actor: str = "admin") -> Request:
        """Add a request for the one copy of an incident."""
        [copy] = incident.copies
        [request] = self.journal.held.ask([copy.id], verb=verb, mode=mode, actor=actor, reason="a test")
        return request

    def answer(self, request: Request) -> tuple[str, str]:
        """The answer to a request: its state and its text."""
        [answered] = self.journal.held.answered([request.id])
        return answered.state, str(answered.answer)

    def ask_all(self, incident: Incident, verb: str = "release") -> list[Request]:
        """Ask for the release (as bcc) or the deletion of all open copies."""
        wanted: dict[str, Any] = {"verb": verb, "mode": "bcc" if verb == "release" else None}
        open_ones = [copy.id for copy in self.journal.incidents.get(incident.id).copies if copy.is_open]
        return self.journal.held.ask(open_ones, actor="admin", reason="a test", **wanted)

    def answer_to(self, incident: Incident, verb: str = "release") -> str:
        """The same, and make a round; the state of the answers."""
        requests = self.ask_all(incident, verb)
        self.round()
        [state] = {answered.state for answered in self.journal.held.answered([request.id for request in requests])}
        return state

    def state(self, incident: Incident) -> State:
        """The current state of an incident."""
        return self.journal.incidents.get(incident.id).state

    def ends(self, incident: Incident, at: datetime) -> None:
        """Set the time of expiry in the journal; a running steward notices."""
        self.change("UPDATE queue_copy SET until = ? WHERE incident_id = ?", at, incident.id)

    def was_seen(self, incident: Incident, longer: timedelta) -> None:
        """Let stewards have seen it held for so much longer."""
        seconds = longer.total_seconds()
        self.change("UPDATE queue_copy SET seen_seconds = seen_seconds + ? WHERE incident_id = ?", seconds, incident.id)

    def tell(self, at: datetime) -> None:
        """Let sendmail(1) have taken every notice that is due, at this time."""
        self.change("UPDATE notice SET state = 'sent', sent_at = ? WHERE state = 'due' AND due <= ?", at, at)

    def nearly_expired(self, incident: Incident) -> None:
        """Let its time be over, its sender be told and reminded, and a day have passed: the next round deletes it."""
        self.ends(incident, datetime.now(UTC) - timedelta(minutes=1))
        for _ in range(2):
            self.round()
            self.tell(datetime.now(UTC))
        self.round()
        self.was_seen(incident, timedelta(days=1))

    def change(self, statement: str, *values: object) -> None:
        """Change rows of the journal; a running steward notices. Each `?` stands for a value."""
        url = self.context.policy.journal.url
        if not url.startswith("sqlite:"):
            with psycopg.connect(url.replace("+psycopg", "", 1)) as database:
                database.execute(statement.replace("?", "%s").encode(), values)
            return
        stored = [value.astimezone(UTC).strftime(STORED) if isinstance(value, datetime) else value for value in values]
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as file:
            file.execute("PRAGMA foreign_keys = ON")  # SQLite uses a deleted row's id again
            with file:
                file.execute(statement, stored)

    def on_hold(self) -> list[str]:
        """The queue ids on hold."""
        return [str(entry["queue_id"]) for entry in self.gateway.postfix.queue("hold")]

    def received(self) -> Mapping[str, int]:
        """The number of messages that each recipient got, once Postfix is idle; notices are not counted."""
        self.gateway.settle()
        letters = [delivery for delivery in self.gateway.sink.deliveries if delivery.sender]
        return Counter(recipient for delivery in letters for recipient in delivery.recipients)

    def dies_at(self, number: int) -> str | None:
        """Run one round of a steward that dies before its first call (0) or after its nth; returns that report.

        None if the round ended. After one call is also before the next: between them nothing outside changes.
        Its root half is a process of its own, and must end by itself.
        """
        [root_half, *reports], status = children.run(_die_at, self.gateway.config, number)
        until(lambda: not processes.is_running(int(root_half)), what="the root half to end")
        if status == children.KILLED:
            return reports[-1]
        assert status == 0
        return None


def _die_at(says: Connection, config: Path, number: int) -> None:
    """Send the root half's process id, then each report."""
    policy = load(config)
    key = read_key(policy, create=False)
    points = 0

    def report(name: str) -> None:
        nonlocal points
        if points > 0 and name.startswith("before"):
            return
        says.send(name)
        if points == number:
            children.die()
        points += 1

    queue, journal = HoldQueue(policy.postfix.config_dir), Journal(policy.journal, key)
    [root_half] = processes.children(os.getpid())
    says.send(str(root_half))
    with reported(journal, queue, report):
        context = Context(policy, key, read_gateway(policy, create=True))
        Steward(context, journal, queue, log.get(), lambda _: None).round(datetime.now(UTC))
