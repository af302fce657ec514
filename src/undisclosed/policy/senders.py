"""Sets of envelope senders: globs, in which `*` stands for anything and `?` for one character.

No other character is special. In a shell's globs `[` is: then `root@[192.0.2.1]` would silently match no sender.
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
        # Addresses without a wildcard are looked up, not tried one by one: a list may have thousands.
        self._addresses = self.patterns.difference(self._globs)
        # fnmatch translates `*` so that matching never backtracks over it: a sender of 2,000 characters costs little.
        expressions = (translate(pattern.replace("[", "[[]")) for pattern in self._globs)
        self._expression = re.compile("|".join(expressions)) if self._globs else None

    def __contains__(self, sender: str) -> bool:
        """Whether the set has an envelope sender (without angle brackets; empty for the null sender)."""
        if "*" in self.patterns:
            return True
        name = _spelled(sender or NULL_SENDER)
        return name in self._addresses or (self._expression is not None and self._expression.match(name) is not None)

    def include(self, other: Senders) -> bool:
        """Whether this set certainly has every sender of the other. False may mean that this cannot be decided."""
        return all(pattern in self.patterns or self._includes(pattern) for pattern in other.patterns)

    def _includes(self, pattern: str) -> bool:
        # The pattern is matched as if it were a sender: a `*` of ours that matches its text matches all that it stands
        # for; a `?` of ours matches a character or another `?`, never a `*`.
        return any(re.fullmatch(_over_patterns(glob), pattern, re.DOTALL) for glob in self._globs)

    def difference(self, other: Senders) -> Senders:
        """The patterns of this set that no pattern of the other covers whole."""
        return Senders(pattern for pattern in self.patterns if not other.include(Senders([pattern])))


def is_glob(pattern: str) -> bool:
    """Whether a pattern may stand for more than one sender."""
    return "*" in pattern or "?" in pattern


def _spelled(name: str) -> str:
    local, at, domain = name.rpartition("@")
    return local.casefold() + at + domains.to_ascii(domain) if at else name.casefold()


def _over_patterns(glob: str) -> str:
    parts = {"*": ".*", "?": "[^*]"}
    # A run of stars means the same as one, and would take exponential time here.
    return "".join(parts.get(char, re.escape(char)) for char in re.sub(r"\*+", "*", glob))
