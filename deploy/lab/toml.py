"""Writes a configuration as TOML: Python's library only reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

Scalar = str | int | bool
Table = Mapping[str, Scalar | Sequence[str]]
Document = Mapping[str, Scalar | Table | Sequence[Table]]
"""A configuration of this project: settings, sections and `[[rules]]`."""


def dumps(document: Document) -> str:
    """The document as TOML: settings first, then sections, in their order."""
    settings = [f"{key} = {_value(value)}" for key, value in document.items() if isinstance(value, Scalar)]
    sections: list[str] = []
    for key, value in document.items():
        if isinstance(value, Mapping):
            sections += ["", f"[{key}]", *_pairs(value)]
        elif not isinstance(value, Scalar):
            for table in value:
                sections += ["", f"[[{key}]]", *_pairs(table)]
    return "\n".join([*settings, *sections]) + "\n"


def _pairs(table: Table) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items()]


def _value(value: Scalar | Sequence[str]) -> str:
    # JSON's strings, numbers, booleans and flat lists are valid TOML.
    return json.dumps(value, ensure_ascii=False)
