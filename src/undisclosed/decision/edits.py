"""Header edits as data, and the header after them. The milter, `explain`, the steward and the tests apply these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from undisclosed.decision.message import Field, key_of


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """A new value for one field."""

    name: str
    index: int
    """The position among the fields with this name, from 1. The comparison of names ignores case."""
    value: str
    """ASCII, folded with a line feed and a blank, without carriage returns; never empty."""


@dataclass(frozen=True, slots=True)
class HeaderDeletion:
    """The removal of one field. Later fields with this name move up by one."""

    name: str
    index: int


@dataclass(frozen=True, slots=True)
class HeaderInsertion:
    """A new field after the last one."""

    name: str
    value: str


Edit = HeaderChange | HeaderDeletion | HeaderInsertion


def apply(fields: Sequence[Field], edits: Iterable[Edit]) -> tuple[Field, ...]:
    """The header after these edits, by the rules of libmilter and Postfix (cleanup_milter.c).

    The comparison of names ignores case. The index counts from 1 the fields with this name that exist at that moment; a
    change past the last one adds a field at the end, a deletion there does nothing. An empty value deletes.
    """
    result: list[Field | None] = list(fields)
    places: dict[str, list[int]] = {}
    for place, field in enumerate(fields):
        places.setdefault(key_of(field.name), []).append(place)
    for edit in edits:
        same_name = places.setdefault(key_of(edit.name), [])
        if isinstance(edit, HeaderInsertion):
            same_name.append(len(result))
            result.append(Field(edit.name, edit.value))
            continue
        index = max(edit.index, 1) - 1
        if isinstance(edit, HeaderDeletion) or not edit.value:
            if index < len(same_name):
                result[same_name.pop(index)] = None
        elif index < len(same_name):
            result[same_name[index]] = Field(edit.name, edit.value)
        else:
            same_name.append(len(result))
            result.append(Field(edit.name, edit.value))
    return tuple(field for field in result if field is not None)
