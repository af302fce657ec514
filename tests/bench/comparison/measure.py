"""The run itself: one Postfix, every contestant behind a port of its own, and the measurements in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from bench import smtp
from bench.comparison import letters, usage
from bench.comparison.contestants import CONTESTANTS, JUDGES, Running
from bench.comparison.figures import Record, Sample
from bench.comparison.letters import Kind
from lab import processes
from lab.postfix import PrivatePostfix

SESSIONS = 4
"""The number of concurrent SMTP sessions for the rate."""
SINGLE = 3
"""Of so many messages in the rate's measurement, one is sent again in the single session."""
FEWEST = 12
"""Messages sent at least, however few were asked for."""

SETTINGS = {
    # The delivery of a message after the milter is not measured.
    "default_transport": "discard",
    "relay_transport": "discard",
    "relayhost": "",
    # A milter that fails must not look like one that is quick.
    "milter_default_action": "tempfail",
    "message_size_limit": "20000000",
    # Postfix would look each address of a header up to append a domain to it, as it does for clients on the machine
    # itself (permit_inet_interfaces) and for no others: 20 ms for 500 addresses.
    "local_header_rewrite_clients": "",
}

DISCARD = 9
"""The port of the sink that does not exist."""


class UnfairError(RuntimeError):
    """A contestant does not apply the rule by which it is compared."""


class Contest:
    """All contestants, started and attached."""

    def __init__(self, postfix: PrivatePostfix, running: Mapping[str, Running], ports: Mapping[str, int]) -> None:
        self._postfix = postfix
        self._running = running
        self._ports = ports
        self._sent = 0

    def prove(self) -> None:
        """Check that all contestants with the rule count alike. Raises UnfairError."""
        for name in self._running:
            smtp.single_session(self._ports[name], [letters.within_the_limit()])
            try:
                smtp.single_session(self._ports[name], [letters.beyond_the_limit()])
                refused = False
            except smtp.RefusedError as answer:
                refused = str(answer).startswith("5")
            if refused is not (name in JUDGES):
                raise UnfairError(f"{name}: {letters.LIMIT + 1} strangers were {'' if refused else 'not '}refused")

    def measure(self, name: str, kind: Kind, messages: int) -> Sample:
        """One contestant with one kind of message; Postfix has nothing else to do."""
        running, port = self._running[name], self._ports[name]
        several = max(FEWEST, round(messages * kind.share))
        again = max(FEWEST, several // SINGLE)
        sent = letters.letters(kind, several + again, self._sent)
        self._sent += len(sent)
        self._postfix.wait_until_idle(within=120)
        before = usage.processor_seconds(running.pids())
        rate = smtp.rate(port, sent[:several], sessions=SESSIONS)
        self._postfix.wait_until_idle(within=120)
        single = statistics.median(smtp.single_session(port, sent[several:]))
        used = usage.processor_seconds(running.pids()) - before
        return Sample(rate, single, used / len(sent) * 1e3, usage.memory(running.pids()) / 1e6)


@contextmanager
def contest(say: Callable[[str], None]) -> Iterator[Contest]:
    """Start Postfix and all contestants; end them on exit."""
    with ExitStack() as stack:
        postfix = stack.enter_context(PrivatePostfix(outside=DISCARD, settings=SETTINGS))
        running, ports = {}, {}
        for name, start in CONTESTANTS.items():
            say(f"starting {name}")
            running[name] = stack.enter_context(start(postfix.directory))
            ports[name] = _attach(postfix, running[name].milter)
        postfix.reload()
        yield Contest(postfix, running, ports)


def _attach(postfix: PrivatePostfix, milter: str) -> int:
    """A port of Postfix's whose mail this milter sees, and no other."""
    port = processes.reserve_port()
    option = f" -o smtpd_milters={milter}" if milter else ""
    line = f"127.0.0.1:{port} inet n - n - - smtpd{option}"
    postfix.run("postconf", "-M", "-e", f"127.0.0.1:{port}/inet={line}")
    return port


def in_turn(
    contest: Contest, kinds: Sequence[Kind], *, rounds: int, messages: int, say: Callable[[str], None]
) -> Iterator[Record]:
    """All measurements: in every round each contestant gets every message; each round begins with another contestant.

    A round before the first warms up, with a few messages.
    """
    everybody = list(CONTESTANTS)
    for number in range(rounds + 1):
        at = number % len(everybody)
        for kind in kinds:
            for name in everybody[at:] + everybody[:at]:
                sample = contest.measure(name, kind, messages if number else messages // 10)
                if number:
                    say(f"round {number} of {rounds}, {kind.title}: {name}, {sample.rate:.0f}/s")
                    yield Record(kind.name, name, number, sample)
