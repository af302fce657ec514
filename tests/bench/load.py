"""The milter under load: many sessions, slow ones, broken ones, and an hour's mail at full speed.

    .venv/bin/python tests/bench/load.py [--messages N] [--only PART] [--write]

Four parts, each with its own milter (two workers, a journal on SQLite, the log in a file). The clients speak the milter
protocol. The exit status is 1 if a required figure is missed. Memory is that of all processes of the milter, shared
pages counted once (PSS). `--write` puts the report into docs/load.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "deploy"))

from bench import generated
from wire import scenarios
from wire.loads import Held, milter

DOCUMENT = Path(__file__).parents[2] / "docs" / "load.md"
MAY_GROW = 0.10
"""The share by which memory may grow between the first tenth and the end."""


class Line(NamedTuple):
    """One line of the report, and whether it is as required; None if nothing is required."""

    what: str
    found: str
    holds: bool | None = None


def many() -> Iterator[Line]:
    """1,000 open sessions, 300 of them sending the mixture."""
    sessions, sending = 1000, 300
    with milter() as running:
        found = scenarios.many(running, sessions=sessions, sending=sending, messages=30_000, warm=2000)
    yield Line("sessions open, and sending", f"{found.open_at_the_end:,}, {sending}", found.open_at_the_end == sessions)
    yield Line("sessions that failed", str(len(found.failures)), not found.failures)
    yield Line("wrong final answers", f"{len(found.wrong)} of {found.sent:,}", not found.wrong)
    yield Line("temporary failures", str(found.deferred), not found.deferred)
    yield Line("messages a second", f"{found.sent / found.seconds:,.0f}")
    memory = (found.opened.kilobytes - found.before.kilobytes) / (sessions - sending)
    yield Line("memory of an idle session", f"{memory:.1f} kB")
    yield _left(found.before, found.after)


def slow() -> Iterator[Line]:
    """100 clients that send one header field a second, 20 fields each, and 10 that send at full speed."""
    with milter() as running:
        found = scenarios.slow(running, clients=100, pause=1.0, lines=20, fast=10, messages=20_000)
    yield Line(
        "slow clients that got their final answer",
        f"{len(found.final_answers)} of 100",
        found.final_answers == ["550"] * 100,
    )
    yield Line("other clients meanwhile", f"{found.messages:,} messages", not (found.failures or found.wrong))
    for name, took in (("without slow clients", found.alone), ("with them", found.beside)):
        tail = statistics.quantiles(took, n=100)[-1]
        figures = f"{statistics.median(took) * 1e3:.2f}, {tail * 1e3:.2f}, {max(took) * 1e3:.1f} ms"
        yield Line(f"median, 99 % and slowest message {name}", figures)


def dying() -> Iterator[Line]:
    """Sessions broken off, 500 at once after each stage, and 20 that send the mixture."""
    each = 500
    with milter() as running:
        found = scenarios.deaths(running, each=each, sending=20, warm=5000)
    yield Line("sessions broken off", f"{each * len(scenarios.STAGES):,}, after {', '.join(scenarios.STAGES)}")
    yield Line("other clients meanwhile", f"{found.beside:,} messages", not (found.failures or found.wrong))
    yield _left(found.before, found.after)
    yield Line("memory before and after", f"{found.before.kilobytes:,} and {found.after.kilobytes:,} kB")


def long(messages: int) -> Iterator[Line]:
    """The mixture at full speed, 20 messages in a session, 50 sessions at once."""
    with milter() as running:
        found = scenarios.long(
            running, messages=messages, sessions=50, told=lambda text: print(f"  {text}", flush=True)
        )
    first, last = found.tenths[0], found.tenths[-1]
    sent = sum(found.final_answers.values())
    kinds = ", ".join(f"{count:,} {word}" for word, count in sorted(found.final_answers.items()))
    yield Line("messages", f"{sent:,} in {found.seconds:.0f} s ({kinds})", sent == messages)
    yield Line("temporary failures", str(found.deferred), not found.deferred)
    yield Line(
        "failed sessions and wrong final answers",
        f"{len(found.failures) + len(found.wrong)}",
        not (found.failures or found.wrong),
    )
    yield Line(
        "processor time of the workers per message", f"{(last.seconds - first.seconds) / (0.9 * sent) * 1e6:.0f} µs"
    )
    growth = last.kilobytes / first.kilobytes - 1
    memory = ", ".join(f"{tenth.kilobytes / 1024:.1f}" for tenth in found.tenths)
    yield Line("memory after each tenth", f"{memory} MB: {growth:+.1%}", growth <= MAY_GROW)
    same = (first.descriptors, first.threads) >= (last.descriptors, last.threads)
    yield Line(
        "descriptors and threads after the first tenth and at the end",
        f"{first.descriptors} and {first.threads}; {last.descriptors} and {last.threads}",
        same,
    )


def _left(before: Held, after: Held) -> Line:
    sockets, threads = after.sockets - before.sockets, after.threads - before.threads
    return Line("sockets and threads left over", f"{sockets} and {threads}", sockets <= 0 and threads <= 0)


def main() -> int:
    """Run the parts, print their figures, and write them to the document if asked."""
    parts: dict[str, Callable[[], Iterator[Line]]] = {"many": many, "slow": slow, "dying": dying}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000, help="of the last part (default 200,000)")
    parser.add_argument("--only", choices=[*parts, "long"], help="one part: it alone is written")
    parser.add_argument("--write", action="store_true", help="put the report into docs/load.md")
    arguments = parser.parse_args()
    parts["long"] = lambda: long(arguments.messages)
    kept = True
    for name, part in parts.items():
        if arguments.only in (None, name):
            about = (globals()[name].__doc__ or "").strip()
            print(about, flush=True)
            lines = list(part())
            kept = kept and all(line.holds is not False for line in lines)
            rows = [(line.what, line.found, {True: "yes", False: "NO", None: ""}[line.holds]) for line in lines]
            report = f"{about}\n\n" + generated.table(["", "measured", "as required"], rows)
            print(
                "\n".join(
                    f"  {what}: {found}{'   <-- NOT as required' if holds == 'NO' else ''}"
                    for what, found, holds in rows
                )
            )
            if arguments.write:
                generated.write(DOCUMENT, f"tests/bench/load.py {name}", report)
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
