"""The output of commands: printable text, tables and labelled lines that fit a terminal, plain lines elsewhere.

On a terminal, tables follow its width, and no address, reference or date is broken. Elsewhere (a pipe, a file) each row
is one line of tab-separated cells, without padding, so that grep, cut and head work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TextIO

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

DEFAULT_WIDTH: Final = 80
"""Columns of a terminal that does not say how many it has."""

GAP: Final = "  "
"""Between two columns."""

INDENT: Final = "    "
"""Before the further lines of a row."""

MIN_CUT: Final = 60
"""Columns below which a text is not cut to fit beside the others: a line of its own below has more room."""


def printable(text: str) -> str:
    """The text with line ends and other white space as blanks, and unprintable characters written as escapes.

    The author of a message must not move the cursor, change colours or turn the direction of the reader's text.
    """
    return "".join(map(_printable_character, text))


def _printable_character(char: str) -> str:
    if char.isprintable():
        return char
    if char.isspace():
        return " "
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8 (surrogateescape)
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def csv_cell(text: str) -> str:
    """The text as a cell of a CSV file: printable, and no formula to the spreadsheet that opens it.

    A cell that begins with one of these signs is computed, and may fetch or send something; an apostrophe before it
    makes it text (OWASP, "CSV Injection"). Blanks before the sign do not protect.
    """
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else shown  # noqa: RUF001  their wide forms count too


class Column(NamedTuple):
    """A column of a table. `fit` says what happens to a text that is too long for the terminal.

    `whole`: never broken or cut (addresses, references, dates); `cut`: cut, with an ellipsis; `wrap`: wrapped by words.
    """

    heading: str
    fit: Literal["whole", "cut", "wrap"] = "whole"
    right: bool = False


class Table(NamedTuple):
    """Rows of text. On a narrow terminal the first `head` columns stay side by side; the others go below them."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    head: int

    def lines(self, width: int | None) -> tuple[list[str], list[str]]:
        """The heading's lines and the rows', for a terminal of so many columns; tab-separated where `width` is None."""
        headings = [column.heading for column in self.columns]
        rows = [[printable(cell) for cell in row] for row in self.rows]
        if width is None:
            return ["\t".join(headings)], ["\t".join(row) for row in rows]
        widths = [max(map(_cells, cells)) for cells in zip(headings, *rows, strict=True)]
        if (fitted := self._on_one_line(widths, width)) is not None:
            return [self._line(headings, fitted)], [self._line(row, fitted) for row in rows]
        heading = [self._line(headings[: self.head], widths), INDENT + GAP.join(headings[self.head :])]
        lines = []
        for row in rows:
            lines.append(self._line(row[: self.head], widths))
            lines += [INDENT + line for line in self._below(row, width - len(INDENT))]
        return heading, lines

    def _on_one_line(self, widths: Sequence[int], width: int) -> list[int] | None:
        """The columns' widths where a row fits on one line, its texts cut as far as they may be; else None."""
        fitted = list(widths)
        excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
        for place, column in enumerate(self.columns):
            if column.fit == "cut" and excess > 0:
                spare = min(excess, max(0, fitted[place] - MIN_CUT))
                fitted[place] -= spare
                excess -= spare
        return fitted if excess <= 0 else None

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = (_padded(cut(cell, width), width, column.right) for cell, width, column in self._with(cells, widths))
        return GAP.join(padded).rstrip()

    def _with(self, cells: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, int, Column]]:
        return zip(cells, widths, self.columns, strict=False)

    def _below(self, row: Sequence[str], width: int) -> Iterator[str]:
        """The cells below the first line: as many on a line as fit."""
        line = ""
        for cell, column in zip(row[self.head :], self.columns[self.head :], strict=True):
            if not cell:
                continue
            start = f"{line}{GAP}" if line else ""
            room = width - _cells(start)
            if _cells(cell) <= room:
                line = start + cell
            else:
                if line:
                    yield line
                *full, line = [cut(cell, width)] if column.fit == "cut" else wrapped(cell, width)
                yield from full
        if line:
            yield line


