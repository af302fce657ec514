"""The configuration file: TOML in, Policy out, and an error for the administrator where that cannot be.

The only room that reads the file, and the lists that it names by `file:PATH`. Past it there is no raw text.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from undisclosed.config import errors
from undisclosed.config.errors import ABSENT, ConfigError, Problem
from undisclosed.config.line_numbers import key_lines
from undisclosed.config.small_file import read_plain
from undisclosed.policy import Policy

LARGEST_FILE = 16 * 1024 * 1024
"""Bytes. A file name that leads to something endless must not fill the memory."""

FILE = "file:"
"""What an entry of `senders` or `except_senders` begins with that names a list."""


def load(path: Path) -> Policy:
    """Read the configuration. Raises ConfigError, with every problem that could be found at once."""
    text = _text(path, "")
    raw = _parsed(path, text)
    return _Reading(path, text, raw).policy()


class _Source(NamedTuple):
    """Where a value stands that came out of a list."""

    file: Path
    line: int
    text: str


class _Reading:
    """One reading of a configuration: the file's lines, and where the entries of its lists came from."""

    def __init__(self, path: Path, text: str, raw: dict[str, Any]) -> None:
        self._path = path
        self._lines = text.split("\n")
        self._key_lines = key_lines(text)
        self._sources: dict[tuple[str | int, ...], _Source] = {}
        self._unread: list[tuple[str | int, ...]] = []
        self._problems: list[Problem] = []
        self._raw = self._with_lists(raw)

    def policy(self) -> Policy:
        """The Policy; raises ConfigError."""
        try:
            policy = Policy.model_validate(self._raw)
        except ValidationError as error:
            for path, value, problem, fix in errors.of_validation(error):
                # Without a list that could not be read, rules seem to cover what they do not: that list comes first.
                if not any(path[: len(unread)] == unread for unread in self._unread) and not (
                    self._unread and len(path) == 2 and path[0] == "rules"
                ):
                    self._add(path, value, problem, fix)
        else:
            if not self._problems:
                return policy
        raise ConfigError(*sorted(self._problems, key=lambda one: (one.file != self._path, one.line or 0)))

    def _add(self, path: tuple[str | int, ...], value: object, problem: str, fix: str) -> None:
        shown = errors.shown(path)
        if source := self._sources.get(path):
            self._problems.append(Problem(source.file, shown, value, problem, fix, source.line, source.text))
            return
        line = next(
            (self._key_lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._key_lines), None
        )
        quote = self._lines[line - 1] if line else ""
        self._problems.append(Problem(self._path, shown, value, problem, fix, line, quote))

    def _with_lists(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The settings, with what the files hold in place of each `file:PATH`."""
        rules = raw.get("rules")
        if not isinstance(rules, list):
            return raw
        filled = [
            self._with_list(number, rule) if isinstance(rule, Mapping) else rule for number, rule in enumerate(rules)
        ]
        return {**raw, "rules": filled}

    def _with_list(self, number: int, rule: Mapping[str, Any]) -> Mapping[str, Any]:
        filled = dict(rule)
        for setting in ("senders", "except_senders"):
            if isinstance(entries := rule.get(setting), list):
                filled[setting] = self._entries(("rules", number, setting), entries)
        return filled

    def _entries(self, path: tuple[str | int, ...], entries: list[Any]) -> list[Any]:
        found: list[Any] = []
        for place, entry in enumerate(entries):
            if isinstance(entry, str) and entry.startswith(FILE):
                found += self._listed(path, place, entry, len(found))
            else:
                if line := self._key_lines.get((*path, place)):
                    self._sources[*path, len(found)] = _Source(self._path, line, self._lines[line - 1])
                found.append(entry)
        return found

    def _listed(self, path: tuple[str | int, ...], place: int, entry: str, first: int) -> list[str]:
        file = self._path.parent / entry.removeprefix(FILE)
        try:
            text = _text(file, entry)
        except ConfigError as error:
            self._unread.append(path)
            line = self._key_lines.get((*path, place))
            problem = f"the list {file} {error.problems[0].problem}"
            where = f" (line {error.line} of it)" if error.line else ""
            quote = self._lines[line - 1] if line else ""
            self._problems.append(
                Problem(self._path, errors.shown(path), entry, problem + where, error.fix, line, quote)
            )
            return []
        found: list[str] = []
        for number, content in enumerate(text.split("\n"), 1):
            if pattern := re.sub(r"(?:^|\s)#.*", "", content).strip():
                self._sources[*path, first + len(found)] = _Source(file, number, content)
                found.append(pattern)
        if not found and path[-1] == "senders":
            self._unread.append(path)
            fix = "put a sender into it, one a line, or take the rule out"
            # Without entries the rule would seem to name everybody: an exemption for nobody must not become one for all
            self._add((*path, place), entry, f"the list {file} names nobody", fix)
        return found


def _text(path: Path, entry: str) -> str:
    """The text of the configuration, or of a list that an `entry` of it names. Raises ConfigError."""

    def refused(problem: str, fix: str, line: int | None = None) -> ConfigError:
        return ConfigError(Problem(path, "", ABSENT, problem, fix, line))

    other = "or name another file" if entry else "or name another file by --config or UNDISCLOSED_CONFIG"
    try:
        content, _ = read_plain(path, LARGEST_FILE + 1)
    except FileNotFoundError:
        example = "" if entry else " (config.example.toml is a beginning)"
        raise refused("does not exist", f"create it{example}, {other}") from None
    except PermissionError:
        raise refused("cannot be read: permission denied", f"let uid {os.geteuid()} read it, {other}") from None
    except IsADirectoryError:
        raise refused("is a directory", f"name a file in it, {other}") from None
    except OSError as error:
        raise refused(f"cannot be read: {error.strerror}", f"put a plain file there, {other}") from error
    except ValueError:
        raise refused("is no file name", "leave out what no file name can hold") from None
    if len(content) > LARGEST_FILE:
        raise refused("is larger than 16 MiB", f"put a smaller file there, {other}")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise refused("is not UTF-8 text", "save it as UTF-8", line) from error


_SYNTAX_FIXES = (
    (r"[\u2018\u2019\u201C-\u201E]", "use straight quotes: TOML knows no typographic ones"),
    (r"^\s*[\w.-]+\s*:", "write key = value, with an equals sign"),
    (r"=\s*0[0-9]", "put it in quotes: a number does not begin with 0"),
    (r"=\s*(?:True|False|yes|no|on|off)\b", "write true or false"),
    (r"=\s*(?:#|$)", "write a value behind the equals sign, or remove the line"),
    (r"=\s*[^\"'\[{\s]*[A-Za-z@*/<]", "put text in quotes"),
)
"""What a line looks like that TOML does not accept, and what its writer most likely wants."""


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
    except RecursionError:
        raise ConfigError(Problem(path, "", ABSENT, "lists in lists without end", "write each list plainly")) from None
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    lines = text.split("\n")
    number = int(match[1]) if match and match[1] else len(text.rstrip("\n").split("\n"))
    line = lines[number - 1]
    problem = "not TOML: " + message.removesuffix(match[0] if match else "").lower()
    if re.search("overwrite|twice|already|mutate", message):
        problem = "not TOML: what this line sets is set above already"
        fix = "remove one of the two; a further rule begins with [[rules]]"
    elif "Unclosed" in message:
        fix = "a list or table that begins here or above lacks its ] or }, or a comma between its entries"
    else:
        fix = next((fix for expression, fix in _SYNTAX_FIXES if re.search(expression, line)), "mend the line")
    raise ConfigError(Problem(path, "", ABSENT, problem, fix, number, line))
