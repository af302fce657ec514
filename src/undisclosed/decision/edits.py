"""Header edits as data, and the header after them. The milter, `explain`, the steward and the tests apply these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from undisclosed.decision.message import Field, key_of


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """Give one field a new value."""

    name: str
    index: int
    """Which of the fields of that name, from 1; names are compared without regard to case."""
    value: str
    """ASCII, folded with a line feed and a blank, without carriage returns; never empty."""


@dataclass(frozen=True, slots=True)
class HeaderDeletion:
    """Take one field out. Later fields of that name move up by one."""

    name: str
    index: int


@dataclass(frozen=True, slots=True)
class HeaderInsertion:
    """Add a field after the last one."""

    name: str
    value: str


Edit = HeaderChange | HeaderDeletion | HeaderInsertion


def apply(fields: Sequence[Field], edits: Iterable[Edit]) -> tuple[Field, ...]:
    """The header after these edits, as libmilter and Postfix (cleanup_milter.c) make it.

    Names are compared without regard to case. The index counts the fields of that name from 1, and those that are
    there at that moment; one past the last adds a field at the end, or deletes nothing. An empty value deletes.
    """
    result: list[Field | None] = list(fields)
    places: dict[str, list[int]] = {}
    for place, field in enumerate(fields):
        places.setdefault(key_of(field.name), []).append(place)
    for edit in edits:
        here = places.setdefault(key_of(edit.name), [])
        if isinstance(edit, HeaderInsertion):
            here.append(len(result))
            result.append(Field(edit.name, edit.value))
            continue
        index = max(edit.index, 1) - 1
        if isinstance(edit, HeaderDeletion) or not edit.value:
            if index < len(here):
                result[here.pop(index)] = None
        elif index < len(here):
            result[here[index]] = Field(edit.name, edit.value)
        else:
            here.append(len(result))
            result.append(Field(edit.name, edit.value))
    return tuple(field for field in result if field is not None)
