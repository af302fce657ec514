"""Tables in a document between two markers, so that a command can replace them and leave the text around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: the first column to the left, figures to the right."""
    lines = [list(columns), [":--", *["--:"] * (len(columns) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(document: Path, name: str, content: str) -> None:
    """Put `content` between the markers of that name. Raises ValueError if the document does not have them."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    before, found, rest = document.read_text().partition(begin)
    _, also, after = rest.partition(end)
    if not (found and also):
        raise ValueError(f"{document} has no markers {begin} … {end}")
    document.write_text(f"{before}{begin}\n{content}\n{end}{after}")
