"""The table of faults: a row for each test that injects one, and the page that holds it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
PROOFS_BEGIN, PROOFS_END = "<!-- proofs: begin -->", "<!-- proofs: end -->"
HEAD = (
    "| Fault | Clients are told | The log | Postfix's log | Recovery | Over the limit | Lost | Untold | Twice | Test |",
    "|---|---|---|---|---|---:|---:|---:|---:|---|",
)


@dataclass(frozen=True, slots=True)
class Row:
    """The observations of one fault."""

    fault: str
    answers: Mapping[int, int]
    """The number of answers by reply code; code 0 is a broken connection."""
    log: Mapping[str, int]
    """The number of lines in the log of milter and steward by event, without events that do not concern a fault."""
    postfix: Mapping[str, int]
    """The number of Postfix's warnings by text."""
    recovery: str
    seconds: float
    over_the_limit: int
    lost: int
    untold: int
    twice: int

    def as_json(self) -> dict[str, Any]:
        """The row as plain values, for a test's report."""
        return {**asdict(self), "answers": {str(code): count for code, count in self.answers.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The row of `as_json`'s values."""
        return cls(**{**values, "answers": {int(code): count for code, count in values["answers"].items()}})

    def line(self, test: str) -> str:
        """The row in Markdown."""
        cells = (
            self.fault,
            _counted({str(code) if code else "no answer": count for code, count in self.answers.items()}),
            _counted({f"`{event}`": count for event, count in self.log.items()}),
            _counted({f"`{warning}`": count for warning, count in self.postfix.items()}),
            f"{self.recovery} ({self.seconds:.1f} s)" if self.seconds else self.recovery,
            str(self.over_the_limit),
            str(self.lost),
            str(self.untold),
            str(self.twice),
            f"`{test}`",
        )
        return f"| {' | '.join(cells)} |"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{what} x {count}" for what, count in counts.items()) or "-"


def page(text: str, rows: Mapping[str, Row]) -> str:
    """The page's text with these rows, by their tests, in place of those between the marks. Raises ValueError."""
    return _between(text, BEGIN, END, (*HEAD, *(row.line(test) for test, row in rows.items())))


def with_proofs(text: str, proofs: Mapping[str, Sequence[str]]) -> str:
    """The page's text with the table of promises, each with its tests. Raises ValueError."""
    lines = (f"| {promise} | {', '.join(f'`{test}`' for test in tests)} |" for promise, tests in proofs.items())
    return _between(text, PROOFS_BEGIN, PROOFS_END, ("| Promise | Tests |", "|---|---|", *lines))


def _between(text: str, begin: str, end: str, lines: Iterable[str]) -> str:
    before, found, rest = text.partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        raise ValueError(f"{PAGE} has no {begin} and {end}")
    table = "\n".join(lines)
    return f"{before}{begin}\n{table}\n{end}{after}"


def with_number(readme: str, number: int) -> str:
    """README's text with this number of faults."""
    return re.sub(r"injects \d+ faults", f"injects {number} faults", readme)


def named_in(text: str) -> list[str]:
    """The tests whose rows a page has."""
    table = text.partition(BEGIN)[2].partition(END)[0]
    return re.findall(r"\| `(test_[^`]+)` \|$", table, re.MULTILINE)
