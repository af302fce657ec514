"""The results of the measurements: medians, ratios, and whether the figures that were aimed at are reached. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Sample(NamedTuple):
    """One contestant, one kind of message, one round."""

    rate: float
    """Messages a second over several sessions."""
    single: float
    """Milliseconds of the median message in a single session."""
    processor: float
    """Milliseconds of processor time a message, of all the contestant's processes."""
    memory: float
    """Megabytes of all the contestant's processes."""


class Record(NamedTuple):
    """A sample with its kind of message, contestant and round."""

    kind: str
    contestant: str
    round: int
    sample: Sample


class Ratio(NamedTuple):
    """A figure in terms of another contestant's, and what it has to be."""

    what: str
    kind: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def reached(self) -> bool:
        """Whether the figure meets its target."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


PROCESSOR_LIMITS = {"small": 0.85, "many": 0.75, "large": 0.01}
"""Ours at most, as a part of rspamd's, by the kind of message."""
RATE_LIMIT = 0.95
"""Ours at least, as a part of the null program's on the same kind of socket."""
ADDED_LIMIT = 1.5
"""Milliseconds that a message in a single session may take longer than without a milter."""
SOCKETS = ("unix", "inet")


@dataclass(frozen=True)
class Figures:
    """All samples, in the order in which they were taken."""

    records: Sequence[Record]

    @property
    def kinds(self) -> list[str]:
        """The kinds of messages that were measured, in order of first sight."""
        return list(dict.fromkeys(record.kind for record in self.records))

    @property
    def rounds(self) -> int:
        """The number of rounds that every contestant has had with every kind, at least."""
        counts = {(record.kind, record.contestant): 0 for record in self.records}
        for record in self.records:
            counts[record.kind, record.contestant] += 1
        return min(counts.values(), default=0)

    def contestants(self, kind: str) -> list[str]:
        """The contestants measured with a kind of message, in order of their first record."""
        return list(dict.fromkeys(record.contestant for record in self.records if record.kind == kind))

    def median(self, kind: str, contestant: str) -> Sample:
        """The median of each figure on its own."""
        samples = list(self._rounds(kind, contestant).values())
        return Sample(*(statistics.median(values) for values in zip(*samples, strict=True)))

    def ratio(self, kind: str, one: str, other: str, figure: str) -> float:
        """The median of one contestant's figure as a part of another's, each round by itself.

        The machine is not the same from one minute to the next; within a round it is nearly so.
        """
        return statistics.median(mine / theirs for mine, theirs in self._pairs(kind, one, other, figure))

    def difference(self, kind: str, one: str, other: str, figure: str) -> float:
        """The median of how much more one contestant's figure is than another's, each round by itself."""
        return statistics.median(mine - theirs for mine, theirs in self._pairs(kind, one, other, figure))

    def _rounds(self, kind: str, contestant: str) -> Mapping[int, Sample]:
        return {
            record.round: record.sample
            for record in self.records
            if (record.kind, record.contestant) == (kind, contestant)
        }

    def _pairs(self, kind: str, one: str, other: str, figure: str) -> Iterator[tuple[float, float]]:
        mine, theirs = self._rounds(kind, one), self._rounds(kind, other)
        for number in mine.keys() & theirs.keys():
            yield getattr(mine[number], figure), getattr(theirs[number], figure)


def judged(figures: Figures) -> list[Ratio]:
    """Every target, for the measured messages."""
    return [*_processor(figures), *_rate(figures), *_single(figures)]


def _processor(figures: Figures) -> Iterable[Ratio]:
    for kind in figures.kinds:
        if {"rspamd", "undisclosed, unix"} <= set(figures.contestants(kind)) and kind in PROCESSOR_LIMITS:
            value = figures.ratio(kind, "undisclosed, unix", "rspamd", "processor")
            yield Ratio("processor time, of rspamd's", kind, value, PROCESSOR_LIMITS[kind])


def _rate(figures: Figures) -> Iterable[Ratio]:
    for kind in figures.kinds:
        for socket in SOCKETS:
            ours, null = f"undisclosed, {socket}", f"null, {socket}"
            if {ours, null} <= set(figures.contestants(kind)):
                value = figures.ratio(kind, ours, null, "rate")
                yield Ratio(f"rate, of the null program's, {socket}", kind, value, RATE_LIMIT, at_least=True)


def _single(figures: Figures) -> Iterable[Ratio]:
    for kind in figures.kinds:
        for socket in SOCKETS:
            ours = f"undisclosed, {socket}"
            if {ours, "no milter"} <= set(figures.contestants(kind)):
                value = figures.difference(kind, ours, "no milter", "single")
                yield Ratio(f"added to a message in a single session, {socket}", kind, value, ADDED_LIMIT, unit=" ms")
