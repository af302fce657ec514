"""Two gateways on one PostgreSQL journal: each releases the messages that it holds, wherever the request was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from lab import milter
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.postgres import Postgres
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, PARENTS, SENDER, letter
from undisclosed.config.gateway_file import read_gateway
from undisclosed.config.key_file import read_key
from undisclosed.config.load import load
from undisclosed.incidents.records import Incident, State
from undisclosed.journal.journal import Journal

WITHIN = 40.0
"""Seconds for any one thing: more than two rounds of a steward that nothing has woken."""

NUMBERS = count(50_000)
"""Numbers of letters: two letters with one Message-ID would be one incident."""


class Host:
    """A gateway: Postfix, milter and steward, with one configuration."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.steward = Steward(gateway.config, directory=gateway.state)
        self.name = read_gateway(load(gateway.config), create=False)

    def go_down(self) -> None:
        """Stop all of it, as when the machine is switched off; the hold queue stays on disk."""
        self.steward.stop()
        self.gateway.milter.stop()
        self.gateway.postfix.stop()

    def come_back(self) -> None:
        """Start all of it again."""
        self.gateway.postfix.restart()
        self.gateway.milter.start()
        self.steward.start()

    def send(self, number: int, *to: str) -> None:
        """Send a letter through this host, which accepts it."""
        assert self.gateway.send(letter(number), sender=SENDER, to=to or (*PARENTS[:3], COLLEAGUE)).accepted

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command with this host's configuration; returns its exit status and output."""
        done = self.gateway.command(*arguments)
        return done.returncode, done.stdout + done.stderr

    def holds(self) -> int:
        """The number of messages in this host's hold queue."""
        return len(self.gateway.postfix.queue("hold"))


class Pair:
    """Both hosts, their common journal, and the deliveries."""

    def __init__(self, first: Host, second: Host, journal: Journal, sink: Sink) -> None:
        self.first, self.second, self.journal, self.sink = first, second, journal, sink

    def incident(self, number: int) -> Incident:
        """The one incident about a letter."""
        [found] = [
            incident
            for incident in self.journal.incidents.search()
            if incident.message_id == f"<letter-{number}@council.test>"
        ]
        return found

    def held(self, number: int, copies: int = 1) -> Incident:
        """The incident about a letter, once all of its copies are held."""

        def all_seen() -> bool:
            states = [copy.state for copy in self.incident(number).copies]
            return states == [State.HELD] * copies

        until(all_seen, within=WITHIN, what="the letter to be held")
        return self.incident(number)

    def received(self, number: int) -> Counter[str]:
        """The number of copies of a letter that each recipient got, once both hosts are idle."""
        for host_ in (self.first, self.second):
            host_.gateway.settle()
        name = f"Message-ID: <letter-{number}@council.test>".encode()
        letters = [delivery for delivery in self.sink.deliveries if delivery.sender and name in delivery.header]
        assert not [letter for letter in letters if any(parent.encode() in letter.header for parent in PARENTS)]
        return Counter(recipient for letter in letters for recipient in letter.recipients)

    def notices(self, number: int) -> list[tuple[str, ...]]:
        """The recipients of notices about a letter so far."""
        name = f"In-Reply-To: <letter-{number}@council.test>".encode()
        return [
            delivery.recipients for delivery in self.sink.deliveries if not delivery.sender and name in delivery.header
        ]


@pytest.fixture(scope="module")
def standing(postgres: Postgres) -> Iterator[Pair]:
    """Two hosts that deliver to one sink; they stay for all tests here."""
    url = postgres.create("two_gateways")
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        hosts: list[Host] = []
        for _ in range(2):
            postfix = stack.enter_context(PrivatePostfix(outside=sink.port))
            gateway = Gateway(postfix, sink, user=milter.unprivileged_user())
            key = hosts[0].gateway.state / "key" if hosts else gateway.state / "key"
            gateway.configure(gateway.policy("quarantine", journal={"url": url, "key_file": str(key)}))
            stack.enter_context(gateway)
            hosts.append(Host(gateway))
            stack.enter_context(hosts[-1].steward)
        policy = load(hosts[0].gateway.config)
        journal = Journal(policy.journal, read_key(policy, create=False))
        stack.callback(journal.close)
        yield Pair(hosts[0], hosts[1], journal, sink)
    postgres.drop("two_gateways")


