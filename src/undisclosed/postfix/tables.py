"""Reads the text of Postfix's lookup tables, for the word HOLD in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_TEXT: Final = frozenset({"regexp", "pcre", "cidr", "texthash"})
"""Types whose table is its text."""

_INDEXED: Final = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "sdbm"})
"""Types whose table is made of the text beside it by postmap(1)."""

_INLINE: Final = frozenset({"inline", "static"})

MAX_TEXT: Final = 16 * 1024 * 1024
"""The largest table that is read."""


def read_tables(names: Iterable[str]) -> dict[str, str | None]:
    """The text of each table, named as `type:name`; None if it cannot be read, or is in no file (LDAP, SQL, ...)."""
    return {name: _read(name) for name in names}


def _read(table: str) -> str | None:
    kind, _, name = table.removeprefix("proxy:").partition(":")
    if kind in _INLINE or name.startswith("{"):  # pcre:{{/pattern/ HOLD}}, unionmap:{hash:/a, pcre:/b}
        inside = [_read(other) for other in re.findall(r"[a-z]+:/[^\s,{}]+", name)]
        return None if None in inside else "\n".join((name.replace("{", "\n{"), *filter(None, inside)))
    if kind not in _TEXT | _INDEXED:
        return None
    with suppress(OSError):
        path = Path(name)
        if path.stat().st_size <= MAX_TEXT:
            return path.read_text("utf-8", "replace")
    return None
