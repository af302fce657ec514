"""The line number of each key in a TOML file: tomllib does not keep them.

Only for text that tomllib has accepted: the walk below does not check the syntax again (TOML 1.0).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

Path = tuple[str | int, ...]
"""The path to a value: `("rules", 1, "senders", 0)` is the first of `senders` in the second `[[rules]]`."""

_TOKEN = re.compile(
    r"""
      (?P<string> "{3}(?:\\.|(?!"{3}).)*"{3,5} | '{3}(?:(?!'{3}).)*'{3,5} | "(?:\\.|[^"\\])*" | '[^']*' )
    | (?P<blank>  [ \t\r]+ | \#[^\n]* )
    | (?P<mark>   [\n\[\]{},=.] )
    | (?P<bare>   [^\s\[\]{},=."'\#]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    text: str
    line: int


def key_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of each key, section and list entry; of a section written in several places, the first."""
    return _Walk(text).lines


class _Walk:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._repeated: dict[Path, int] = {}  # the arrays of tables, with the index of the last one so far
        self._tokens = _tokens(text)
        self._next = next(self._tokens, None)
        section: Path = ()
        while self._next is not None:
            if self._next.text == "\n":
                self._take()
            elif self._next.text == "[":
                section = self._header()
            else:
                self._assignment(section)

    def _take(self) -> _Token:
        token = self._next
        assert token is not None
        self._next = next(self._tokens, None)
        return token

    def _sees(self, text: str) -> bool:
        return self._next is not None and self._next.text == text

    def _record(self, path: Path, line: int) -> None:
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], line)

    def _header(self) -> Path:
        line = self._take().line
        repeated = self._sees("[")
        if repeated:
            self._take()
        path: Path = ()
        keys = self._keys()
        for key in keys[:-1]:
            path = self._last((*path, key))
        path = (*path, keys[-1])
        if repeated:
            self._repeated[path] = self._repeated.get(path, -1) + 1
            self._take()
        self._take()
        path = self._last(path)
        self._record(path, line)
        return path

    def _last(self, path: Path) -> Path:
        return (*path, self._repeated[path]) if path in self._repeated else path

    def _keys(self) -> Path:
        keys: list[str] = []
        while True:
            token = self._take().text
            keys.append(_plain(token))
            if not self._sees("."):
                return tuple(keys)
            self._take()

    def _assignment(self, section: Path) -> None:
        assert self._next is not None
        line = self._next.line
        path = (*section, *self._keys())
        self._record(path, line)
        self._take()  # the equals sign
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._sees("["):
            self._list(path)
        elif self._sees("{"):
            self._inline_table(path)
        else:
            while self._next is not None and self._next.text not in ("\n", ",", "]", "}"):
                self._take()

    def _list(self, path: Path) -> None:
        self._take()
        place = 0
        while not self._sees("]"):
            if self._sees("\n") or self._sees(","):
                self._take()
                continue
            assert self._next is not None
            self._record((*path, place), self._next.line)
            self._value((*path, place))
            place += 1
        self._take()

    def _inline_table(self, path: Path) -> None:
        self._take()
        while not self._sees("}"):
            if self._sees("\n") or self._sees(","):
                self._take()
            else:
                self._assignment(path)
        self._take()


def _plain(key: str) -> str:
    """A key without its quotes. All escapes of TOML's basic strings mean the same in Python."""
    if key.startswith('"'):
        return str(ast.literal_eval(key))
    return key[1:-1] if key.startswith("'") else key


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield _Token(match[0], line)
        line += match[0].count("\n")
