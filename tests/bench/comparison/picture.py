"""The measurements as a picture: small bar charts in SVG, one a kind of message and figure. Pure.

Legible on a light and on a dark page: no background, and text and bars in tones that both bear. (A picture can ask for
the system's colour scheme, but not for that of the page that it is in.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from bench.comparison.figures import Figures
from bench.comparison.page import number

FIGURES = (
    ("rate", "Messages a second: more is better"),
    ("single", "Milliseconds a message in one session: less is better"),
    ("processor", "Milliseconds of processor time a message, of the milter's own processes: less is better"),
)
NAMES, CHART, GAP = 130, 190, 24
"""Widths: of the names on the left, of a chart, between charts."""
BAR, STEP, HEAD, TOP = 12, 19, 44, 44
"""Heights: of a bar, from one bar to the next, of a chart's head, of the picture's."""
VALUE = 52
"""Width kept free behind the longest bar, for its figure."""

STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #76808a; }
.head { font-weight: 600; } .title { font-size: 14px; font-weight: 600; } .name, .value { font-size: 11px; }
.ours { fill: #2f81f7; } .other { fill: #8b949e; } .own { font-weight: 600; }"""


class Bar(NamedTuple):
    """One line of a chart."""

    name: str
    value: float

    @property
    def own(self) -> bool:
        """Whether it is this project's."""
        return self.name.startswith("undisclosed")


def picture(figures: Figures, titles: Mapping[str, str]) -> str:
    """The whole picture."""
    kinds = figures.kinds
    lines = max(len(figures.contestants(kind)) for kind in kinds)
    row = HEAD + lines * STEP
    width, height = NAMES + len(kinds) * (CHART + GAP), TOP + len(FIGURES) * row
    parts = [
        f'<text class="title" x="{_left(at)}" y="20">{escape(titles[kind])}</text>' for at, kind in enumerate(kinds)
    ]
    for place, (figure, title) in enumerate(FIGURES):
        top = TOP + place * row
        parts.append(f'<text class="head" x="{NAMES}" y="{top + 22}">{escape(title)}</text>')
        for column, kind in enumerate(kinds):
            bars = [
                Bar(name, getattr(figures.median(kind, name), figure))
                for name in figures.contestants(kind)
                if figure != "processor" or name != "no milter"
            ]
            parts += _chart(bars, _left(column), top, named=not column)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="Cost of the milters, in bars">\n<style>\n{STYLE}\n</style>\n{body}\n</svg>\n'
    )


def _left(column: int) -> int:
    return NAMES + column * (CHART + GAP)


def _chart(bars: Sequence[Bar], left: int, top: int, *, named: bool) -> Iterator[str]:
    """One chart; the names stand at the first of a row only."""
    longest = max((bar.value for bar in bars), default=0.0) or 1.0
    for place, bar in enumerate(bars):
        y = top + 32 + place * STEP
        length = max(1.0, bar.value / longest * (CHART - VALUE))
        base = y + BAR - 2
        if named:
            own = " own" if bar.own else ""
            yield f'<text class="name{own}" x="{left - 8}" y="{base}" text-anchor="end">{escape(bar.name)}</text>'
        yield (
            f'<rect class="{"ours" if bar.own else "other"}" x="{left}" y="{y}" width="{length:.1f}" height="{BAR}"'
            f' rx="2"><title>{escape(bar.name)}: {number(bar.value)}</title></rect>'
        )
        yield f'<text class="value" x="{left + length + 5:.1f}" y="{base}">{number(bar.value)}</text>'
