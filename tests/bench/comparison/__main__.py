"""The command behind `tests/bench/compare`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.comparison import page, results
from bench.comparison.contestants import CONTESTANTS
from bench.comparison.figures import Figures, Record, judged
from bench.comparison.letters import KINDS
from bench.comparison.measure import contest, in_turn
from bench.comparison.picture import picture
from bench.comparison.results import Results

DOCS = Path(__file__).parents[3] / "docs"
PAGE, PICTURE = "performance.md", "performance.svg"
ROUNDS, MESSAGES = 5, 600
QUICK_ROUNDS, QUICK_MESSAGES = 1, 100
TITLES = {kind.name: kind.title for kind in KINDS}


def options(words: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="tests/bench/compare",
        description="Measure the cost of milters: none, one that does nothing, rspamd and MIMEDefang with the same"
        " rule, and undisclosed, in turn through one private Postfix.",
        epilog="The exit status is 1 if a target is missed.",
    )
    parser.add_argument("--rounds", type=int, help=f"rounds, of which the median is taken (default {ROUNDS})")
    parser.add_argument("--messages", type=int, help=f"small messages in a round and turn; of the others there are"
                        f" fewer in proportion (default {MESSAGES})")  # fmt: skip
    parser.add_argument("--only", choices=list(TITLES), action="append", help="only this message; may be said again")
    parser.add_argument("--quick", action="store_true", help="a look at it in about a minute; writes no page")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep the measurements in this file, together with"
                        " those of other messages that are there: a run may be done in parts")  # fmt: skip
    parser.add_argument("--docs", type=Path, metavar="DIRECTORY", help="where performance.md and performance.svg are"
                        " written, once every message was measured (default docs/)")  # fmt: skip
    asked = parser.parse_args(words)
    asked.rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS)
    asked.messages = asked.messages or (QUICK_MESSAGES if asked.quick else MESSAGES)
    if asked.docs is None and not asked.quick:
        asked.docs = DOCS
    return asked


def main(words: Sequence[str]) -> int:
    """Measure, print, write; the exit status."""
    asked = options(words)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)

    if asked.docs:
        page.put_in(
            (asked.docs / PAGE).read_text(), ""
        )  # fail before ten minutes of measurement if the page cannot be written
    kept = results.load(asked.results) if asked.results else Results({}, [])
    kinds = [kind for kind in KINDS if not asked.only or kind.name in asked.only]
    with contest(say) as running:
        running.prove()
        say("all who have the rule count alike")
        records = list(in_turn(running, kinds, rounds=asked.rounds, messages=asked.messages, say=say))
    found = results.merged(kept, Results(results.machine(), records))
    if asked.results:
        results.save(asked.results, found)
    figures = in_order(found.records)
    tables = page.measured(figures, TITLES, found.machine)
    print(tables)
    if asked.docs and figures.kinds == list(TITLES):
        write(asked.docs, figures, tables)
    return int(not all(goal.reached for goal in judged(figures)))


def in_order(records: Sequence[Record]) -> Figures:
    """The figures with messages and contestants in their usual order, independent of the order of the measurements."""
    kinds, names = list(TITLES), list(CONTESTANTS)
    return Figures(
        sorted(records, key=lambda record: (kinds.index(record.kind), names.index(record.contestant), record.round))
    )


def write(docs: Path, figures: Figures, tables: str) -> None:
    """The page's tables and the picture."""
    there = docs / PAGE
    there.write_text(page.put_in(there.read_text(), tables))
    (docs / PICTURE).write_text(picture(figures, TITLES))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # else nothing is cleared away
    sys.exit(main(sys.argv[1:]))
