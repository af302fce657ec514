"""Decisions a second and their cost, spoken to in the milter protocol itself: no Postfix, no SMTP in the way.

    .venv/bin/python tests/bench/protocol.py [--rounds N] [--seconds N] [--write]

First by workers and sessions at once: an ordinary message of two addresses, accepted at the end of its header; every
session sends its next message as soon as it has the answer to the last. Then by the addresses a message shows, in one
session: up to 1,000 in a field, the rest in further ones, as Postfix cuts longer fields; no rule acts on them, so that
it is reading and counting that is measured. `CPU` is the processor time of the milter's workers for one message, `ms`
the time from MAIL to the final answer. The sessions are played by this program, which needs a processor of its own:
with as many workers as the machine has processors, the decisions a second are those of the time that it leaves.

`--write` puts the tables into docs/load.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "deploy"))

from bench import generated
from support.factories import rule
from wire.crowd import Crowd, Letter, letter
from wire.loads import Sender, fields, held, milter
from wire.running import Running

DOCUMENT = Path(__file__).parents[2] / "docs" / "load.md"
WORKERS = (1, 2, 4)
SESSIONS = (1, 10, 100, 1000)
ADDRESSES = (1, 10, 100, 500, 1000, 5000)
TAKES_ALL = [rule(more_than_addresses=1_000_000)]


class Figures(NamedTuple):
    """One measurement."""

    a_second: float
    cpu: float
    """Microseconds of the workers for a message."""
    median: float
    tail: float
    """Milliseconds: of the median message, and of the one that 95 of 100 do not exceed."""


def measure(running: Running, one: Letter, sessions: int, seconds: float) -> Figures:
    """Send one letter again and again in so many sessions at once. Raises RuntimeError if one fails."""
    sender = Sender([(one, 1)])
    with Crowd(running.address) as crowd:
        for _ in range(sessions):
            crowd.add(sender.session())
        _play(crowd, seconds / 4)  # every session has begun, and every worker has warmed up
        sender.took.clear()
        before, count, began = held(running.milter), sender.count, time.monotonic()
        _play(crowd, seconds)
        took, count = time.monotonic() - began, sender.count - count
        cpu = held(running.milter).seconds - before.seconds
        if crowd.failures or sender.wrong or not count:
            raise RuntimeError(f"{crowd.failures[:3]} {sender.wrong[:3]}")
    tail = statistics.quantiles(sender.took, n=20)[-1]
    return Figures(count / took, cpu / count * 1e6, statistics.median(sender.took) * 1e3, tail * 1e3)


def _play(crowd: Crowd, seconds: float) -> None:
    crowd.run(until=time.monotonic() + seconds)


def medians(rounds: list[Figures]) -> Figures:
    """Each figure's median."""
    return Figures(*(statistics.median(values) for values in zip(*rounds, strict=True)))


def by_sessions(rounds: int, seconds: float) -> Iterator[tuple[str, ...]]:
    """A row for each number of workers and of sessions."""
    one = letter(fields(2), "accept")
    for workers in WORKERS:
        with milter(workers, rules=TAKES_ALL) as running:
            for sessions in SESSIONS:
                found = medians([measure(running, one, sessions, seconds) for _ in range(rounds)])
                yield (
                    str(workers),
                    f"{sessions:,}",
                    f"{found.a_second:,.0f}",
                    f"{found.cpu:,.0f}",
                    f"{found.median:.2f}",
                    f"{found.tail:.2f}",
                )


def by_addresses(rounds: int, seconds: float) -> Iterator[tuple[str, ...]]:
    """A row for each number of addresses."""
    with milter(1, rules=TAKES_ALL) as running:
        for people in ADDRESSES:
            one = letter(fields(people), "accept")
            found = medians([measure(running, one, 1, seconds) for _ in range(rounds)])
            yield (
                f"{people:,}",
                f"{found.a_second:,.0f}",
                f"{found.cpu:,.0f}",
                f"{found.median:.2f}",
                f"{found.cpu / people:.1f}",
            )


def main() -> int:
    """Measure, print the tables, and write them where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; the median counts (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round (default 2)")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/load.md")
    arguments = parser.parse_args()
    sessions = generated.table(
        ["workers", "sessions", "decisions a second", "CPU µs", "median ms", "95 % ms"],
        by_sessions(arguments.rounds, arguments.seconds),
    )
    addresses = generated.table(
        ["addresses", "decisions a second", "CPU µs", "median ms", "CPU µs an address"],
        by_addresses(arguments.rounds, arguments.seconds),
    )
    about = f"{os.cpu_count()} processors, {arguments.rounds} rounds of {arguments.seconds:g} s."
    report = f"{about}\n\n{sessions}\n\n{addresses}"
    print(report)
    if arguments.write:
        generated.write(DOCUMENT, "tests/bench/protocol.py", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
