"""docs/held-mail.md has every record of a queue file."""

from __future__ import annotations

import re

from support.paths import PROJECT
from undisclosed.decision.queue_records import RECIPIENT_ATTRIBUTES, RECORDS

PAGE = (PROJECT / "docs" / "held-mail.md").read_text()


def in_the_tables() -> list[str]:
    """The names in the first columns."""
    return [name for row in re.findall(r"(?m)^\| (`[^|]*) \|", PAGE) for name in re.findall(r"`([a-z_]+)`", row)]


def test_the_table_has_each_record_once() -> None:
    """A reader finds what becomes of each record that the parser accepts; attributes have a table of their own."""
    names = in_the_tables()
    assert len(names) == len(set(names))
    assert set(RECORDS) <= set(names)
    assert set(RECIPIENT_ATTRIBUTES) <= set(names)
