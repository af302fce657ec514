"""Reading the words: ours, and the organisation's own over them; and refusing what would fail when a notice is due.

Every template is read, compiled and tried at once. Without this a wrong one would be found by the first incident, and
its sender would never hear of it.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes

from undisclosed.config.errors import ABSENT, ConfigError, Problem
from undisclosed.config.line_numbers import key_lines
from undisclosed.config.small_file import read_plain
from undisclosed.incidents.records import NoticeKind
from undisclosed.notices.templates import KINDS, LAYOUT, Source, Words
from undisclosed.notices.variables import VARIABLES, Fact
from undisclosed.policy import Policy

SHIPPED: Final = Path(__file__).parent / "templates"

LARGEST_FILE: Final = 1024 * 1024
"""Bytes of a template, or of the configuration."""

LAYOUT_VARIABLES: Final = ("parts", "reference")

MADE_BY_TEMPLATES: Final = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a template can raise: jinja2's errors, its sandbox's, and Python's for what it does with a value."""


def load(policy: Policy, config_file: Path) -> Words:
    """The words of a policy that was read from `config_file`. Raises ConfigError, with all that must be mended."""
    sources = _ours()
    if policy.notices.templates:
        directory = config_file.parent / policy.notices.templates
        sources |= _own(directory, _Setting(config_file, ("notices", "templates"), policy.notices.templates), sources)
    languages = list(dict.fromkeys(policy.organisation.languages))
    folders = {language: folder for language in languages if (folder := _folder(language, sources))}
    if without := [language for language in languages if language not in folders]:
        raise ConfigError(*(_no_words(config_file, policy, language, sources) for language in without))
    words = Words(folders, sources)
    check(words)
    return words


@cache
def shipped(languages: tuple[str, ...]) -> Words:
    """The words that come with the program; English for a language that has none."""
    sources = _ours()
    folders = {language: folder for language in languages if (folder := _folder(language, sources))}
    return Words(folders or {"en": "en"}, sources)


def check(words: Words) -> None:
    """Raises ConfigError for templates that are missing, cannot be read, name what there is not, or fail when tried."""
    folders = list(dict.fromkeys(words.folders.values()))
    problems = [one for folder in folders for one in _missing(words, folder)]
    if not problems:
        used = sorted(name for name in words.sources if name.partition("/")[0] in (LAYOUT, *folders))
        problems = [one for name in used for one in _static(words, name)]
    if not problems:
        problems = [one for language in words.folders for kind in KINDS for one in _tried(words, language, kind)]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting of the configuration that something is wrong with."""

    file: Path
    path: tuple[str | int, ...]
    value: object

    def problem(self, problem: str, fix: str) -> Problem:
        text = read_plain(self.file, LARGEST_FILE)[0].decode("utf-8-sig", "replace").replace("\r\n", "\n")
        lines = key_lines(text)
        line = next((lines[self.path[:end]] for end in (3, 2, 1) if self.path[:end] in lines), None)
        quote = text.split("\n")[line - 1] if line else ""
        key = ".".join(str(name) for name in self.path if isinstance(name, str))
        return Problem(self.file, key, self.value, problem, fix, line, quote)


def _no_words(config_file: Path, policy: Policy, language: str, sources: Mapping[str, Source]) -> Problem:
    place = policy.organisation.languages.index(language)
    setting = _Setting(config_file, ("organisation", "languages", place), language)
    there = ", ".join(sorted({name.partition("/")[0] for name in sources if "/" in name}))
    fix = f"write one of {there}, or write its words into a directory {language} in notices.templates"
    return setting.problem("there are no words for notices in this language", fix)


def _folder(language: str, sources: Mapping[str, Source]) -> str | None:
    """Where a language's templates are: in its own folder, or in that of the language without its region."""
    there = {name.partition("/")[0] for name in sources if "/" in name}
    return next((one for one in (language, language.partition("-")[0]) if one in there), None)


# -- reading


@cache
def _shipped_sources() -> Mapping[str, Source]:
    return {name: Source(file, file.read_text("utf-8")) for name, file in _files(SHIPPED)}


def _ours() -> dict[str, Source]:
    return dict(_shipped_sources())


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Templates by name: `layout.html`, and `LANGUAGE/KIND.txt`. Other files, such as an editor's, are none."""
    for file in sorted((*directory.glob("*.html"), *directory.glob("*/*.txt"))):
        if not file.name.startswith("."):
            yield file.relative_to(directory).as_posix(), file


def _own(directory: Path, setting: _Setting, ours: Mapping[str, Source]) -> dict[str, Source]:
    """The organisation's own templates."""
    try:
        files = list(_files(directory)) if directory.stat() else []
        found = {name: _read(file) for name, file in files}
    except (OSError, ValueError) as error:
        problem = f"the directory {directory} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(setting.problem(problem, "name a directory of templates, or leave it out")) from error
    if not found:
        fix = "put templates there as LANGUAGE/KIND.txt, such as en/held.txt, or leave the setting out"
        raise ConfigError(setting.problem(f"there are no templates in {directory}", fix))
    problems = [one for name, source in found.items() for one in _misnamed(name, source, ours)]
    if problems:
        raise ConfigError(*problems)
    return found