class Fact(NamedTuple):
    """A label and its texts, each on a line of its own; `style` is rich's, for a terminal."""

    label: str
    texts: Sequence[str]
    style: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """The streams of a command, and whether it writes JSON for a program. Without `typed` it asks nothing."""

    out: TextIO
    err: TextIO
    json: bool = False
    typed: TextIO | None = None

    def __post_init__(self) -> None:
        """Escape characters that the terminal cannot encode: an encoding error must not end a command halfway."""
        for stream in (self.out, self.err):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    @property
    def width(self) -> int | None:
        """The width of the terminal; None if `out` is not a terminal."""
        return terminal_width(self.out)

    @property
    def may_ask(self) -> bool:
        """Whether a person is there to answer a question."""
        return self.typed is not None and self.typed.isatty() and self.err.isatty()

    def ask(self, question: str) -> str:
        """Write a question to standard error, and return the answer in small letters."""
        assert self.typed is not None
        self.err.write(question)
        self.err.flush()
        return self.typed.readline().strip().casefold()

    def line(self, text: str, style: str = "", label: str = "") -> None:
        """Write a line as it is. On a terminal the text, and not its label, has rich's `style`."""
        if not style or self.width is None:
            self.out.write(f"{label}{text}\n")
            return
        from rich.text import Text

        console(self.out).print(Text(label) + Text(text, style), soft_wrap=True)

    def error(self, text: str) -> None:
        """Write an error to standard error. On a terminal long lines are wrapped, but not those quoted from a file."""
        width = terminal_width(self.err)
        for line in text.splitlines():
            start = line[: len(line) - len(line.lstrip())]
            is_whole = width is None or _cells(line) <= width or re.match(r" +[0-9]+ \| ", line)
            texts = [line[len(start) :]] if is_whole or width is None else wrapped(line, width - len(start))
            self.err.write("".join(f"{start}{each}\n" for each in texts))

    def text(self, text: str) -> None:
        """Write a sentence, wrapped at the terminal's width."""
        for line in [text] if self.width is None else wrapped(text, self.width):
            self.line(line)

    def table(self, table: Table) -> None:
        """Write a table; on a terminal its heading is bold."""
        heading, lines = table.lines(self.width)
        for line in heading:
            self.line(line, "bold")
        for line in lines:
            self.line(line)

    def facts(self, facts: Iterable[Fact]) -> None:
        """Write labelled texts, those without a text left out: wrapped at the terminal's width, or `label TAB text`."""
        shown = [fact for fact in facts if fact.texts]
        width = self.width
        indent = max((_cells(fact.label) for fact in shown), default=0) + len(GAP)
        for fact in shown:
            texts = [printable(text) for text in fact.texts]
            if width is None:
                for text in texts:
                    self.line(f"{fact.label}\t{text}")
                continue
            lines = [line for text in texts for line in wrapped(text, width - indent)]
            for label, line in zip((fact.label, *[""] * (len(lines) - 1)), lines, strict=True):
                self.line(line, fact.style, _padded(label, indent, right=False))


def terminal_width(stream: TextIO) -> int | None:
    """The width of the terminal that a stream leads to (COLUMNS overrides it); None if it leads to none."""
    if not stream.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError):  # not a real terminal
        return DEFAULT_WIDTH


def console(stream: TextIO) -> RichConsole:
    """rich's console on a stream, without markup, emoji and number highlighting."""
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of so many columns, broken between words only; a text without blanks (CJK) also within one.

    A word longer than the line stays whole, so that an address can be copied from the terminal.
    """
    lines, line = [], ""
    for word in _words(text, width):
        if line and _cells(line) + 1 + _cells(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def cut(text: str, width: int) -> str:
    """The text, or as much of its beginning as so many columns hold, with an ellipsis."""
    from rich.cells import set_cell_size

    return text if _cells(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


@contextmanager
def progress(count: int, stream: TextIO) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, if there is more than one thing to do; the caller calls the result for each."""
    if not stream.isatty() or count < 2:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stream), transient=True) as bar:
        task = bar.add_task("", total=count)
        yield lambda: bar.advance(task)


def _words(text: str, width: int) -> Iterator[str]:
    from rich.cells import chop_cells

    for word in text.split():
        has_wide = _cells(word) > len(word)
        yield from chop_cells(word, width) if has_wide and "@" not in word and _cells(word) > width else [word]


def _cells(text: str) -> int:
    """Columns that the text takes on a terminal: two for a CJK character."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _padded(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - _cells(text))
    return blanks + text if right else text + blanks
