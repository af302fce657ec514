"""The words of notices: one template a language and kind, for text and HTML alike.

`en/held.txt`: the first line is the subject, what follows are paragraphs with an empty line between them, and lists
whose entries begin with `- `. A template runs in jinja2's sandbox, although it is the administrator's own, and knows
nothing but the facts of one incident.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final, NamedTuple, get_args

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time
from jinja2 import FunctionLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from undisclosed.incidents.records import NoticeKind
from undisclosed.notices.variables import Fact

KINDS: Final[tuple[NoticeKind, ...]] = get_args(NoticeKind)

LAYOUT: Final = "layout.html"
"""The template that puts the words of every language into HTML: the `parts`, and the incident's `reference`."""

DAY_ONLY: Final = frozenset({"until"})
"""Instants of which only the day is told: mail expires when the steward next looks, not on the second."""


_STATEMENT: Final = re.compile(
    r"^[ \t]*(\{%[ \t]*(?:if|elif|else|endif|for|endfor|macro|endmacro|set)\b(?:(?!%\}|\{%).)*)%\}[ \t]*\n",
    re.MULTILINE,
)
"""A line with nothing in it but a statement: it is to leave nothing behind, no empty line that would end a paragraph.

jinja2's own trim_blocks would also take the line end behind an `include`, and run two paragraphs together. Here the
line end moves into the statement, so that the lines of an error are those of the file.
"""


class Source(NamedTuple):
    """A template, and the file that it was read from."""

    file: Path
    text: str


class Block(NamedTuple):
    """A paragraph (of one line), or a list (of one line an entry)."""

    lines: tuple[str, ...]
    is_list: bool


class Part(NamedTuple):
    """A notice in one language."""

    language: str
    subject: str
    blocks: tuple[Block, ...]


class Words:
    """Templates by language: what notices say."""

    def __init__(self, folders: Mapping[str, str], sources: Mapping[str, Source]) -> None:
        """`folders` are the languages in order, each with the folder of its templates in the names of `sources`."""
        self.folders = dict(folders)
        self.sources = dict(sources)
        self.environment = ImmutableSandboxedEnvironment(
            loader=FunctionLoader(self._load),
            undefined=StrictUndefined,
            autoescape=lambda name: name is not None and name.endswith(".html"),
        )
        self.environment.globals.clear()

    def parts(self, kind: NoticeKind, facts: Mapping[str, Fact], zone: tzinfo | None = None) -> tuple[Part, ...]:
        """The notice in every language. Instants are written in `zone`; None is the host's local time.

        Raises what jinja2 raises for a template that has not been checked.
        """
        return tuple(self.part(language, kind, facts, zone) for language in self.folders)

    def part(self, language: str, kind: NoticeKind, facts: Mapping[str, Fact], zone: tzinfo | None = None) -> Part:
        """The notice in one of the languages."""
        template = self.environment.get_template(f"{self.folders[language]}/{kind}.txt")
        subject, _, rest = template.render(spoken(facts, language, zone)).strip().partition("\n")
        return Part(language, " ".join(subject.split()), tuple(blocks(rest)))

    def html(self, parts: Sequence[Part], reference: str) -> str:
        """The parts as one HTML page, in which the reference stands out."""
        return self.environment.get_template(LAYOUT).render(parts=parts, reference=reference)

    def _load(self, name: str) -> tuple[str, str, None] | None:
        found = self.sources.get(name)
        return None if found is None else (_STATEMENT.sub(r"\1\n%}", found.text), str(found.file), None)


def spoken(facts: Mapping[str, Fact], language: str, zone: tzinfo | None) -> dict[str, Fact]:
    """The facts, with each instant as the language writes it: `3 December 2026`, `3 Rhagfyr 2026, 14:05`."""
    locale = _locale(language)

    def written(name: str, value: Fact) -> Fact:
        if not isinstance(value, datetime):
            return value
        local = value.astimezone(zone)
        day = format_date(local, "long", locale=locale)
        return day if name in DAY_ONLY else f"{day}, {format_time(local, 'short', locale=locale)}"

    return {name: written(name, value) for name, value in facts.items()}


def _locale(language: str) -> Locale:
    """How a language writes dates; English without a country as in Great Britain, one that nobody knows likewise."""
    if language == "en":
        return Locale("en", "GB")
    for tag in (language, language.partition("-")[0]):
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return Locale("en", "GB")


def blocks(text: str) -> Iterator[Block]:
    """The paragraphs and lists of a text; line ends within them are blanks."""
    for paragraph in re.split(r"\n\s*\n(?!- )", text.strip()):  # one list, whatever stands between its entries
        lead, *entries = re.split(r"(?:\A|\n)- ", paragraph)
        if lead.strip():
            yield Block((" ".join(lead.split()),), is_list=False)
        if entries:
            yield Block(tuple(" ".join(entry.split()) for entry in entries), is_list=True)
