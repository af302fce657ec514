"""Journals for tests: the key and the type of the fixture that makes them."""

from __future__ import annotations

from collections.abc import Callable

from undisclosed.journal.journal import Journal

KEY = b"0123456789abcdef0123456789abcdef"

MakeJournal = Callable[..., Journal]
"""`make(key=KEY, **settings)`: a Journal in the test's database, whose tables are there already."""
