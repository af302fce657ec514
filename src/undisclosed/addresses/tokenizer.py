"""The text of a header field as clients show it, cut into words, blanks, at signs, quoted strings and marks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from undisclosed.addresses.encoded_words import decoded

AT_SIGNS: Final = "@\uff20\ufe6b"
DOTS: Final = ".\u2024\u3002\ufe52\uff0e\uff61"
JOINERS: Final = "\u200c\u200d"
APOSTROPHES: Final = "'\u2018\u2019\u201b"
# Punctuation of other scripts and of word processors: it may be between or around addresses, never in one.
BETWEEN: Final = (
    "\xa1\xa6\xa7\xab\xb6\xbb\xbf\u060c\u061b\u2013-\u2015\u201a\u201c-\u201f\u2022\u2025\u2026\u2039\u203a\u2190-\u21ff"
    "\u27e8\u27e9\u3001\u3008-\u3011\u3014-\u301f\ufe19\ufe30\ufe50\ufe54\ufe55\ufe59-\ufe5e\uff02\uff07-\uff09\uff0c\uff0f"
    "\uff1a-\uff1c\uff1e\uff3b-\uff3d\uff5b-\uff5d\uff5f\uff60\uff62-\uff64"
)
# Invisible characters: controls, soft hyphens, zero-width and bidirectional marks, variation selectors (Unicode's
# Default_Ignorable_Code_Point); not the joiners U+200C and U+200D, which make another domain in DNS. Behind a
# backslash a control is part of the address (obs-qp).
_UNSEEN: Final = re.compile(
    r"(?<!\\)[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]+|"
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_MAILTO: Final = re.compile(r"mailto:[^\s<>\"]++", re.IGNORECASE)
_MAILTO_KEY: Final = re.compile(r"[?&][^=&?\s]*+=")

_COMMON: Final = rf"(?P<word>[^\s{AT_SIGNS}\"()<>,:;\[\]\\{BETWEEN}]++) | (?P<blank>\s++) | (?P<at>[{AT_SIGNS}]++)"
_TOKEN: Final = re.compile(
    rf"""{_COMMON} | (?P<quoted>"(?:[^"\\]++|\\.)*") | (?P<backslash>\\) | (?P<mark>.)""", re.DOTALL | re.VERBOSE
)
# Without quoted strings: for comments, and for the text behind the last quote that has a partner.
_TOKEN_WITHOUT_QUOTES: Final = re.compile(
    rf"""{_COMMON} | (?P<backslash>\\[()\\]|\\) | (?P<mark>.)""", re.DOTALL | re.VERBOSE
)
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)


def readable(text: str) -> str:
    """Return `text` as a client shows it: no encoded words, no percent-encoding in links, no invisible characters."""
    text = decoded(text)
    if "mailto:" in text.lower():
        text = _MAILTO.sub(lambda link: _MAILTO_KEY.sub(" ", unquote(link[0])), text)  # RFC 6068: ?to=a@x&cc=b@y
    return _UNSEEN.sub("", text)


def unescaped(text: str) -> str:
    r"""Return the content of a quoted string without the backslashes of its quoted pairs (`\"`)."""
    return _PAIR.sub(r"\1", text)


def unfolded(text: str) -> str:
    """Return `text` without line ends; the blank behind each one belongs to the text (RFC 5322, 2.2.3)."""
    return text.replace("\r", "").replace("\n", "")


class Tokens:
    """A text cut into tokens, which are numbered.

    A kind is "word", "blank", "at", "quoted" or "backslash", or, for any other character, that character. Matching
    parentheses are partners: the text between them is a comment.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.kinds: list[str] = []
        self.begins: list[int] = []  # one more than there are tokens: the end of the text
        self.partner: dict[int, int] = {}
        self._cut(0, comments=True)
        self.begins.append(len(text))

    def _cut(self, position: int, *, comments: bool) -> None:
        text, kinds, begins = self.text, self.kinds, self.begins
        size, quotes = len(text), True
        opened: list[int] = []
        while position < size:
            pattern = _TOKEN if quotes and not (opened and comments) else _TOKEN_WITHOUT_QUOTES
            token = pattern.match(text, position)
            assert token is not None  # the last alternative matches any character
            kind = token.lastgroup or ""
            if kind == "mark":
                kind = text[position]
                if kind == "(":
                    opened.append(len(kinds))
                elif kind == ")" and opened:
                    self.partner[opened[-1]] = len(kinds)
                    self.partner[len(kinds)] = opened.pop()
                elif kind == '"' and pattern is _TOKEN:
                    quotes = False  # no later quote closes either: to search again each time is quadratic
            kinds.append(kind)
            begins.append(position)
            position = token.end()
        if opened and comments:
            # A comment that never ends must not hide the quotes behind it: cut again from there.
            first = opened[0]
            del kinds[first + 1 :], begins[first + 1 :]
            self.partner = {token: partner for token, partner in self.partner.items() if token < first}
            self._cut(begins[first] + 1, comments=False)

    def kind(self, index: int) -> str:
        """The kind of a token, "" before the first and behind the last."""
        return self.kinds[index] if 0 <= index < len(self.kinds) else ""

    def token(self, index: int) -> str:
        """The text of a token."""
        return self.text[self.begins[index] : self.begins[index + 1]]

    def unquoted(self, index: int) -> str:
        """The text of a token without quotes, quoted pairs and folding."""
        if self.kinds[index] != "quoted":
            return self.token(index)
        return unescaped(unfolded(self.token(index)[1:-1]))

    def hold_at_sign(self, indices: Iterable[int]) -> bool:
        """Whether one of these tokens is an at sign."""
        return any(self.kinds[index] == "at" for index in indices)

    def skip(self, index: int, step: int) -> tuple[int, bool]:
        """Skip blanks, comments and backslashes, to the right or (-1) to the left.

        Return the first other token, and whether there were blanks.
        """
        blanks = False
        while True:
            kind = self.kind(index)
            if kind == "blank":
                blanks = True
            elif kind == (")" if step < 0 else "(") and index in self.partner:
                index = self.partner[index]
            elif kind != "backslash":
                return index, blanks
            index += step
