"""`tests/model/run`: a million steps of the model test, in several processes, with what they reached."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from typing import Final

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from model.machine import MUST_REACH, Machine

SEQUENCES: Final = 50
"""Sequences of one batch: between two batches a process reports."""

LENGTH: Final = 50
"""Steps of a sequence at most. Longer ones reach nothing that these do not, and are read less easily."""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/model/run", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps in all (1,000,000)")
    parser.add_argument("--seed", type=int, default=None, help="the first batch's number; repeats a run (random)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes (one for each processor)")
    parser.add_argument("--shrink", action="store_true", help="look for a shorter sequence that fails; takes minutes")
    return parser.parse_args()


def play(number: int, *, shrink: bool) -> tuple[Counter[str], str]:
    """Play one batch; returns what it reached, and the sequence that failed or an empty text."""
    Machine.counted.clear()
    chosen = settings(
        database=None,
        deadline=None,
        max_examples=SEQUENCES,
        stateful_step_count=LENGTH,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.normal,
        print_blob=False,
    )
    try:
        run_state_machine_as_test(seed(number)(Machine), settings=chosen)
    except Exception as error:  # noqa: BLE001  whatever it is, it is printed
        notes = "\n".join(getattr(error, "__notes__", ()))
        return Counter(Machine.counted), f"batch {number}\n{''.join(traceback.format_exception(error))}\n{notes}"
    return Counter(Machine.counted), ""


class _Play:
    def __init__(self, shrink: bool) -> None:
        self._shrink = shrink

    def __call__(self, number: int) -> tuple[Counter[str], str]:
        return play(number, shrink=self._shrink)


def main() -> int:
    """Play until the steps are done or a sequence fails; returns the exit status."""
    chosen = options()
    first = chosen.seed if chosen.seed is not None else int.from_bytes(os.urandom(3))
    print(f"{chosen.steps:,} steps from batch {first} on, in {chosen.processes} processes", flush=True)
    reached: Counter[str] = Counter()
    began = said = time.monotonic()
    number = first
    while reached["step"] < chosen.steps:
        group = range(number, number + chosen.processes)
        number += chosen.processes
        with multiprocessing.get_context("fork").Pool(chosen.processes) as pool:
            for counted, failure in pool.imap_unordered(_Play(chosen.shrink), group):
                reached += counted
                if failure:
                    print(failure, file=sys.stderr)
                    print(f"failed: tests/model/run --processes 1 --seed {failure.split()[1]} repeats it")
                    return 1
        if time.monotonic() - said >= 10:
            said = time.monotonic()
            print(f"{reached['step']:>10,} steps, {reached['step'] / (said - began):.0f} a second", flush=True)
    print(f"{reached['step']:,} steps in {time.monotonic() - began:.0f} s; every sum is zero. Reached:")
    for name, times in sorted(reached.items()):
        print(f"{times:>10,}  {name}")
    missing = [name for name in MUST_REACH if not reached[name]]
    if missing:
        print(f"not reached, so not proved: {', '.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
