"""One message in one transaction: its envelope, its header fields, its client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Field(NamedTuple):
    """One header field: its name, and its value as pymilter gives it.

    The value is UTF-8 decoded with surrogateescape, with its folds as line feed and blank, and no leading blank.
    """

    name: str
    value: str


def key_of(name: str) -> str:
    """A field's name as names are compared: without regard to case, and to blanks around it."""
    return name.strip().casefold()


@dataclass(frozen=True, slots=True)
class Client:
    """Who handed the message to Postfix."""

    address: str | None = None
    """The numeric address; None where Postfix did not know it."""
    port: int | None = None
    """0 where the message came through sendmail(1)."""
    login: str = ""
    """The SASL login name; empty where the client is not authenticated."""


@dataclass(frozen=True)
class Message:
    """One message in one transaction: the envelope, the header, the client. Addresses are without angle brackets."""

    sender: str
    """The envelope sender; empty for the null sender."""
    recipients: tuple[str, ...]
    fields: tuple[Field, ...]
    client: Client = Client()
    queue_id: str = ""

    def values(self, name: str) -> Sequence[str]:
        """The values of every field of that name (case-folded), in order."""
        return self._by_name.get(name, ())

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        by_name: dict[str, list[str]] = {}
        for name, value in self.fields:
            by_name.setdefault(key_of(name), []).append(value)
        return by_name
