"""Loads the shipped templates, with the organisation's own in place of some, and checks all of them.

Every template is read, compiled and rendered with samples. Otherwise the first incident would find a broken template,
and its sender would get no notice.
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
from undisclosed.config.small_file import read_regular_file
from undisclosed.notices.templates import LAYOUT, TEMPLATES, LanguagePart, Source, TemplateName, Templates
from undisclosed.notices.variables import GROUPS, VARIABLES, Group, Listed, Value
from undisclosed.policy import Policy
from undisclosed.policy.own_replies import REPLY_FILES

SHIPPED: Final = Path(__file__).parent / "templates"

MAX_FILE: Final = 1024 * 1024
"""Bytes of a template, or of the configuration file."""

LAYOUT_VARIABLES: Final = ("parts", "references")

LOOP_VARIABLES: Final = ("group", "message")
"""The variables that a part may use if the template that includes it sets them in a loop, as the shipped ones do."""

TEMPLATE_ERRORS: Final = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The errors of rendering: jinja2's own, its sandbox's, and Python's for operations on values."""


def load(policy: Policy, config_file: Path) -> Templates:
    """The templates of a policy that was read from `config_file`. Raises ConfigError with all problems."""
    sources = _shipped_sources()
    if policy.notices.templates:
        directory = config_file.parent / policy.notices.templates
        setting = _Setting(config_file, ("notices", "templates"), policy.notices.templates)
        sources |= _own_sources(directory, setting, sources)
    languages = list(dict.fromkeys(policy.organisation.languages))
    folders = {language: folder for language in languages if (folder := _folder(language, sources))}
    if without := [language for language in languages if language not in folders]:
        raise ConfigError(*(_no_templates(config_file, policy, language, sources) for language in without))
    templates = Templates(folders, sources)
    check(templates)
    return templates


def check(templates: Templates) -> None:
    """Raise ConfigError for missing templates, syntax errors, unknown variables, and errors of rendering."""
    folders = list(dict.fromkeys(templates.folders.values()))
    problems = [problem for folder in folders for problem in _missing(templates, folder)]
    if not problems:
        used = sorted(name for name in templates.sources if name.partition("/")[0] in (LAYOUT, *folders))
        problems = [problem for name in used for problem in _syntax_problems(templates, name)]
    if not problems:
        problems = [
            problem
            for language in templates.folders
            for kind in TEMPLATES
            for problem in _rendering_problems(templates, language, kind)
        ]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting of the configuration file, to report a problem with its line."""

    file: Path
    path: tuple[str | int, ...]
    value: object

    def problem(self, problem: str, fix: str) -> Problem:
        text = read_regular_file(self.file, MAX_FILE)[0].decode("utf-8-sig", "replace").replace("\r\n", "\n")
        lines = key_lines(text)
        line = next((lines[self.path[:end]] for end in (3, 2, 1) if self.path[:end] in lines), None)
        quote = text.split("\n")[line - 1] if line else ""
        key = ".".join(str(name) for name in self.path if isinstance(name, str))
        return Problem(self.file, key, self.value, problem, fix, line, quote)


def _no_templates(config_file: Path, policy: Policy, language: str, sources: Mapping[str, Source]) -> Problem:
    index = policy.organisation.languages.index(language)
    setting = _Setting(config_file, ("organisation", "languages", index), language)
    known = ", ".join(sorted({name.partition("/")[0] for name in sources if "/" in name}))
    fix = f"write one of {known}, or put templates for it into a directory {language} in notices.templates"
    return setting.problem("there are no templates for notices in this language", fix)


def _folder(language: str, sources: Mapping[str, Source]) -> str | None:
    """The folder of a language: its own, or the one of the language without its region."""
    folders = {name.partition("/")[0] for name in sources if "/" in name}
    return next((folder for folder in (language, language.partition("-")[0]) if folder in folders), None)


# -- reading


def _shipped_sources() -> dict[str, Source]:
    return dict(_read_shipped())


@cache
def _read_shipped() -> Mapping[str, Source]:
    return {name: Source(file, file.read_text("utf-8")) for name, file in _files(SHIPPED)}


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """The templates by name: `layout.html` and `LANGUAGE/KIND.txt`.

    Hidden files and editors' backups are skipped, and so are the words of SMTP replies, which `config` reads.
    """
    for file in sorted((*directory.glob("*.html"), *directory.glob("*/*.txt"))):
        if not file.name.startswith(".") and file.name not in REPLY_FILES.values():
            yield file.relative_to(directory).as_posix(), file


def _own_sources(directory: Path, setting: _Setting, shipped: Mapping[str, Source]) -> dict[str, Source]:
    """The organisation's own templates."""
    try:
        files = list(_files(directory)) if directory.stat() else []
        sources = {name: _read(file) for name, file in files}
    except (OSError, ValueError) as error:
        problem = f"the directory {directory} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(setting.problem(problem, "name a directory of templates, or leave it out")) from error
    if not sources and not any(file.name in REPLY_FILES.values() for file in directory.glob("*/*.txt")):
        fix = "put templates there as LANGUAGE/KIND.txt, such as en/held.txt, or leave the setting out"
        raise ConfigError(setting.problem(f"there are no templates in {directory}", fix))
    problems = [problem for name, source in sources.items() for problem in _misnamed(name, source, shipped)]
    if problems:
        raise ConfigError(*problems)
    return sources


