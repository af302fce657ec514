"""tokenizer.py: a field as clients show it, cut into tokens."""

from __future__ import annotations

import pytest

from undisclosed.addresses.tokenizer import Tokens, readable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ann <a@x>", ["word", "blank", "<", "word", "at", "word", ">"]),
        ('"a \\" (" b', ["quoted", "blank", "word"]),
        ("a@@\uff20x", ["word", "at", "word"]),
        ('(a"b(c)) "d"', ["(", "word", '"', "word", "(", "word", ")", ")", "blank", "quoted"]),
        ("(a\\) b)", ["(", "word", "backslash", "blank", "word", ")"]),
        ('"a', ['"', "word"]),
        ('(a "b, c"', ["(", "word", "blank", "quoted"]),
        ("a\u3001b\uff0cc", ["word", "\u3001", "word", "\uff0c", "word"]),
        ("", []),
    ],
)  # fmt: skip
def test_text_is_cut_into_tokens(text: str, expected: list[str]) -> None:
    """Quotes count outside comments, parentheses outside quotes, and an unclosed one is a plain mark."""
    tokens = Tokens(text)
    assert expected == tokens.kinds
    assert text == "".join(tokens.token(index) for index in range(len(tokens.kinds)))


def test_parentheses_find_their_partners() -> None:
    """Comments nest; one that never ends does not swallow those behind it."""
    tokens = Tokens("(a ((b) (c)")
    pairs = {(tokens.begins[one], tokens.begins[other]) for one, other in tokens.partner.items() if one < other}
    assert {(4, 6), (8, 10)} == pairs


@pytest.mark.parametrize(("begin", "step", "expected"), [(1, 1, (15, True)), (14, -1, (0, True)), (3, -1, (3, False))])
def test_skipping_goes_over_blanks_and_comments(begin: int, step: int, expected: tuple[int, bool]) -> None:
    """In both directions, and never out of the enclosing comment."""
    tokens = Tokens("a ((b) (c d)) \\e")
    assert expected == tokens.skip(begin, step)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ann <a@x>", "Ann <a@x>"),
        ("a\u200bn\u00adn\u202e\x00\x1b\ufe0f", "ann"),
        ("a\u200db", "a\u200db"),
        ("a\\\x07b", "a\\\x07b"),
        ("a\tb\n c", "a\tb\n c"),
        ("=?utf-8?q?a=E2=80=8Bb?=", "ab"),
        ("<mailto:a%40x?cc=b@y&Subject=Hi%2C>", "<mailto:a@x b@y Hi,>"),
        ("50%40 <a@x>", "50%40 <a@x>"),
    ],
)
def test_text_is_made_readable(text: str, expected: str) -> None:
    """Encoded words and links are decoded, invisible characters are removed, all else stays."""
    assert expected == readable(text)
