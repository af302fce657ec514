"""heard.py: half-heard references find the nearest, and only those that are near."""

from __future__ import annotations

import pytest

from undisclosed.incidents.heard import nearest

HELD = ["H2S9-MVJT", "K7QF-3M2D", "J4WM-6WQG", "8W2T-SM3V", "8W2T-SM4V"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("H259", ["H2S9-MVJT"]),  # a digit for the letter of the same shape (users' walk, 31)
        ("HZS9", ["H2S9-MVJT"]),
        ("h2s9-mbjd", ["H2S9-MVJT"]),  # two letters by their sound
        ("K7QS-3N2B", ["K7QF-3M2D"]),
        ("K7Q3M2D", ["K7QF-3M2D"]),  # one left out
        ("KK7QF", ["K7QF-3M2D"]),  # one too many
        ("K7QF-0M2D", ["K7QF-3M2D"]),  # one that no reference has
        ("BW2T-SM3V", ["8W2T-SM3V", "8W2T-SM4V"]),  # both are near, the nearer one first
        ("BW2T", ["8W2T-SM3V", "8W2T-SM4V"]),
        ("W2X5", []),
        ("XXXX-XXXX", []),
        ("K", []),
        ("", []),
        ("\u00dfzz", []),
    ],
)
def test_a_half_heard_reference_finds_the_nearest(typed: str, expected: list[str]) -> None:
    """By letters that are taken for each other, and one error in four letters."""
    assert nearest(typed, HELD) == expected


def test_no_more_than_a_few_are_offered() -> None:
    """A short beginning that many share is not answered with all of them."""
    assert len(nearest("8W2S", [f"8W2T-SM{letter}V" for letter in "3456789"])) == 3
