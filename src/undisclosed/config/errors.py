"""Errors of a configuration in words: its place, the problem and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from undisclosed.policy.settings_index import Setting, all_sections, any_of, setting_at, written
from undisclosed.policy.types import Refused, RefusedTogether

MAX_QUOTE = 80
"""Characters of a value or line that an error repeats."""

ABSENT = object()
"""The value of a setting that is missing, or whose value does not matter."""


class Problem(NamedTuple):
    """One error. `str()` is the text for the administrator."""

    file: Path
    key: str
    """The setting, as in `rules[1].action` (counted from 0); empty for an error of the whole file."""
    value: object
    """The value in the file, or ABSENT."""
    problem: str
    fix: str
    """The text to write instead."""
    line: int | None = None
    """The number of the line to correct, from 1."""
    quote: str = ""
    """The text of that line."""

    def __str__(self) -> str:
        where = f"{self.file}, line {self.line}" if self.line else f"{self.file}"
        key = re.sub(r"rules\[(\d+)\]\.?", lambda match: f"rule {int(match[1]) + 1}: ", self.key).removesuffix(": ")
        said = f"{key} = {_shortened(written(self.value))}" if self.value is not ABSENT else key
        lines = [f"{where}: {said}" if said else where, f"  {self.problem}", f"  {self.fix}"]
        if self.quote.strip():
            lines.insert(1, f"    {self.line} | {_shortened(self.quote.strip())}")
        return _without_password("\n".join(lines))


class ConfigError(Exception):
    """A configuration that cannot be used, with all errors that were found.

    `file`, `key`, `value`, `fix` and `line` are those of the first problem; `problems` has them all.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.file, self.key, self.value, _, self.fix, self.line, _ = problems[0]


Found = tuple[tuple[str | int, ...], object, str, str]
"""An error of the schema: the path, the value (or ABSENT), the problem and the fix, in our words."""


class NotPermittedError(ConfigError):
    """A file that the user may not read. The fix is for the user of a service; a command is to be run as root."""


def from_validation(error: ValidationError) -> list[Found]:
    """The errors of the schema."""
    found: list[Found] = []
    for details in error.errors(include_url=False):
        path, value = details["loc"], details["input"]
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, RefusedTogether):
            found += [
                (refused.where, ABSENT if refused.value is None else refused.value, str(refused), refused.fix)
                for refused in cause.refused
            ]
        elif isinstance(cause, Refused):
            at = (*path, *cause.where)
            value = ABSENT if isinstance(value, Mapping) and cause.value is None else cause.value or value
            found.append((at, value, str(cause), cause.fix))
        elif not _is_echo(details):
            value = ABSENT if details["type"] == "missing" or isinstance(value, Mapping) else value
            found.append((path, value, *_words(details)))
    return found


