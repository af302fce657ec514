"""output.py: printable text, CSV cells, tables and labelled lines for any width."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from undisclosed.cli.output import Column, Fact, Output, Table, csv_cell, cut, printable, wrapped

ADDRESS = "the.headteachers.personal.assistant@admissions.a-very-long-school-name.council.example"
COLUMNS = (
    Column("reference"),
    Column("until"),
    Column("count", right=True),
    Column("sender"),
    Column("subject", "cut"),
)
ROWS = [
    ("K7QF-3M2D", "2026-03-01 14:30", "95", "clerk@council.example", "School admissions 2026"),
    ("8W2T-SM3V", "2026-03-02 09:05", "5", ADDRESS, "保護者の皆様へ 入学手続きのご案内 " * 8),
]


def lines_of(table: Table, width: int | None) -> list[str]:
    """All lines of a table."""
    heading, lines = table.lines(width)
    return heading + lines


class Terminal(io.StringIO):
    """A stream in memory that says it is a terminal; without a width it counts as 80 columns wide."""

    def isatty(self) -> bool:
        """True."""
        return True


@given(st.text())
def test_text_becomes_printable(text: str) -> None:
    """Any text becomes printable, and printable text stays as it is."""
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r@x", "\uff1d1"])
def test_no_csv_cell_is_a_formula(text: str) -> None:
    """Blanks before the sign make no difference, nor does its wide form."""
    assert csv_cell(text).startswith("'")


@pytest.mark.parametrize("text", ["School places", "a=b", "mail@council.test", ""])
def test_an_ordinary_csv_cell_stays_as_it_is(text: str) -> None:
    """Only text that a spreadsheet would compute gets an apostrophe."""
    assert csv_cell(text) == text


def test_without_a_terminal_a_row_is_one_line() -> None:
    """Tab-separated and unpadded, below the headings; no cell is cut."""
    lines = lines_of(Table(COLUMNS, ROWS, head=3), None)
    assert lines[0] == "reference\tuntil\tcount\tsender\tsubject"
    assert lines[1] == "K7QF-3M2D\t2026-03-01 14:30\t95\tclerk@council.example\tSchool admissions 2026"
    assert [line.count("\t") for line in lines] == [4, 4, 4]
    assert lines[2].endswith("\t" + ROWS[1][4])


@pytest.mark.parametrize("width", [80, 100, 132, 200, 400])
def test_a_table_fits_the_terminal(width: int) -> None:
    """No line is wider than the terminal but one that holds a longer address, and nothing but the subject is cut."""
    lines = lines_of(Table(COLUMNS, ROWS, head=3), width)
    assert all(cell_len(line) <= max(width, 4 + len(ADDRESS)) for line in lines)
    text = "\n".join(lines)
    for row in ROWS:
        assert all(cell in text for cell in row[:4])
    assert (ROWS[1][4].rstrip() in text) is (width == 400)


def test_a_narrow_terminal_has_two_lines_a_row() -> None:
    """The first columns stay side by side, the others follow below, indented, under headings of their own."""
    assert lines_of(Table(COLUMNS, ROWS[:1], head=3), 60) == [
        "reference  until             count",
        "    sender  subject",
        "K7QF-3M2D  2026-03-01 14:30     95",
        "    clerk@council.example  School admissions 2026",
    ]


def test_a_wide_terminal_shows_more() -> None:
    """The wider the terminal, the more of a subject is shown."""
    texts = ["\n".join(lines_of(Table(COLUMNS, ROWS, head=3), width)) for width in (80, 100, 132)]
    shown = [len(re.findall(r"[\u3040-\u9fff]", text)) for text in texts]
    assert shown == sorted(set(shown))


def test_a_reason_is_wrapped_and_never_cut() -> None:
    """A long reason continues on further lines."""
    why = "the message is signed, and a change would break the signature; " * 4
    columns = (Column("when"), Column("why", "wrap"))
    lines = lines_of(Table(columns, [("2026-03-01 14:30", why)], head=1), 80)
    assert " ".join(line.strip() for line in lines[3:]) == why.strip()
    assert max(map(len, lines)) <= 80


@given(st.text(alphabet="ab@é字 ", max_size=200), st.integers(2, 90))
def test_wrapping_keeps_every_character(text: str, width: int) -> None:
    """Only blanks are lost, no word with an @ is broken, and only such a word is wider than the line."""
    lines = wrapped(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    words = {word for line in lines for word in line.split()}
    assert {word for word in text.split() if "@" in word} <= words
    assert all(cell_len(line) <= width or line in text.split() for line in lines)


@given(st.text(alphabet="ab字", max_size=60), st.integers(2, 40))
def test_cutting_keeps_to_the_width(text: str, width: int) -> None:
    """A text is shown whole where it fits, else its beginning and an ellipsis."""
    shown = cut(text, width)
    assert cell_len(shown) <= width
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]))


def test_labelled_lines() -> None:
    """On a terminal aligned and wrapped, elsewhere `label TAB text`; a label without a text is left out."""
    facts = [Fact("sender", [ADDRESS]), Fact("note", []), Fact("reason", ["word " * 20, "second"])]
    terminal, pipe = Terminal(), io.StringIO()
    Output(terminal, terminal).facts(facts)
    Output(pipe, pipe).facts(facts)
    assert pipe.getvalue().splitlines() == [f"sender\t{ADDRESS}", "reason\t" + "word " * 20, "reason\tsecond"]
    lines = terminal.getvalue().splitlines()
    assert lines[0] == f"sender  {ADDRESS}"
    assert re.fullmatch(r"reason  (word ?)+", lines[1])
    assert lines[-1] == "        second"
    assert max(map(len, lines[1:])) <= 80
