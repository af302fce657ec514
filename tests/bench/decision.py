"""The cost of a message in the milter's own code, without Postfix, libmilter and kernel: warm, and with cold caches.

    .venv/bin/python tests/bench/decision.py

A worker's caches are rarely warm: between two packets of a message Postfix's processes run on the same core. The cold
figure is taken after 8 MB of something else were read, which is more than the cache that a core has to itself. Both are
the median over messages, by stage; the log goes to /dev/null.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.comparison.letters import LIMIT, SENDER, message, people
from support.recorders import SessionRecorder
from undisclosed import log
from undisclosed.milter.answers import Accept
from undisclosed.milter.session import Runtime, Session, Snapshot
from undisclosed.policy import Policy

MESSAGES = 300
SOMETHING_ELSE = bytearray(8 << 20)

Stage = tuple[str, Callable[[], object]]


def header(addresses: int, number: int) -> list[tuple[str, str]]:
    """The header fields of a message of the comparison, as the milter gets them."""
    text = message(people(addresses, number), number, 0).decode().rstrip("\n").replace("\n\t", "\0")
    fields = (line.replace("\0", "\n\t").partition(": ") for line in text.split("\n"))
    return [(name, value) for name, _, value in fields]


def stages(session: Session, addresses: int, number: int) -> Iterator[Stage]:
    """One message, call by call, as the callbacks pass it to the session."""

    def end() -> None:
        answer = session.end_of_header("4jXkCg3tY6zJ9DC")
        if not isinstance(answer, Accept):
            raise TypeError(f"it should have passed: {answer}")
        session.answered(answer)

    yield "MAIL", lambda: session.mail(f"<{SENDER}>", "")
    for recipient in people(2, number):
        yield "RCPT", partial(session.rcpt, f"<{recipient}>")
    for name, value in header(addresses, number):
        yield "header", partial(session.header, name, value)
    yield "end of header", end


def measure(session: Session, addresses: int, *, cold: bool) -> dict[str, float]:
    """Median microseconds a message, by stage."""
    took: list[dict[str, float]] = []
    for number in range(MESSAGES):
        steps = list(stages(session, addresses, number))
        if cold:
            bytes(SOMETHING_ELSE)
        one: dict[str, float] = {}
        for stage, step in steps:
            began = time.perf_counter_ns()
            step()
            one[stage] = one.get(stage, 0.0) + (time.perf_counter_ns() - began) / 1e3
        took.append(one)
    return {stage: statistics.median(one[stage] for one in took) for stage in took[0]}


def main() -> int:
    """Print the table."""
    log.configure("json", os.open(os.devnull, os.O_WRONLY))
    policy = Policy.model_validate({
        "organisation": {"name": "The council", "internal_domains": ["council.test"]},
        "rules": [{"name": "limit", "more_than_addresses": LIMIT, "action": "reject"}],
    })  # fmt: skip
    session = Session(Runtime(Snapshot(policy, b"k" * 32, "mx1"), log.get(), SessionRecorder()))
    session.connect("127.0.0.1", 40000)
    for addresses in (2, 500):
        warm, cold = (measure(session, addresses, cold=empty) for empty in (False, True))
        print(f"{addresses} addresses: {sum(warm.values()):.0f} µs warm, {sum(cold.values()):.0f} µs cold")
        for stage in warm:
            print(f"    {stage:15} {warm[stage]:6.0f} {cold[stage]:6.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
