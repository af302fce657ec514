"""Which envelope senders a rule names: globs, in which `*` stands for anything and `?` for one character.

No other character is special. In a shell's globs `[` is, and then `root@[192.0.2.1]` would silently name nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from undisclosed.addresses import domains

NULL_SENDER = "<>"


class Senders:
    """A set of envelope senders. Matching disregards case, and every spelling of a domain is the same."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = frozenset(map(_spelled, patterns))
        self._globs = sorted(pattern for pattern in self.patterns if is_glob(pattern))
        # Addresses written out are looked up, not tried one by one: a list of them may have thousands.
        self._addresses = self.patterns.difference(self._globs)
        # fnmatch writes `*` so that matching never backtracks over it: a sender of 2,000 characters costs little.
        expressions = (translate(pattern.replace("[", "[[]")) for pattern in self._globs)
        self._expression = re.compile("|".join(expressions)) if self._globs else None

    def __contains__(self, sender: str) -> bool:
        """Whether an envelope sender, without angle brackets and empty for the null sender, is among them."""
        if "*" in self.patterns:
            return True
        name = _spelled(sender or NULL_SENDER)
        return name in self._addresses or (self._expression is not None and self._expression.match(name) is not None)

    def include(self, other: Senders) -> bool:
        """Whether everything in the other is surely in this one, too. False may mean that it is hard to tell."""
        return all(pattern in self.patterns or self._includes(pattern) for pattern in other.patterns)

    def _includes(self, pattern: str) -> bool:
        # A pattern read as if it were a sender: where `*` here takes in all of it, it takes in all that it stands for;
        # `?` here takes in a character or another `?`, and never a `*`.
        return any(re.fullmatch(_over_patterns(glob), pattern, re.DOTALL) for glob in self._globs)

    def difference(self, other: Senders) -> Senders:
        """Those of these that no pattern of the other takes in whole."""
        return Senders(pattern for pattern in self.patterns if not other.include(Senders([pattern])))


def is_glob(pattern: str) -> bool:
    """Whether a pattern may stand for more than one sender."""
    return "*" in pattern or "?" in pattern


def _spelled(name: str) -> str:
    local, at, domain = name.rpartition("@")
    return local.casefold() + at + domains.to_ascii(domain) if at else name.casefold()


def _over_patterns(glob: str) -> str:
    parts = {"*": ".*", "?": "[^*]"}
    # Runs of stars say no more than one, and would take exponential time here.
    return "".join(parts.get(char, re.escape(char)) for char in re.sub(r"\*+", "*", glob))
