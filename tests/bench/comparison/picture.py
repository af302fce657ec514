"""The measurements as a picture: small bar charts in SVG, one a kind of message and figure. Pure.

Legible on a light and on a dark page: no background, and text and bars in tones that both bear; where the reader's
system says which it is, the text follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from bench.comparison.figures import Figures
from bench.comparison.page import number

FIGURES = (
    ("rate", "messages a second", "more is better"),
    ("single", "ms a message in one session", "less is better"),
    ("processor", "CPU ms a message", "less is better"),
)
NAMES, CHART, GAP = 130, 190, 24
"""Widths: of the names on the left, of a chart, between charts."""
BAR, STEP, HEAD, TOP = 12, 19, 44, 44
"""Heights: of a bar, from one bar to the next, of a chart's head, of the picture's."""
VALUE = 52
"""Width kept free behind the longest bar, for its figure."""

STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #59636e; }
.head { font-weight: 600; } .title { font-size: 14px; font-weight: 600; } .name, .value { font-size: 11px; }
.ours { fill: #2f81f7; } .other { fill: #8b949e; } .name.own { font-weight: 600; }
@media (prefers-color-scheme: dark) { text { fill: #9da7b3; } }
@media (prefers-color-scheme: light) { text { fill: #424a53; } }"""


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
    for place, (figure, title, which) in enumerate(FIGURES):
        top = TOP + place * row
        for column, kind in enumerate(kinds):
            bars = [
                Bar(name, getattr(figures.median(kind, name), figure))
                for name in figures.contestants(kind)
                if figure != "processor" or name != "no milter"
            ]
            parts += _chart(bars, _left(column), top, f"{title}" if column else f"{title} ({which})", not column)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="What the milters cost, in bars">\n<style>\n{STYLE}\n</style>\n{body}\n</svg>\n'
    )


def _left(column: int) -> int:
    return NAMES + column * (CHART + GAP)


def _chart(bars: Sequence[Bar], left: int, top: int, title: str, named: bool) -> Iterator[str]:
    """One chart; the names stand at the first of a row only."""
    longest = max((bar.value for bar in bars), default=0.0) or 1.0
    yield f'<text class="head" x="{left}" y="{top + 22}">{escape(title)}</text>'
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