def _is_echo(details: ErrorDetails) -> bool:
    """Whether pydantic finds a list too short only because it leaves out the entries that it refused."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def _words(details: ErrorDetails) -> tuple[str, str]:
    path, kind, value = details["loc"], details["type"], details["input"]
    setting = setting_at(path)
    key = str(path[-1]) if isinstance(path[-1], str) else ""
    if kind == "missing" or (path == ("rules",) and not value):
        return _missing(path, setting)
    if kind == "extra_forbidden":
        return _unknown(path)
    if setting is None or isinstance(value, Mapping):
        return _no_section(path)
    if setting.choices and kind in ("enum", "literal_error"):
        # A value far from all choices is another wish, not a misspelling: a guess would turn it into its opposite.
        nearest = difflib.get_close_matches(str(value).casefold(), setting.choices, n=1, cutoff=0.75)
        return "not one of the allowed values", f"write {any_of(nearest or setting.choices)}"
    if kind == "tuple_type":
        return "must be a list", f"write {key} = {_as_list(setting, value)}"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty", f"write, for example, {key} = {setting.example}"
    if kind == "string_too_long":
        return f"longer than {details['ctx']['max_length']} characters", "write a shorter text"
    return f"must be {_kind(setting, path)}", _typed(setting, path, value)


def _as_list(setting: Setting, value: object) -> str:
    """The list that was probably meant: the one text that the file has, if it can be an entry; else an example."""
    is_entry = isinstance(value, str) and 0 < len(value) <= MAX_QUOTE and value in (setting.choices or (value,))
    return written([value]) if is_entry else setting.example


def _kind(setting: Setting, path: Sequence[str | int]) -> str:
    return "text in quotes" if isinstance(path[-1], int) or setting.kind == "text" else setting.kind


def _typed(setting: Setting, path: Sequence[str | int], value: object) -> str:
    """The value as its type is written, if it can be converted; else an example."""
    key = f"{path[-1]} = " if isinstance(path[-1], str) else ""
    if setting.kind.startswith("a whole number") and isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return f"write {key}{value}, without quotes"
    if setting.kind == "true or false" and str(value).casefold() in ("true", "false"):
        return f"write {key}{str(value).casefold()}, without quotes"
    if setting.kind == "text" and isinstance(value, int | float) and not isinstance(value, bool):
        return f'write {key}"{value}", in quotes'
    return f"write, for example, {key}{setting.example}" if key else "write each entry in quotes"


def _missing(path: Sequence[str | int], setting: Setting | None) -> tuple[str, str]:
    if path == ("rules",):
        return "there is no rule, so nothing would be limited", f"add one: {_example_rule()}"
    if setting is None:
        section = all_sections()[str(path[0])]
        required = [each for each in section.settings.values() if each.required]
        needed = "; ".join(f"{each.key} = {each.example}" for each in required)
        return "this section is missing", f"add [{section.name}] with {needed}"
    place = "the rule" if path[0] == "rules" else f"[{path[0]}]"
    return "this setting is missing", f"add {path[-1]} = {setting.example} to {place}"


def _example_rule() -> str:
    return '[[rules]] with name = "too many in sight"; more_than_addresses = 10; action = "reject"'


def _no_section(path: Sequence[str | int]) -> tuple[str, str]:
    if path[0] == "rules" and len(path) <= 2:
        return "each rule is a section of its own", "begin it with a line [[rules]], in double brackets"
    if path[0] in all_sections() and len(path) == 1:
        return "this is a section, not a setting", f"write [{path[0]}] on a line of its own and its settings below it"
    setting = setting_at(path)
    example = f", such as {path[-1]} = {setting.example}" if setting else ""
    return "this is a setting, not a section", f"write it as one value{example}"


def _unknown(path: Sequence[str | int]) -> tuple[str, str]:
    """An unknown key: the fix names the nearest known one, or the section that has it."""
    key = str(path[-1])
    section = str(path[0]) if len(path) > 1 else ""
    known = list(all_sections()[section].settings)
    if not section:
        known += [section_name for section_name in all_sections() if section_name]
    containing = [name for name in known if len(key) > 4 and key.casefold() in name]
    if near := containing or difflib.get_close_matches(key.casefold(), known, n=1, cutoff=0.75):
        return "there is no such setting", f"write {' or '.join(map(_heading, near))}"
    if elsewhere := [each.name for each in all_sections().values() if key in each.settings]:
        return "this section has no such setting", f"move it {' or '.join(map(_place, elsewhere))}"
    everywhere = {name: each.name for each in all_sections().values() for name in each.settings}
    if far := difflib.get_close_matches(key.casefold(), everywhere, n=1, cutoff=0.75):
        return "there is no such setting", f"write {far[0]}, {_place(everywhere[far[0]])}, or remove it"
    written = ", ".join(map(_heading, known))
    return "there is no such setting", f"remove it, or write {'one of ' if len(known) > 1 else ''}{written}"


def _heading(name: str) -> str:
    section = all_sections().get(name)
    return name if section is None else f"[[{name}]]" if section.repeated else f"[{name}]"


def _place(section: str) -> str:
    if not section:
        return "above the first section"
    return "into a [[rules]]" if all_sections()[section].repeated else f"into [{section}]"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_QUOTE else text[: MAX_QUOTE - 1] + "…"


def _without_password(text: str) -> str:
    """The text without the passwords of URLs: errors go to logs that more people read than the configuration."""
    return re.sub(r"(://[^\s:/@\"]*):[^\s\"]*@", r"\1:…@", text)


def dotted_key(path: Sequence[Any]) -> str:
    """A path as a dotted key: `rules[1].action`; the index of a list entry is left out, since the value is shown."""
    text = ""
    for place, name in enumerate(path):
        if isinstance(name, int):
            text += f"[{name}]" if place == 1 and path[0] == "rules" else ""
        else:
            text += f".{name}" if text else name
    return text
