"""A held message -> what is handed to Postfix instead of it: the parts of a release, as values.

Three ways. `unchanged`: as it is, byte by byte. `bcc`: the recipients hidden, as a rewrite hides them. `split`: each
recipient outside gets a copy of their own that shows their own address only; all inside share one that shows no address
outside. Edits are made on the message's own bytes: what is not edited leaves as it came.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from undisclosed.addresses import Mailbox, addresses, domains
from undisclosed.decision import field_text, rewrite
from undisclosed.decision.edits import Edit, HeaderChange, HeaderDeletion, apply
from undisclosed.decision.exposure import expose
from undisclosed.decision.header_bytes import RawMessage, as_field, split
from undisclosed.decision.message import Field, Message, key_of
from undisclosed.decision.obstacles import broken_by, header_obstacle
from undisclosed.decision.queue_file import QueuedMessage, Recipient
from undisclosed.incidents.records import AcceptedPart, ReleaseMode, parts_for, places_served
from undisclosed.policy import Policy, Standing


@dataclass(frozen=True, slots=True)
class Part:
    """One message to be handed over, and for whom."""

    parts: tuple[AcceptedPart, ...]
    """What the journal records of it once Postfix has accepted it."""
    recipients: tuple[Recipient, ...]
    content: bytes


def parts(
    policy: Policy, held: QueuedMessage, mode: ReleaseMode, taken: Collection[AcceptedPart] = ()
) -> Iterator[Part]:
    """What is left to be handed over, one by one: nothing for recipients whose part is among those `taken`.

    Raises rewrite.Unsafe, with the reason, before the first part, where the message must not be rewritten.
    """
    served = places_served(taken)
    left = {place: recipient for place, recipient in enumerate(held.recipients) if place not in served}
    if not left:
        return iter(())
    if mode == "unchanged":
        return iter((_part(held, mode, left, held.content),))
    hidden = _Hidden(policy, held)
    return iter((_part(held, mode, left, hidden.content),)) if mode == "bcc" else _split(policy, held, hidden, left)


def message(held: QueuedMessage) -> Message:
    """The message as the milter saw it, but for recipients that Postfix has rewritten since."""
    recipients = tuple(recipient.address for recipient in held.recipients)
    return Message(held.sender, recipients, _fields(split(held.content)), held.client, held.queue_id)


def body(held: QueuedMessage) -> bytes:
    """All that follows the header."""
    return split(held.content).rest


def _part(held: QueuedMessage, mode: ReleaseMode, chosen: Iterable[int], content: bytes) -> Part:
    numbers = sorted(chosen)
    parts = parts_for(mode, numbers, len(held.recipients))
    return Part(parts, tuple(held.recipients[number] for number in numbers), content)


# -- the ways ----------------------------------------------------------------------------------------------------------


class _Hidden:
    """The message with its recipients out of sight. Raises rewrite.Unsafe where that cannot or must not be done."""

    def __init__(self, policy: Policy, held: QueuedMessage) -> None:
        self._policy = policy
        raw = split(held.content)
        self._before, self._body = _fields(raw), raw.rest
        self._bytes = {id(field): line for field, (_, _, line) in zip(self._before, raw.fields, strict=True)}
        # What we have signed ourselves is signed anew on its way out: it must not stand against edits that break it.
        foreign = [field for field in self._before if not _is_our_signature(policy, field)]
        self._message = replace(message(held), fields=tuple(foreign))
        self._edits = rewrite.plan(policy, self._message)
        if self._edits:
            rewrite.check_body(self._message, self._body)
        self.content = self._written(self._edits)

    def for_one(self, recipient: Recipient) -> bytes:
        """The copy of one recipient outside, with their own address in To, if that can be written there."""
        box = self._box(recipient)
        if box is None or not field_text.is_writable(box.address):
            return self.content
        edits: list[Edit] = [edit for edit in self._edits if key_of(edit.name) != "to"]
        count = len(self._message.values("to"))
        edits += [HeaderDeletion("To", index) for index in range(count, 1, -1)]
        edits.append(HeaderChange("To", 1, field_text.value("To", [box])))
        if obstacle := header_obstacle(self._message, {edit.name for edit in edits}, frozenset()):
            raise rewrite.Unsafe(obstacle)
        if not self._edits:
            rewrite.check_body(self._message, self._body)
        shown = expose(self._policy, apply(self._message.fields, edits))
        if any(address.key != box.address.key for address in (*shown.external, *shown.partner)):
            raise rewrite.Unsafe(rewrite.STILL_VISIBLE)
        return self._written(edits)

    def _box(self, recipient: Recipient) -> Mailbox | None:
        """The recipient as the message names them, or as the envelope does; None where that is no address."""
        found = addresses(recipient.address)
        if len(found) != 1 or found[0].text != recipient.address:
            return None
        return self._named.get(found[0].key, Mailbox("", found[0]))

    @cached_property
    def _named(self) -> dict[tuple[str, str], Mailbox]:
        """Every mailbox that the recipient fields name, by its address."""
        counted = self._policy.counted_fields
        values = [value for name, value in self._message.fields if key_of(name) in counted]
        return {box.address.key: box for value in reversed(values) for box in reversed(self._message.mailboxes(value))}

    def _written(self, edits: Sequence[Edit]) -> bytes:
        """The message's bytes after these edits, without the signatures of ours that they break."""
        edited = {edit.name for edit in edits}
        ours = (field for field in self._before if _is_our_signature(self._policy, field))
        broken = {id(field) for field in ours if broken_by(field.value, edited)}
        kept = [field for field in self._before if id(field) not in broken]
        header = apply(kept, edits)
        return b"".join(self._bytes.get(id(field)) or _line(field) for field in header) + self._body


def _split(policy: Policy, held: QueuedMessage, hidden: _Hidden, left: Mapping[int, Recipient]) -> Iterator[Part]:
    outside: dict[str, list[int]] = {}
    inside = []
    for place, recipient in left.items():
        if recipient.automatic or policy.is_internal(recipient.address):
            inside.append(place)  # an archive or a colleague: there is no address to show to them alone
        else:
            outside.setdefault(recipient.address, []).append(place)
    for numbers in outside.values():
        # All are tried before the first is handed over: a message is not to be half released and then refused.
        hidden.for_one(held.recipients[numbers[0]])
    return _copies(held, hidden, inside, outside.values())


def _copies(held: QueuedMessage, hidden: _Hidden, inside: list[int], outside: Iterable[list[int]]) -> Iterator[Part]:
    if inside:
        yield _part(held, "split", inside, hidden.content)
    for numbers in outside:
        yield _part(held, "split", numbers, hidden.for_one(held.recipients[numbers[0]]))


# -- the header's bytes ------------------------------------------------------------------------------------------------


def _fields(raw: RawMessage) -> tuple[Field, ...]:
    return tuple(as_field(name, value) for name, value, _ in raw.fields)


def _line(field: Field) -> bytes:
    return f"{field.name}: {field.value}\n".encode("ascii")


_DOMAIN: Final = re.compile(r"(?:^|;)\s*d\s*=\s*([^;\s]+)\s*(?:;|$)")


def _is_our_signature(policy: Policy, field: Field) -> bool:
    """Whether a field is a DKIM signature of the organisation's own (the d= tag, RFC 6376, section 3.5)."""
    if key_of(field.name) != "dkim-signature":
        return False
    found = _DOMAIN.search(field.value)
    return found is not None and policy.standing(domains.to_ascii(found[1])) is Standing.INTERNAL
