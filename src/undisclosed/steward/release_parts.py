"""The parts of a release: the messages that are sent in place of a held one, as values.

The modes: `unchanged` sends the message as it is, byte by byte. `bcc` sends it with the recipients hidden, as a rewrite
hides them. `split` sends each external recipient a part of their own that shows their own address only; all internal
recipients share a part that shows no external address. Only the edited header fields change; all other bytes stay. A
message that Postfix redirects has one part in any mode, to the address that Postfix delivers it to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

from undisclosed.addresses import Mailbox, addresses
from undisclosed.decision import field_text, rewrite
from undisclosed.decision.edits import Edit, HeaderChange, HeaderDeletion, apply
from undisclosed.decision.exposure import expose
from undisclosed.decision.header_bytes import as_field, split
from undisclosed.decision.message import Field, Message, key_of
from undisclosed.decision.obstacles import Obstacle
from undisclosed.decision.queue_file import QueuedMessage, Recipient
from undisclosed.incidents.records import AcceptedPart, ReleaseMode, parts_for, places_served
from undisclosed.policy import Policy

HEADER_LIMIT: Final = 2 * 1024 * 1024
"""Bytes of a header that are read: more than of one that the milter decides on."""

LONG_HEADER: Final = Obstacle("its header is larger than 2 MiB")

CHUNK: Final = 64 * 1024
"""Bytes of a body that are in memory at once."""


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """A held message, read once. Its text stays in its file, and only the header is in memory."""

    queued: QueuedMessage
    message: Message
    """The message as the milter saw it, except for recipients that Postfix has rewritten since."""
    lines: tuple[bytes, ...]
    """The bytes of each field of the message."""
    body: bytes | memoryview
    """Everything after the header."""
    is_whole_header: bool
    """Whether all fields were read; otherwise the body begins with the other ones."""

    @classmethod
    def read(cls, queued: QueuedMessage) -> Self:
        """Read the content of a queue file."""
        raw = split(bytes(queued.content[:HEADER_LIMIT]))
        length = sum(len(line) for _, _, line in raw.fields)
        recipients = tuple(recipient.address for recipient in queued.recipients)
        fields = tuple(as_field(name, value) for name, value, _ in raw.fields)
        message = Message(queued.sender, recipients, fields, queued.client, queued.queue_id)
        lines = tuple(line for _, _, line in raw.fields)
        is_whole = len(queued.content) <= HEADER_LIMIT or b"\n" in raw.rest  # a cut line can look like the header's end
        return cls(queued, message, lines, queued.content[length:], is_whole)


@dataclass(frozen=True, slots=True)
class ReleasePart:
    """One message to send, and its recipients."""

    records: tuple[AcceptedPart, ...]
    """The records of the journal about it, once Postfix has accepted it."""
    recipients: tuple[Recipient, ...]
    header: bytes
    body: bytes | memoryview
    """A range of the held message, which all its parts share."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the message, some at a time."""
        yield self.header
        yield from chunks(self.body)


def chunks(text: bytes | memoryview) -> Iterator[bytes]:
    """A text, some bytes at a time."""
    return (bytes(text[start : start + CHUNK]) for start in range(0, len(text), CHUNK))


def parts(
    policy: Policy, held: HeldMessage, mode: ReleaseMode, accepted: Collection[AcceptedPart] = (), *, rule: str = ""
) -> Iterator[ReleasePart]:
    """The parts that are still to be sent, one by one: none for recipients of a part that was `accepted` before.

    `rule` is that of `rewrite.plan`. Raises rewrite.Unsafe with the reason, before the first part, if the message must
    not be rewritten.
    """
    queued = held.queued
    served = places_served(accepted)
    left = {place: recipient for place, recipient in enumerate(queued.recipients) if place not in served}
    if not left:
        return iter(())
    if mode == "unchanged":
        return iter((_part(queued, mode, left, b"", queued.content),))
    is_split = mode == "split" and queued.redirect_to is None
    hidden = _Hidden(policy, held, rule, split=is_split)
    if not is_split:
        return iter((_part(queued, mode, left, hidden.header, held.body),))
    return _split(policy, held, hidden, left)


def _part(
    queued: QueuedMessage, mode: ReleaseMode, chosen: Iterable[int], header: bytes, body: bytes | memoryview
) -> ReleasePart:
    numbers = sorted(chosen)
    records = parts_for(mode, numbers, len(queued.recipients))
    recipients = [queued.recipients[number] for number in numbers]
    if queued.redirect_to is not None:
        # As qmgr_message.c does it: the first recipient with another address, and no further one.
        recipients = [replace(recipients[0], address=queued.redirect_to)]
    return ReleasePart(records, tuple(recipients), header, body)


