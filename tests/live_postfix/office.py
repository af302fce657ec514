"""The steward's working place in tests: a gateway that holds mail, its journal and its hold queue."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from lab import processes
from lab.gateway import Gateway
from lab.waiting import until
from support import children
from undisclosed import log
from undisclosed.config.key_file import read_key
from undisclosed.config.load import load
from undisclosed.incidents.records import Incident, ReleaseMode, Request, State, Verb
from undisclosed.journal.gateway import gateway_name
from undisclosed.journal.journal import Journal
from undisclosed.steward.hold_queue import HoldQueue
from undisclosed.steward.release import Step
from undisclosed.steward.rounds import Place, Steward

SENDER = "clerk@council.test"
PARENTS = [f"parent{number}@family{number}.example" for number in range(12)]
COLLEAGUE = "head@school.council.test"

NUMBERS = count(1000)
"""Of letters: two of one name would be one incident."""


def letter(number: int, **fields: str) -> bytes:
    """A message to all of PARENTS and a colleague, each of whom can read them all."""
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


class Office:
    """A steward that goes round when a test says so, on a gateway whose milter holds mail."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        policy = load(gateway.config)
        key = read_key(policy, create=False)
        self.place = Place(policy, key, gateway_name(policy))
        self.journal = Journal(policy.journal, key)

    @contextmanager
    def steward(self, step: Step = lambda _: None) -> Iterator[Steward]:
        """A steward of its own, in this process."""
        journal = Journal(self.place.policy.journal, self.place.key)
        with HoldQueue(self.place.policy.postfix.config_dir) as queue:
            try:
                yield Steward(self.place, journal, queue, log.get(), step=step)
            finally:
                journal.close()

    def round(self, later: timedelta = timedelta()) -> None:
        """One round of a steward that has just started, at some later time."""
        with self.steward() as steward:
            steward.round(datetime.now(UTC) + later)

    def send(self, *to: str, **fields: str) -> str:
        """Send a letter to these, as far as Postfix is told; returns the Message-ID."""
        number = next(NUMBERS)
        outcome = self.gateway.send(letter(number, **fields), sender=SENDER, to=to or (*PARENTS[:3], COLLEAGUE))
        assert outcome.accepted
        return f"<letter-{number}@council.test>"

    def incident(self, message_id: str) -> Incident:
        """The incident about a message."""
        [found] = [one for one in self.journal.incidents.search() if one.message_id == message_id]
        return found

    def held(self, *to: str, **fields: str) -> Incident:
        """Send a letter, and have the steward see that it is held."""
        message_id = self.send(*to, **fields)
        self.round()
        incident = self.incident(message_id)
        assert incident.state is State.HELD
        return incident

    def ask(self, incident: Incident, verb: Verb, mode: ReleaseMode | None = None, actor: str = "admin") -> Request:
        """Ask for something."""
        return self.journal.held.ask(incident.id, verb=verb, mode=mode, actor=actor, reason="a test")

    def answer(self, request: Request) -> tuple[str, str]:
        """The answer to a request: its state, and the words."""
        [answered] = self.journal.held.answered([request.id])
        return answered.state, str(answered.answer)

    def answer_to_late_request(self, incident: Incident) -> tuple[str, str]:
        """What a request hears that comes when all is over."""
        request = self.ask(incident, "release", "bcc")
        self.round()
        return self.answer(request)

    def state(self, incident: Incident) -> State:
        """Its state now."""
        return self.journal.incidents.get(incident.id).state

    def ends(self, incident: Incident, at: datetime) -> None:
        """Have it expire at this moment, as if it had come as much earlier or later; a running steward notices."""
        journal = self.place.policy.journal.url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(journal, timeout=10)) as database, database:
            until = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
            database.execute("UPDATE queue_copy SET until = ? WHERE incident_id = ?", [until, incident.id])

    def on_hold(self) -> list[str]:
        """The queue ids on hold."""
        return [str(entry["queue_id"]) for entry in self.gateway.postfix.queue("hold")]

    def received(self) -> Mapping[str, int]:
        """How many messages each recipient has got, once nothing more is under way; notices are not counted."""
        self.gateway.settle()
        letters = [delivery for delivery in self.gateway.sink.deliveries if delivery.sender]
        return Counter(recipient for delivery in letters for recipient in delivery.recipients)

    def dies_at(self, number: int) -> str | None:
        """Run one round of a steward that dies after its nth step: the step's name, None if it outlived the round.

        Its root half is a process of its own, and must end by itself.
        """
        [root_half, *steps], status = children.run(_die_after, self.gateway.config, number)
        until(lambda: not processes.is_running(int(root_half)), what="the root half to end")
        if status == children.KILLED:
            return steps[-1]
        assert status == 0
        return None


def _die_after(says: children.Connection, config: Path, number: int) -> None:
    """Says the root half's process id, then the name of each step."""
    policy = load(config)
    key = read_key(policy, create=False)
    steps = count()

    def step(name: str) -> None:
        says.send(name)
        if next(steps) == number:
            children.die()

    queue = HoldQueue(policy.postfix.config_dir)
    says.send(str(queue.root_pid))
    place = Place(policy, key, gateway_name(policy))
    Steward(place, Journal(policy.journal, key), queue, log.get(), step=step).round(datetime.now(UTC))