def _read(file: Path) -> Source:
    content, _ = read_plain(file, LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(0, f"{file} is larger than 1 MiB")
    try:
        return Source(file, content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(Problem(file, "", ABSENT, "not UTF-8 text", "save it as UTF-8", line)) from error


def _misnamed(name: str, source: Source, ours: Mapping[str, Source]) -> Iterator[Problem]:
    """A file that no notice would ever be made of: its writer believes that it is used."""
    file = name.rpartition("/")[2]
    possible = (LAYOUT, *(f"{kind}.txt" for kind in KINDS), *(one.rpartition("/")[2] for one in ours))
    if file not in possible and not file.startswith("_"):
        nearest = difflib.get_close_matches(file, possible, n=1)
        fix = f"call it {nearest[0] if nearest else possible[1]}; a part that others include begins with _"
        yield Problem(source.file, "", ABSENT, "no notice has this name, so it would never be used", fix)


# -- checking


def _missing(words: Words, folder: str) -> Iterator[Problem]:
    """The kinds of notices that a language of the organisation's own has no words for."""
    names = [f"{kind}.txt" for kind in KINDS if f"{folder}/{kind}.txt" not in words.sources]
    if names:
        directory = next(source.file.parent for name, source in words.sources.items() if name.startswith(f"{folder}/"))
        fix = "write them too: whatever happens to a message, its sender is to be told"
        yield Problem(directory, "", ABSENT, f"there are no words for these notices: {', '.join(names)}", fix)


def _static(words: Words, name: str) -> Iterator[Problem]:
    """What is wrong with a template as it stands: it cannot be read, or it names what there is not."""
    known = LAYOUT_VARIABLES if name == LAYOUT else tuple(VARIABLES)
    try:
        tree = words.environment.parse(words.sources[name].text, name)
        unknown = meta.find_undeclared_variables(tree).difference(known)
        words.environment.get_template(name)
    except TemplateSyntaxError as error:
        yield _wrong(words, name, error.lineno, f"not a template: {error.message}", "mend the line")
        return
    for variable in sorted(unknown):
        line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == variable), None)
        nearest = difflib.get_close_matches(variable, known, n=1)
        fix = f"{f'write {nearest[0]}; ' if nearest else ''}known are {', '.join(known)}"
        yield _wrong(words, name, line, f"there is no variable {variable}", fix)


def _tried(words: Words, language: str, kind: NoticeKind) -> Iterator[Problem]:
    """What goes wrong when the notice is written, for facts of every sort."""
    name = f"{words.folders[language]}/{kind}.txt"
    for facts in samples():
        try:
            part = words.part(language, kind, facts, UTC)
            words.html((part,), "K7QF-3M2D")
        except MADE_BY_TEMPLATES as error:
            at, line = _place(words, error, name)
            yield _wrong(words, at, line, f"the notice cannot be written: {error}", "mend the line")
            return
        if not (part.subject and part.blocks):
            fix = "write the subject in the first line, an empty line, and the text below it"
            yield _wrong(words, name, None, "its subject or its text is empty", fix)
            return


def _place(words: Words, error: BaseException, otherwise: str) -> tuple[str, int | None]:
    """The template and the line in which an error came up: jinja2 puts them into the traceback."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for name, source in words.sources.items():
            if frame.filename == str(source.file):
                return name, frame.lineno
    return otherwise, None


def _wrong(words: Words, name: str, line: int | None, problem: str, fix: str) -> Problem:
    source = words.sources[name]
    quote = source.text.split("\n")[line - 1] if line else ""
    return Problem(source.file, "", ABSENT, problem, fix, line, quote)


def samples() -> Iterator[dict[str, Fact]]:
    """Facts of every sort that a template may meet: a usual incident, and for each fact what else it can be."""
    at = datetime(2026, 11, 19, 14, 5, tzinfo=UTC)
    usual: dict[str, Any] = {
        "organisation": "Exampleshire County Council",
        "help": "the service desk",
        "reference": "K7QF-3M2D",
        "subject": "School admissions",
        "sent": at,
        "recipients": 96,
        "count": 95,
        "organisations": 12,
        "named": 90,
        "obstacle": "",
        "choices": ("bcc", "split", "delete"),
        "way": "",
        "some_received": False,
        "until": at,
        "release_at": at,
        "on_expiry": "delete",
    }
    others: dict[str, tuple[Fact, ...]] = {
        "help": ("",),
        "subject": ("",),
        "recipients": (0, 1, 2),
        "count": (0, 1, 2),
        "organisations": (0, 1),
        "named": (0, 1),
        "obstacle": ("invitation", "outlook", "signed", "other"),
        "choices": ((), ("unchanged",), ("delete",), ("bcc", "split", "unchanged", "delete")),
        "way": ("bcc", "split", "unchanged"),
        "some_received": (True,),
        "on_expiry": ("keep",),
    }
    yield usual
    yield {**usual, "subject": "", "help": "", "recipients": 1, "count": 0, "choices": ()}
    for name, values in others.items():
        for value in values:
            yield {**usual, name: value}
