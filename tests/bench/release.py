"""The rate at which held mail is released: 1,000 messages as bcc, against the same Postfix taking plain mail over SMTP.

    .venv/bin/python tests/bench/release.py [--messages N] [--rounds N]

A private Postfix with the milter attached. Each round first sends N messages in one SMTP session, each after the answer
to the one before it, from a sender that no rule concerns; then N that the milter holds; then it asks for the release of
those, and measures the steward from the first look at the requests to the last answer. All messages have 20 recipients
in To and 4 kB. Postfix's delivery is not measured (transport discard). The steward runs in this
process, on a journal in SQLite; memory is this process's.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy"))

import structlog

from lab import toml
from lab.client import Client
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from undisclosed.config.gateway_file import read_gateway
from undisclosed.config.key_file import read_key
from undisclosed.config.load import load
from undisclosed.incidents.records import State
from undisclosed.journal.journal import Journal
from undisclosed.steward.context import Context
from undisclosed.steward.hold_queue import HoldQueue
from undisclosed.steward.rounds import Steward

WANTED = 0.5
"""The rate of releases, as a part of the rate of plain mail."""

PEOPLE = [f"parent{number}@family{number}.example" for number in range(20)]
MESSAGE = (
    b"""From: Clerk <%s>
To: %s
Subject: School places
Message-ID: <%d.%d@council.test>
Date: Mon, 02 Feb 2026 09:00:00 +0000

"""
    + b"The school term begins on Monday, as it does each year; please bring a pen.\n" * 53
)

RULES: list[toml.Table] = [{"name": "exempt", "senders": ["exempt@*"], "action": "accept"},
         {"name": "limit", "more_than_addresses": 10, "action": "quarantine"}]  # fmt: skip


def send(port: int, sender: str, batch: int, count: int) -> float:
    """Seconds for `count` messages in one session."""
    people = ",\n\t".join(PEOPLE).encode()
    began = time.perf_counter()
    with Client(port) as client:
        for number in range(count):
            message = MESSAGE % (sender.encode(), people, batch, number)
            outcome = client.send(message, sender=sender, to=PEOPLE)
            if not outcome.accepted:
                raise RuntimeError(f"refused: {outcome.final}")
    return time.perf_counter() - began


def resident() -> int:
    """This process's memory in kB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def release(steward: Steward, journal: Journal, count: int) -> float:
    """Seconds in which the steward releases everything that is held."""
    steward.round(datetime.now(UTC))
    held = journal.incidents.search(states=[State.HELD])
    if len(held) != count:
        raise RuntimeError(f"{len(held)} are held, and not {count}")
    for incident in held:
        journal.held.ask([copy.id for copy in incident.copies], verb="release", mode="bcc", actor="bench", reason="")
    began = time.perf_counter()
    steward.round(datetime.now(UTC))
    took = time.perf_counter() - began
    if left := journal.incidents.search(states=[State.HELD, State.RELEASING]):
        raise RuntimeError(f"{len(left)} were not released")
    return took


def main() -> int:
    """Measure, print, and return 1 if releases are slower than wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1000, help="messages of each kind in a round (default 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    ratios, memory = [], [resident()]
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        settings = {"default_transport": "discard", "relay_transport": "discard", "relayhost": ""}
        postfix = stack.enter_context(PrivatePostfix(outside=sink.port, settings=settings))
        gateway = Gateway(postfix, sink)
        gateway.configure(gateway.policy(rules=RULES))
        stack.enter_context(gateway)
        policy = load(gateway.config)
        key = read_key(policy, create=False)
        journal = Journal(policy.journal, key)
        queue = stack.enter_context(HoldQueue(postfix.config_dir))
        context = Context(policy, key, read_gateway(policy, create=True))
        steward = Steward(context, journal, queue, structlog.get_logger(), lambda _: None)
        for number in range(arguments.rounds):
            plain = send(postfix.port, "exempt@council.test", 2 * number, arguments.messages)
            gateway.settle()
            send(postfix.port, "clerk@council.test", 2 * number + 1, arguments.messages)
            took = release(steward, journal, arguments.messages)
            gateway.settle()
            memory.append(resident())
            ratios.append(plain / took)
            print(
                f"plain {arguments.messages / plain:6.0f}/s   released {arguments.messages / took:6.0f}/s"
                f"   ratio {plain / took:.2f}   memory {memory[-1]:,} kB",
                flush=True,
            )
        journal.close()
    ratio = statistics.median(ratios)
    print(f"releases at {WANTED} of the rate of plain mail or more: {'reached' if ratio >= WANTED else 'NOT reached'}"
          f" (median {ratio:.2f})")  # fmt: skip
    return int(ratio < WANTED)


if __name__ == "__main__":
    sys.exit(main())