def why_not_hidden(policy: Policy, held: HeldMessage, rule: str) -> Obstacle | None:
    """The obstacle for which a release as bcc or split would be refused; None if there is none."""
    if not held.is_whole_header:
        return LONG_HEADER
    return rewrite.obstacle(policy, held.message, chunks(held.body), rule=rule)


# -- the modes ---------------------------------------------------------------------------------------------------------


class _Hidden:
    """The headers of a message with its recipients hidden. Raises rewrite.Unsafe if they cannot or must not be."""

    def __init__(self, policy: Policy, held: HeldMessage, rule: str, *, split: bool) -> None:
        if not held.is_whole_header:
            raise rewrite.Unsafe(LONG_HEADER)
        self._policy = policy
        self._message = held.message
        self._bytes = {id(field): line for field, line in zip(held.message.fields, held.lines, strict=True)}
        plan = rewrite.plan(policy, held.message, rule=rule, split=split)
        if plan.body is not None and (obstacle := plan.body.obstacle(chunks(held.body))):
            raise rewrite.Unsafe(obstacle)
        self._edits = plan.edits
        self.header = self._written(self._edits)

    def for_one(self, recipient: Recipient) -> bytes:
        """The header for one external recipient, with their address in To, if it can be written there."""
        box = self._box(recipient)
        if box is None or not field_text.is_writable(box.address):
            return self.header
        edits: list[Edit] = [edit for edit in self._edits if key_of(edit.name) not in ("to", rewrite.DKIM)]
        count = len(self._message.values("to"))
        edits += [HeaderDeletion("To", index) for index in range(count, 1, -1)]
        edits.append(HeaderChange("To", 1, field_text.value("To", [box])))
        edits += rewrite.signature_deletions(self._policy, self._message, {edit.name for edit in edits})
        shown = expose(self._policy, apply(self._message.fields, edits))  # read again: independent of the plan
        if any(address.key != box.address.key for address in (*shown.external, *shown.partner)):
            raise rewrite.Unsafe(rewrite.STILL_VISIBLE)
        return self._written(edits)

    def _box(self, recipient: Recipient) -> Mailbox | None:
        """The recipient's mailbox, with the name from the header if it has one; None if it is not one address."""
        found = addresses(recipient.address)
        if len(found) != 1 or found[0].text != recipient.address:
            return None
        return self._named.get(found[0].key, Mailbox("", found[0]))

    @cached_property
    def _named(self) -> dict[tuple[str, str], Mailbox]:
        """All mailboxes in the recipient fields, by address."""
        counted = self._policy.counted_fields
        values = [value for name, value in self._message.fields if key_of(name) in counted]
        return {box.address.key: box for value in reversed(values) for box in reversed(self._message.mailboxes(value))}

    def _written(self, edits: Sequence[Edit]) -> bytes:
        """The bytes of the header after these edits."""
        header = apply(self._message.fields, edits)
        return b"".join(self._bytes.get(id(field)) or _line(field) for field in header)


def _split(policy: Policy, held: HeldMessage, hidden: _Hidden, left: Mapping[int, Recipient]) -> Iterator[ReleasePart]:
    queued = held.queued
    outside: dict[str, list[int]] = {}
    inside = []
    for place, recipient in left.items():
        if recipient.automatic or policy.is_internal(recipient.address):
            inside.append(place)  # an archive or a colleague: they need no part of their own
        else:
            outside.setdefault(recipient.address, []).append(place)
    for numbers in outside.values():
        # Try all before the first is sent: a message must not be refused when it is half released.
        hidden.for_one(queued.recipients[numbers[0]])
    return _parts_of_split(held, hidden, inside, outside.values())


def _parts_of_split(
    held: HeldMessage, hidden: _Hidden, inside: list[int], outside: Iterable[list[int]]
) -> Iterator[ReleasePart]:
    queued, body = held.queued, held.body
    if inside:
        yield _part(queued, "split", inside, hidden.header, body)
    for numbers in outside:
        yield _part(queued, "split", numbers, hidden.for_one(queued.recipients[numbers[0]]), body)


# -- the header's bytes ------------------------------------------------------------------------------------------------


def _line(field: Field) -> bytes:
    return f"{field.name}: {field.value}\n".encode("ascii")
