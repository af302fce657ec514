"""The latency that the milter adds to a message: the median in one SMTP session, against a Postfix without a milter.

    .venv/bin/python tests/bench/latency.py [--messages N] [--rounds N]

Private instances of Postfix run side by side, equal except for the milter: none, one in C that does nothing
(comparison/null.c: the cost of Postfix and libmilter alone), ours; on a unix socket and on an inet socket. Each
round sends to each in turn, so that other load of the machine affects all of them. A message has two addresses and
4 kB; `passed` is accepted at the end of its header, `rewritten` is read to its end, gets a new To and loses its Cc.
Postfix's delivery is not measured (transport discard). Times are those of the client, from MAIL to the answer after the
final dot.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from bench.comparison.contestants import null
from bench.smtp import Letter, single_session
from lab import processes, toml
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink

ALLOWED = 1.5
"""Milliseconds that the milter may add to the median message."""

MESSAGE = (
    b"""From: Clerk <clerk@council.test>
To: Parent One <one@family.example>
Cc: two@home.example
Subject: School places
Message-ID: <%d@council.test>
Date: Mon, 02 Feb 2026 09:00:00 +0000

"""
    + b"The school term begins on Monday, as it does each year; please bring a pen.\n" * 53
)

RULES: Sequence[toml.Table] = [
    {"name": "hide", "senders": ["rewrite@*"], "more_than_addresses": 0, "action": "rewrite"},
    {"name": "limit", "more_than_addresses": 10, "action": "reject"},
]


def gateways(stack: ExitStack) -> dict[str, int]:
    """Start them, and return their ports by name."""
    sink = stack.enter_context(Sink())

    def postfix() -> PrivatePostfix:
        settings = {"default_transport": "discard", "relay_transport": "discard", "relayhost": ""}
        return stack.enter_context(PrivatePostfix(outside=sink.port, settings=settings))

    ports = {"no milter": postfix().port}
    for kind in ("unix", "inet"):
        server = postfix()
        server.set(smtpd_milters=stack.enter_context(null(kind)(server.directory)).milter)
        server.reload()
        ports[f"in C, {kind}"] = server.port
    for kind in ("unix", "inet"):
        server = postfix()
        socket = kind if kind == "unix" else f"inet:{processes.reserve_port()}@127.0.0.1"
        gateway = Gateway(server, sink, socket=socket)
        gateway.configure(gateway.policy(rules=RULES))
        stack.enter_context(gateway)
        ports[f"ours, {kind}"] = server.port
    return ports


def letters(sender: str, count: int) -> list[Letter]:
    """So many messages, ready to be sent."""
    to = ["one@family.example", "two@home.example"]
    return [Letter.of(MESSAGE % number, sender=sender, recipients=to) for number in range(count)]


def main() -> int:
    """Measure, print the table, and return 1 if the milter adds more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=200, help="messages in a session (default 200)")
    parser.add_argument("--rounds", type=int, default=5, help="sessions with each of them (default 5)")
    arguments = parser.parse_args()
    times: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        ports = gateways(stack)
        senders = {"passed": "clerk@council.test", "rewritten": "rewrite@council.test"}
        for round_number in range(arguments.rounds + 1):
            for name, port in ports.items():
                for kind, sender in senders.items():
                    took = single_session(port, letters(sender, arguments.messages))
                    if round_number:  # the first one warms up
                        times.setdefault((name, kind), []).extend(took)
    table = Table(
        "milter", "message", "median ms", "95 % ms", "added ms", "ratio", title="One SMTP session, 2 addresses"
    )
    most = 0.0
    for (name, kind), took in times.items():
        median, base = statistics.median(took), statistics.median(times["no milter", kind])
        if name.startswith("ours"):
            most = max(most, median - base)
        tail = statistics.quantiles(took, n=20)[-1]
        table.add_row(name, kind, f"{median:.2f}", f"{tail:.2f}", f"{median - base:+.2f}", f"{median / base:.2f}")
    Console(width=100).print(table)
    print(f"at most {ALLOWED} ms may be added: {'reached' if most <= ALLOWED else 'NOT reached'} ({most:.2f} ms)")
    return int(most > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
