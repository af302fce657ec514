"""The templates of notices: one for each language and kind of notice, used for the text and the HTML part.

In `en/held.txt` the first line is the subject. Paragraphs follow, separated by empty lines, and lists whose entries
begin with `- `. A template runs in jinja2's sandbox, although the administrator wrote it, and sees the variables of one
incident only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time
from jinja2 import FunctionLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from undisclosed.incidents.records import NoticeKind
from undisclosed.notices.variables import Group, Listed, Value

KINDS: Final[tuple[NoticeKind, ...]] = get_args(NoticeKind)

SeveralName = Literal["summary", "digest"]
"""A notice about several messages: to their sender, or to the administrator."""

TemplateName = NoticeKind | SeveralName

TEMPLATES: Final[tuple[TemplateName, ...]] = (*KINDS, "summary", "digest")

LAYOUT: Final = "layout.html"
"""The HTML template for the whole notice. Its variables: `parts`, one for each language, and `references`."""

DAY_ONLY: Final = frozenset({"until"})
"""Instants that are written as a day: mail expires in the next round of the steward, not on the second."""


_STATEMENT: Final = re.compile(
    r"^[ \t]*(\{%[ \t]*(?:if|elif|else|endif|for|endfor|macro|endmacro|set)\b(?:(?!%\}|\{%).)*)%\}[ \t]*\n",
    re.MULTILINE,
)
"""A line that contains one statement only: it must produce no output, since an empty line ends a paragraph.

jinja2's own trim_blocks also removes the line end after an `include`, which joins two paragraphs. Here the line end is
moved into the statement, so that the line numbers of errors stay those of the file.
"""


class Source(NamedTuple):
    """The text of a template, and its file."""

    file: Path
    text: str


class Block(NamedTuple):
    """A paragraph (of one line), or a list (of one line an entry)."""

    lines: tuple[str, ...]
    is_list: bool


class LanguagePart(NamedTuple):
    """A notice in one language."""

    language: str
    subject: str
    blocks: tuple[Block, ...]


class Templates:
    """The templates of all languages of an organisation."""

    def __init__(self, folders: Mapping[str, str], sources: Mapping[str, Source]) -> None:
        """`folders`: each language's folder, in order. `sources`: the templates by `FOLDER/KIND.txt`, and LAYOUT."""
        self.folders = dict(folders)
        self.sources = dict(sources)
        self.environment = ImmutableSandboxedEnvironment(
            loader=FunctionLoader(self._load),
            undefined=StrictUndefined,
            autoescape=lambda name: name is not None and name.endswith(".html"),
        )
        self.environment.globals.clear()

    def parts(
        self, kind: TemplateName, variables: Mapping[str, Value], zone: tzinfo | None = None
    ) -> tuple[LanguagePart, ...]:
        """The notice in every language. Instants are written in `zone`; None is the host's local time.

        Raises jinja2's errors if the templates were not checked.
        """
        return tuple(self.part(language, kind, variables, zone) for language in self.folders)

    def part(
        self, language: str, kind: TemplateName, variables: Mapping[str, Value], zone: tzinfo | None = None
    ) -> LanguagePart:
        """The notice in one of the languages."""
        template = self.environment.get_template(f"{self.folders[language]}/{kind}.txt")
        subject, _, rest = template.render(localised(variables, language, zone)).strip().partition("\n")
        return LanguagePart(language, " ".join(subject.split()), tuple(blocks(rest)))

    def html(self, parts: Sequence[LanguagePart], references: Collection[str]) -> str:
        """The parts as one HTML page, with the references emphasised."""
        return self.environment.get_template(LAYOUT).render(parts=parts, references=frozenset(filter(None, references)))

    def _load(self, name: str) -> tuple[str, str, None] | None:
        source = self.sources.get(name)
        return None if source is None else (_STATEMENT.sub(r"\1\n%}", source.text), str(source.file), None)


def localised(variables: Mapping[str, Value], language: str, zone: tzinfo | None) -> dict[str, Any]:
    """The variables with instants written in the language: `3 December 2026`, `3 Rhagfyr 2026, 14:05`."""
    locale = _locale(language)

    def written(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(written(name, one) for one in value)
        if isinstance(value, (Group, Listed)):
            return {field.name: written(field.name, getattr(value, field.name)) for field in fields(value)}
        if not isinstance(value, datetime):
            return value
        local = value.astimezone(zone)
        day = format_date(local, "long", locale=locale)
        return day if name in DAY_ONLY else f"{day}, {format_time(local, 'short', locale=locale)}"

    return {name: written(name, value) for name, value in variables.items()}


def _locale(language: str) -> Locale:
    """The locale for dates. British English for `en` without a country, and for an unknown language."""
    if language == "en":
        return Locale("en", "GB")
    for tag in (language, language.partition("-")[0]):
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return Locale("en", "GB")


def blocks(text: str) -> Iterator[Block]:
    """The paragraphs and lists of a text; a line end inside one is a blank."""
    for paragraph in re.split(r"\n\s*\n(?!- )", text.strip()):  # empty lines between entries do not end a list
        lead, *entries = re.split(r"(?:\A|\n)- ", paragraph)
        if lead.strip():
            yield Block((" ".join(lead.split()),), is_list=False)
        if entries:
            yield Block(tuple(" ".join(entry.split()) for entry in entries), is_list=True)
