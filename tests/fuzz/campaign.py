"""Coverage-guided fuzzing of the properties that must always hold: `tests/fuzz/run [--seconds N] [TARGET…]`.

Targets: `visible` (addresses.visible), `rewrite` (rewrite.hide), `session` (the milter's callbacks). Each runs for N
seconds, from the repository's cases and from what earlier runs have found worth keeping. An input that breaks a
property is kept as a file, and ends the run of its target; the exit status is 1 if there is one. `--replay` plays such
a file again, without the fuzzer.
"""

from __future__ import annotations

import argparse
import importlib
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "deploy"))

from fuzz import seeds

HERE = Path(__file__).parent
TARGETS = ("visible", "rewrite", "session")
LONGEST = 3000
"""Bytes of an input: enough for a field or a header with every form."""
ONE_INPUT = 20
"""Seconds that one input may take."""

_RUNS = re.compile(r"(?:stat::number_of_executed_units: +|^Done |^#)(\d+)", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")
_WRITTEN = re.compile(r"Test unit written to (.+)")


class Outcome(NamedTuple):
    """The result of one target's run."""

    executions: int
    seconds: float
    """Of processor time."""
    covered: int
    """Edges of the product's code."""
    findings: list[Path]
    said: str


def run(target: str, seconds: int, work: Path) -> Outcome:
    """Fuzz one target in a process of its own."""
    corpus, findings = work / "corpus" / target, work / "findings" / target
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    seeds.write(target, work / "seeds" / target)
    seeds.dictionary(work / "words.dict")
    command = ["nice", "-n", "19", sys.executable, str(HERE / "engine.py"), target, str(corpus)]
    command += [str(work / "seeds" / target), f"-max_total_time={seconds}", f"-max_len={LONGEST}"]
    command += [f"-timeout={ONE_INPUT}", f"-dict={work / 'words.dict'}", f"-artifact_prefix={findings}/"]
    command += ["-print_final_stats=1", "-rss_limit_mb=1024"]
    before = _used()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    said = done.stdout.decode(errors="replace")
    written = [Path(path) for path in _WRITTEN.findall(said)]
    if done.returncode and not written:
        raise RuntimeError(f"the fuzzer itself failed:\n{said[-3000:]}")
    return Outcome(_last(_RUNS, said), _used() - before, _last(_COVERED, said), written, said)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _last(pattern: re.Pattern[str], said: str) -> int:
    return max(map(int, pattern.findall(said)), default=0)


def main() -> int:
    """Fuzz, or replay; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="where corpus and findings are kept")
    parser.add_argument("--replay", type=Path, help="a finding to be played again")
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    if arguments.replay:
        for target in targets:
            importlib.import_module(f"fuzz.{target}").check(arguments.replay.read_bytes())
        print("nothing is wrong with it")
        return 0
    found = 0
    for target in targets:
        outcome = run(target, arguments.seconds, arguments.work)
        found += len(outcome.findings)
        print(
            f"{target}: {outcome.executions:,} executions in {outcome.seconds:.0f} s of processor time, "
            f"{outcome.covered} edges, {len(outcome.findings)} findings",
            flush=True,
        )
        for path in outcome.findings:
            print(f"  {path}\n" + "\n".join(f"    {line}" for line in _why(outcome.said)))
    return int(found > 0)


def _why(said: str) -> list[str]:
    """The last lines of the exception that the target raised."""
    before = said.partition("==")[0].strip().splitlines()
    return before[-4:]


if __name__ == "__main__":
    sys.exit(main())
