"""Pauses between attempts at something that fails: each twice as long as the one before, up to a longest."""

from __future__ import annotations


class Backoff:
    """The pause before each further attempt, in seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = self._next = first
        self._longest = longest

    def next(self) -> float:
        """Return the pause before the next attempt, and double the one after it."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause

    def reset(self) -> None:
        """Begin again with the first pause: an attempt succeeded."""
        self._next = self._first
