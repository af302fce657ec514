"""The measurements as text: the tables of docs/performance.md, between two markers, so that its prose stays. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from bench.comparison.figures import Figures, Ratio, Sample, judged

BEGIN = "<!-- measured: written by tests/bench/compare -->"
END = "<!-- end of what was measured -->"


class MarkersError(ValueError):
    """The page has no place for the tables."""


def number(value: float) -> str:
    """A figure with three digits that count, and no more than two behind the point; `0` for none."""
    if abs(value) >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.95 else f"{value:.2f}" if value else "0"


def ratio(value: float) -> str:
    """A ratio with two digits behind the point, or more where it is small."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def measured(figures: Figures, titles: Mapping[str, str], machine: Mapping[str, str]) -> str:
    """All tables, in Markdown."""
    facts = "; ".join(f"{name} {value}".strip() for name, value in machine.items())
    parts = [textwrap.fill(f"Medians of {figures.rounds} rounds, on: {facts}.", 120)]
    parts += [f"### {titles[kind]}\n\n{_table(figures, kind)}" for kind in figures.kinds]
    parts.append(f"### Targets\n\n{_verdicts(judged(figures), titles)}")
    return "\n\n".join(parts)


def _table(figures: Figures, kind: str) -> str:
    rows = ["| | messages/s | ms a message, one session | added | CPU ms a message | of rspamd's | memory, MB |",
            "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    everybody = figures.contestants(kind)
    for name in everybody:
        median = figures.median(kind, name)
        added = figures.difference(kind, name, "no milter", "single") if "no milter" in everybody else 0.0
        share = figures.ratio(kind, name, "rspamd", "processor") if "rspamd" in everybody else 0.0
        rows.append(_row(name, median, added, share))
    return "\n".join(rows)


def _row(name: str, median: Sample, added: float, share: float) -> str:
    cells = [name, number(median.rate), number(median.single)]
    if name == "no milter":
        return "| " + " | ".join([*cells, "", "", "", ""]) + " |"
    return "| " + " | ".join([*cells, f"{added:+.2f}", number(median.processor), ratio(share) if share else "",
                              number(median.memory)]) + " |"  # fmt: skip


def _verdicts(ratios: list[Ratio], titles: Mapping[str, str]) -> str:
    rows = ["| | message | target | measured | |", "|---|---|---:|---:|---|"]
    for one in ratios:
        wanted = f"{'≥' if one.at_least else '≤'} {one.limit}{one.unit}"
        got = f"{one.value:.2f}{one.unit}" if one.unit else ratio(one.value)
        rows.append(
            f"| {one.what} | {titles[one.kind]} | {wanted} | {got} | {'met' if one.reached else '**missed**'} |"
        )
    return "\n".join(rows)


def put_in(page: str, tables: str) -> str:
    """The page with these tables between its markers. Raises MarkersError if they are not there once, in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise MarkersError(f"the page needs one line {BEGIN!r} and, below it, one line {END!r}")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"
