"""One message in one transaction: its envelope, its header fields, its client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from undisclosed.addresses import Address, Mailbox, addresses, mailboxes


class Field(NamedTuple):
    """One header field: its name, and its value as pymilter gives it.

    The value is UTF-8 decoded with surrogateescape, with its folds as line feed and blank, and no leading blank.
    """

    name: str
    value: str


def key_of(name: str) -> str:
    """The name of a field for comparisons: case-folded, without blanks around it."""
    return name.strip().casefold()


@dataclass(frozen=True, slots=True)
class Client:
    """The client that sent the message to Postfix."""

    address: str | None = None
    """The numeric address; None if Postfix did not know it."""
    port: int | None = None
    """0 if the message came through sendmail(1)."""
    login: str = ""
    """The SASL login name; empty if the client is not authenticated."""

    @property
    def is_sendmail(self) -> bool:
        """Whether the message came through sendmail(1), for which Postfix shows the milter port 0."""
        return self.port == 0


DOUBLE_BOUNCE: Final = "double-bounce"
"""The local part of Postfix's `double_bounce_sender`: a bounce to it is discarded, as one to the null sender is."""


def bounce_is_lost(sender: str, client: Client) -> bool:
    """Whether a refusal of this message would be told to nobody.

    sendmail(1) has ended with status 0 before the milter is asked: Postfix makes a bounce of the refusal, and discards
    the bounce if the envelope sender is null. An SMTP client gets every refusal itself.
    """
    return client.is_sendmail and (not sender or sender.partition("@")[0].casefold() == DOUBLE_BOUNCE)


@dataclass(frozen=True)
class Message:
    """One message in one transaction: the envelope, the header, the client. Addresses are without angle brackets."""

    sender: str
    """The envelope sender; empty for the null sender."""
    recipients: tuple[str, ...]
    fields: tuple[Field, ...]
    client: Client = Client()
    queue_id: str = ""
    _addresses: dict[str, list[Address]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _mailboxes: dict[str, list[Mailbox]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def values(self, name: str) -> Sequence[str]:
        """The values of all fields with this name (case-folded), in order."""
        return self._by_name.get(name, ())

    def first(self, name: str) -> str | None:
        """The first value of a field, without blanks around it; None if it is empty or missing."""
        values = self.values(name)
        return (values[0].strip() or None) if values else None

    @property
    def message_id(self) -> str | None:
        """The Message-ID, angle brackets included."""
        return self.first("message-id")

    def addresses(self, value: str) -> Sequence[Address]:
        """The addresses in the value of a field. Each value is read once, however many questions are asked of it."""
        known = self._addresses.get(value)
        if known is None:
            known = self._addresses[value] = addresses(value)
        return known

    def mailboxes(self, value: str) -> Sequence[Mailbox]:
        """The mailboxes in the value of a field, read once as well."""
        known = self._mailboxes.get(value)
        if known is None:
            known = self._mailboxes[value] = mailboxes(value)
        return known

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        by_name: dict[str, list[str]] = {}
        for name, value in self.fields:
            by_name.setdefault(key_of(name), []).append(value)
        return by_name