@pytest.fixture
def pair(standing: Pair) -> Pair:
    """Both hosts, running, with nothing held."""
    assert (standing.first.holds(), standing.second.holds()) == (0, 0)
    return standing


def test_a_command_on_one_host_releases_what_the_other_holds(pair: Pair) -> None:
    """Each host has its own name in the journal; the one that holds the message carries out the request."""
    number = next(NUMBERS)
    pair.second.send(number)
    incident = pair.held(number)
    assert [copy.gateway for copy in incident.copies] == [pair.second.name]
    assert pair.first.name != pair.second.name
    assert (pair.first.holds(), pair.second.holds()) == (0, 1)
    done = pair.first.command("held", "release", incident.reference, "--as", "bcc")
    assert done == (0, f"{incident.reference} was released as bcc to 4 recipients\n")
    assert pair.received(number) == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)
    assert (pair.first.holds(), pair.second.holds()) == (0, 0)


def test_one_host_that_is_down_does_not_stop_the_other(pair: Pair) -> None:
    """The other holds, lists and releases; requests to the stopped one are carried out when it is back."""
    waiting, other = next(NUMBERS), next(NUMBERS)
    pair.second.send(waiting)
    asleep = pair.held(waiting)
    pair.second.go_down()
    try:
        pair.first.send(other)
        incident = pair.held(other)
        status, listed = pair.first.command("held", "list")
        assert status == 0
        assert {incident.reference, asleep.reference} <= set(listed.split())
        status, _ = pair.first.command("held", "release", asleep.reference, "--as", "bcc", "--no-wait")
        assert status == 0
        done = pair.first.command("held", "release", incident.reference, "--as", "bcc")
        assert done == (0, f"{incident.reference} was released as bcc to 4 recipients\n")
        assert pair.received(other) == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)
        assert [request.incident_id for request in pair.journal.held.requests(gateway=pair.second.name)] == [asleep.id]
        assert pair.incident(waiting).state is State.HELD
        assert pair.received(waiting) == {}
    finally:
        pair.second.come_back()
    until(lambda: pair.incident(waiting).state is State.RELEASED, within=WITHIN, what="the release that was waiting")
    until(lambda: not pair.journal.held.requests(gateway=pair.second.name), within=WITHIN, what="its answer")
    assert pair.received(waiting) == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)
    assert (pair.first.holds(), pair.second.holds()) == (0, 0)


@pytest.mark.parametrize("same", [False, True], ids=["other recipients", "the same recipients"])
def test_one_message_through_both_is_one_incident(pair: Pair, same: bool) -> None:
    """One reference and one notice; a release delivers the copies of both hosts, and a repeat once."""
    number = next(NUMBERS)
    begun = [*PARENTS[:3], COLLEAGUE]
    rest = begun if same else [*PARENTS[3:6]]
    pair.first.send(number, *begun)
    pair.second.send(number, *rest)
    incident = pair.held(number, copies=2)
    assert {copy.gateway for copy in incident.copies} == {pair.first.name, pair.second.name}
    until(lambda: pair.notices(number), within=WITHIN, what="the notice")
    done = pair.second.command("held", "release", incident.reference, "--as", "bcc")
    assert done[0] == 0
    assert f"{incident.reference} was released as bcc to " in done[1]
    assert pair.received(number) == (Counter(begun) if same else Counter(begun) + Counter(rest))
    assert pair.incident(number).state is State.RELEASED
    until(lambda: len(pair.notices(number)) > 1, within=WITHIN, what="the notice that it was sent")
    assert not pair.journal.held.requests(gateway=pair.first.name)
    # One about the hold, one about its end: not one from each host.
    assert pair.notices(number) == [(SENDER,)] * 2
    assert (pair.first.holds(), pair.second.holds()) == (0, 0)