def _read(file: Path) -> Source:
    content, _ = read_regular_file(file, MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise OSError(0, f"{file} is larger than 1 MiB")
    try:
        return Source(file, content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(Problem(file, "", ABSENT, "not UTF-8 text", "save it as UTF-8", line)) from error


def _misnamed(name: str, source: Source, shipped: Mapping[str, Source]) -> Iterator[Problem]:
    """Problems of a file name that no notice uses: its author would expect it to be used."""
    file = name.rpartition("/")[2]
    possible = (
        LAYOUT,
        *(f"{kind}.txt" for kind in TEMPLATES),
        *REPLY_FILES.values(),
        *(other.rpartition("/")[2] for other in shipped),
    )
    if file not in possible and not file.startswith("_"):
        nearest = difflib.get_close_matches(file, possible, n=1)
        fix = f"call it {nearest[0] if nearest else possible[1]}; a part that others include begins with _"
        yield Problem(source.file, "", ABSENT, "no notice has this name, so it would never be used", fix)


# -- checking


def _missing(templates: Templates, folder: str) -> Iterator[Problem]:
    """Problems of a language that lacks templates for some kinds of notices."""
    names = [f"{kind}.txt" for kind in TEMPLATES if f"{folder}/{kind}.txt" not in templates.sources]
    if names:
        directory = next(
            source.file.parent for name, source in templates.sources.items() if name.startswith(f"{folder}/")
        )
        fix = "add these files: senders get a notice of every kind"
        yield Problem(directory, "", ABSENT, f"there are no templates for these notices: {', '.join(names)}", fix)


def _syntax_problems(templates: Templates, name: str) -> Iterator[Problem]:
    """Problems of a template that can be seen without rendering it: its syntax, and unknown variables."""
    known = LAYOUT_VARIABLES if name == LAYOUT else tuple(VARIABLES)
    from_loops = LOOP_VARIABLES if name.rpartition("/")[2].startswith("_") else ()
    try:
        tree = templates.environment.parse(templates.sources[name].text, name)
        unknown = meta.find_undeclared_variables(tree).difference(known, from_loops)
        templates.environment.get_template(name)
    except TemplateSyntaxError as error:
        yield _problem(templates, name, error.lineno, f"not a template: {error.message}", "correct the line")
        return
    for variable in sorted(unknown):
        line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == variable), None)
        nearest = difflib.get_close_matches(variable, known, n=1)
        fix = f"{f'write {nearest[0]}; ' if nearest else ''}known are {', '.join(known)}"
        yield _problem(templates, name, line, f"there is no variable {variable}", fix)


def _rendering_problems(templates: Templates, language: str, kind: TemplateName) -> Iterator[Problem]:
    """Problems of rendering a notice with each of the samples."""
    name = f"{templates.folders[language]}/{kind}.txt"
    laid_out: set[LanguagePart] = set()  # most samples read alike, and a page takes longest: each start would wait
    for variables in samples():
        try:
            part = templates.part(language, kind, variables, UTC)
            if part not in laid_out:
                templates.html((part,), ["K7QF-3M2D"])
                laid_out.add(part)
        except TEMPLATE_ERRORS as error:
            at, line = _place(templates, error, name)
            yield _problem(templates, at, line, f"the notice cannot be written: {error}", "correct the line")
            return
        if not (part.subject and part.blocks):
            fix = "write the subject in the first line, an empty line, and the text below it"
            yield _problem(templates, name, None, "its subject or its text is empty", fix)
            return


def _place(templates: Templates, error: BaseException, otherwise: str) -> tuple[str, int | None]:
    """The template and the line of an error, from the traceback, where jinja2 puts them."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for name, source in templates.sources.items():
            if frame.filename == str(source.file):
                return name, frame.lineno
    return otherwise, None


def _problem(templates: Templates, name: str, line: int | None, problem: str, fix: str) -> Problem:
    source = templates.sources[name]
    quote = source.text.split("\n")[line - 1] if line else ""
    return Problem(source.file, "", ABSENT, problem, fix, line, quote)


def samples() -> Iterator[dict[str, Value]]:
    """The variables of a usual incident, and the same with each variable replaced by its other values."""
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
        "waits": False,
        "choices": ("bcc", "split", "delete"),
        "release_mode": "",
        "confirmed": True,
        "redirected": False,
        "some_received": False,
        "until": at,
        "release_at": at,
        "on_expiry": "delete",
        "administrator": "postmaster@council.test",
        "number": 3,
        "groups": (Group("held", (Listed("K7QF-3M2D", at, "School admissions", "clerk@council.test", at),), 3, 2),),
    }
    others: dict[str, tuple[Value, ...]] = {
        "help": ("",),
        "subject": ("",),
        "recipients": (0, 1, 2),
        "count": (0, 1, 2),
        "organisations": (0, 1),
        "named": (0, 1),
        "obstacle": ("invitation", "outlook", "signed", "repeated", "other"),
        "choices": ((), ("unchanged",), ("delete",), ("bcc", "split", "unchanged", "delete")),
        "release_mode": ("bcc", "split", "unchanged"),
        "waits": (True,),
        "confirmed": (False,),
        "redirected": (True,),
        "some_received": (True,),
        "on_expiry": ("keep",),
        "until": (None,),
        "number": (1,),
        "groups": (
            tuple(Group(what, (Listed("K7QF-3M2D", at, "", "", None),) * 2, 2, 0) for what in GROUPS),
            *((Group(what, (Listed("K7QF-3M2D", at, "", "", None),), 1, 0),) for what in GROUPS),
        ),
    }
    yield usual
    yield {**usual, "subject": "", "help": "", "recipients": 1, "count": 0, "choices": ()}
    for name, values in others.items():
        for value in values:
            yield {**usual, name: value}
