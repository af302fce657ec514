"""References that were half heard or misread: the nearest of those that exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

ALIKE: Final = ("BCDGPTVZ", "FS", "MN", "JK", "2Z", "5S", "8B")
"""Letters and digits that are taken for each other: by their sound over a telephone, or by their shape."""

MIN_LETTERS: Final = 3
"""With fewer letters nearly every reference is near."""

ALIKE_COST: Final = 0.5
OTHER_COST: Final = 1.0

_ALIKE: Final = frozenset((one, other) for group in ALIKE for one in group for other in group)


def nearest(typed: str, references: Iterable[str], most: int = 3) -> list[str]:
    """The references that may be meant by a text, or by the beginning of one; the likeliest first.

    One error in four letters is accepted, and any two letters that are taken for each other count as half an error.
    """
    letters = [char for char in typed.upper() if char.isalnum()]
    if len(letters) < MIN_LETTERS:
        return []
    limit = len(letters) // 4 or ALIKE_COST
    distances = sorted((_distance(letters, reference.replace("-", "")), reference) for reference in set(references))
    return [reference for distance, reference in distances if distance <= limit][:most]


def _distance(typed: Sequence[str], reference: str) -> float:
    """The cost of turning the typed letters into a beginning of the reference (Levenshtein's distance, weighted)."""
    row = [place * OTHER_COST for place in range(len(reference) + 1)]
    for letter in typed:
        above, row = row, [row[0] + OTHER_COST]
        for place, expected in enumerate(reference):
            changed = above[place] + _change(letter, expected)
            row.append(min(changed, above[place + 1] + OTHER_COST, row[place] + OTHER_COST))
    return min(row)


def _change(letter: str, expected: str) -> float:
    if letter == expected:
        return 0.0
    return ALIKE_COST if (letter, expected) in _ALIKE else OTHER_COST
