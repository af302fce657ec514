"""Loads the configuration file, the lists that it names by `file:PATH`, and the own words of replies.

TOML in, Policy or ConfigError out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from undisclosed.config import errors
from undisclosed.config.errors import ABSENT, ConfigError, NotPermittedError, Problem
from undisclosed.config.line_numbers import key_lines
from undisclosed.config.reply_files import read_reply_files
from undisclosed.config.small_file import read_regular_file
from undisclosed.policy import Policy
from undisclosed.policy.policy import personal_mail, refused_domain
from undisclosed.policy.sections import CountingSection
from undisclosed.policy.settings_index import any_of, setting_at
from undisclosed.policy.types import Domain

MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes. A name that leads to an endless file must not fill the memory."""

FILE = "file:"
"""Beginning of an entry of `senders` or `except_senders` that names a list."""


def load(path: Path) -> Policy:
    """Read the configuration. Raises ConfigError with all errors that were found."""
    text = _read_text(path, "")
    raw = _parsed(path, text)
    policy = _Reading(path, text, raw).policy()
    return policy.with_own_replies(read_reply_files(policy, path))


class _Source(NamedTuple):
    """The place of a value from a list."""

    file: Path
    line: int
    text: str


class _Reading:
    """One reading of a configuration: the lines of the file, and the sources of the entries of its lists."""

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
            found = errors.from_validation(error)
            for path, value, problem, fix in [*found, *self._refused_domains({path for path, *_ in found})]:
                # Without a list that could not be read, a rule seems to cover other senders: report the list only.
                if not any(path[: len(unread)] == unread for unread in self._unread) and not (
                    self._unread and len(path) == 2 and path[0] == "rules"
                ):
                    self._add(path, value, problem, fix)
        else:
            if not self._problems:
                return policy
        raise ConfigError(*sorted(self._problems, key=lambda problem: (problem.file != self._path, problem.line or 0)))

    def _refused_domains(self, reported: Collection[tuple[str | int, ...]]) -> Iterator[errors.Found]:
        """The refused domains among the entries that are not reported yet.

        The schema looks for public suffixes and personal-mail providers only when all other values are valid.
        """
        organisation, counting = self._raw.get("organisation"), CountingSection()
        with suppress(ValidationError):
            counting = CountingSection.model_validate(self._raw.get("counting", {}))
        for key in ("internal_domains", "partner_domains"):
            entries = organisation.get(key) if isinstance(organisation, Mapping) else None
            for place, entry in enumerate(entries if isinstance(entries, list) else ()):
                path = ("organisation", key, place)
                if path not in reported:
                    domain = TypeAdapter(Domain).validate_python(entry)
                    if refused := refused_domain(domain, personal_mail(counting), path):
                        yield path, entry, str(refused), refused.fix

    def _add(self, path: tuple[str | int, ...], value: object, problem: str, fix: str) -> None:
        key = errors.dotted_key(path)
        if source := self._sources.get(path):
            self._problems.append(Problem(source.file, key, value, problem, fix, source.line, source.text))
            return
        line = next(
            (self._key_lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._key_lines), None
        )
        quote = self._lines[line - 1] if line else ""
        self._problems.append(Problem(self._path, key, value, problem, fix, line, quote))

    def _with_lists(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The settings with each `file:PATH` replaced by the entries of that file."""
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
            text = _read_text(file, entry)
        except ConfigError as error:
            self._unread.append(path)
            line = self._key_lines.get((*path, place))
            problem = f"the list {file} {error.problems[0].problem}"
            where = f" (line {error.line} of it)" if error.line else ""
            quote = self._lines[line - 1] if line else ""
            self._problems.append(
                Problem(self._path, errors.dotted_key(path), entry, problem + where, error.fix, line, quote)
            )
            return []
        found: list[str] = []
        for number, content in enumerate(text.split("\n"), 1):
            if pattern := re.sub(r"(?:^|\s)#.*", "", content).strip():
                self._sources[*path, first + len(found)] = _Source(file, number, content)
                found.append(pattern)
        if not found and path[-1] == "senders":
            self._unread.append(path)
            fix = "write a sender into it, one a line, or remove the rule"
            # An empty list must not mean all senders: an exemption for no one would exempt everyone.
            self._add((*path, place), entry, f"the list {file} has no senders", fix)
        return found


def _read_text(path: Path, entry: str) -> str:
    """The text of the configuration, or of a list that its `entry` names. Raises ConfigError."""

    def refused(problem: str, fix: str, line: int | None = None) -> ConfigError:
        return ConfigError(Problem(path, "", ABSENT, problem, fix, line))

    other = "or name another file" if entry else "or name another file by --config or UNDISCLOSED_CONFIG"
    try:
        content, _ = read_regular_file(path, MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        example = "" if entry else " (start from config.example.toml)"
        raise refused("does not exist", f"create it{example}, {other}") from None
    except PermissionError:
        fix = f"let the milter's user read it: it needs the mode 0640 and the group of that user, {other}"
        raise NotPermittedError(Problem(path, "", ABSENT, "cannot be read: permission denied", fix)) from None
    except IsADirectoryError:
        raise refused("is a directory", f"name a file in it, {other}") from None
    except OSError as error:
        raise refused(f"cannot be read: {error.strerror}", f"put a regular file there, {other}") from error
    except ValueError:
        raise refused("is not a file name", "remove the NUL character") from None
    if len(content) > MAX_FILE_SIZE:
        raise refused("is larger than 16 MiB", f"put a smaller file there, {other}")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise refused("is not UTF-8 text", "save it as UTF-8", line) from error


_SYNTAX_FIXES = (
    (r"[\u2018\u2019\u201C-\u201E]", "use straight quotes: TOML does not accept typographic ones"),
    (r"^\s*[\w.-]+\s*:", "write key = value, with an equals sign"),
    (r"=\s*0[0-9]", "put it in quotes: a number does not begin with 0"),
    (r"=\s*(?:#|$)", "write a value behind the equals sign, or remove the line"),
    (r"=\s*[^\"'\[{\s]*[A-Za-z@*/<]", "put text in quotes"),
)
"""Patterns of lines that TOML does not accept, with the most likely fix."""


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
    except RecursionError:
        raise ConfigError(
            Problem(path, "", ABSENT, "lists are nested too deeply", "write lists of texts only")
        ) from None
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    lines = text.split("\n")
    number = int(match[1]) if match and match[1] else len(text.rstrip("\n").split("\n"))
    line = lines[number - 1]
    problem = "not TOML: " + message.removesuffix(match[0] if match else "").lower()
    if re.search("overwrite|twice|already|mutate", message):
        problem = "not TOML: this line sets something that is already set above"
        fix = "remove one of the two; a further rule begins with [[rules]]"
    elif "Unclosed" in message and not _open_quotation(line):
        fix = "add the ], the } or the comma that is missing in a list or table that begins here or above"
    else:
        fix = _syntax_fix(lines[:number])
    raise ConfigError(Problem(path, "", ABSENT, problem, fix, number, line))


def _syntax_fix(lines: list[str]) -> str:
    """The most likely fix for the last of these lines, which TOML does not accept."""
    line = lines[-1]
    if match := re.search(r"^\s*([\w-]+)\s*=\s*(?:True|False|yes|no|on|off)\s*(?:#.*)?$", line, re.IGNORECASE):
        headings = [heading[1] for each in lines if (heading := re.match(r"\s*\[+\s*([\w-]+)\s*\]", each))]
        setting = setting_at([headings[-1], match[1]] if headings else [match[1]])
        return f"write {any_of(setting.choices)}" if setting and setting.choices else "write true or false"
    fits = (fix for expression, fix in _SYNTAX_FIXES if re.search(expression, line))
    return _open_quotation(line) or next(fits, "correct the line")


def _open_quotation(line: str) -> str:
    """The fix for a line whose quotation marks are not those of whole texts; empty if they are."""
    if re.search(r"[\u2018\u2019\u201C-\u201E]", line):
        return ""
    rest = re.sub(r"(\"(?:\\.|[^\"\\])*\"|'[^']*')|#.*", lambda match: "\0" if match[1] else "", line)
    if "'" in rest or '"' in rest:
        return 'a quotation mark is missing: a text has one at each end, and within a text in "…" write \\"'
    return 'write \\" for a quotation mark within a text' if re.search(r"\0\s*\w", rest) else ""
