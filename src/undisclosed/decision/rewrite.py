"""Hiding the recipients of a message: the header edits, or the reason why a rewrite is not safe.

An edited field is composed from the addresses that stay, in ASCII: no text of the old value is kept. `Unsafe` is
raised for an obstacle (`obstacles.py`), and if the result of the edits, read again, still shows an outside address.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from undisclosed.addresses import Address, Mailbox, addresses, domains
from undisclosed.addresses.crosscheck import candidates
from undisclosed.decision import field_text
from undisclosed.decision.body_scan import BodySearch
from undisclosed.decision.edits import Edit, HeaderChange, HeaderDeletion, HeaderInsertion, apply
from undisclosed.decision.exposure import expose, is_rerouted
from undisclosed.decision.message import Field, Message, key_of
from undisclosed.decision.obstacles import AUTHORS, Key, Obstacle, broken_by, header_obstacle, is_composite
from undisclosed.policy import Policy, Standing

EMPTY_GROUP: Final = "undisclosed-recipients:;"

BCC_FIELDS: Final = frozenset({"bcc", "resent-bcc"})
"""Fields that are always deleted: a relay that does not strip them shows them to all recipients."""

MAX_EDITS: Final = 1000
"""Postfix searches each edited field from the top of the header: many thousand edits would take minutes."""

MAX_VALUE: Final = 60_000
"""Bytes of an edited value. Postfix cuts longer fields when it reads them; libmilter accepts 65,535."""

STILL_VISIBLE: Final = Obstacle("an outside address would still be visible")


class Unsafe(Exception):
    """It is not certain that the recipients can be hidden."""

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle.text)
        self.obstacle = obstacle


@dataclass(frozen=True, slots=True)
class _LocatedField:
    """A header field with its position for an edit."""

    name: str
    key: str
    index: int
    value: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The way in which the recipients of a message are hidden."""

    edits: tuple[Edit, ...]
    """The header edits, in the order in which they are applied."""
    body: BodySearch | None
    """The search for what the body must not contain. None if nothing has to be hidden."""


def plan(policy: Policy, message: Message, *, rule: str = "", split: bool = False) -> Plan:
    """The plan for a message whose header has no obstacle; that of its body is still to be searched for.

    The milter, `explain` and the steward ask here, for `rewrite` and `delay`, and with `split` for `split`: then To
    changes too, in the message for each recipient. `rule`: the name of the rule that acted, empty for none; it says
    how many hidden addresses a text may show. Raises Unsafe with the obstacle.
    """
    edits = hide(policy, message)
    edited = {edit.name for edit in edits} | ({"To"} if split else set())
    if not edited:
        return Plan(edits, None)
    removed = signature_deletions(policy, message, edited)
    names = tuple(dict.fromkeys(edit.name for edit in (*removed, *reversed(edits)))) + (("To",) if split else ())
    rest = replace(message, fields=apply(message.fields, removed)) if removed else message
    hidden = _hidden(policy, message)
    authors = {name: _keys(message, name) for name in AUTHORS}
    outside = hidden - authors["from"] - authors["sender"]
    may_show = policy.may_show(rule)
    if found := header_obstacle(rest, tuple(dict.fromkeys(names)), outside, may_show=may_show):
        raise Unsafe(found)
    for name, keys in authors.items():
        if len(keys & hidden) > 1:
            # Several hidden addresses in an author field: it repeats the list.
            raise Unsafe(Obstacle(f"{name.title()} repeats the recipients"))
    return Plan((*edits, *removed), _body_search(policy, message, outside, may_show))


def obstacle(policy: Policy, message: Message, body: Iterable[bytes], *, rule: str = "") -> Obstacle | None:
    """The obstacle for which one of the hidden forms, bcc or split, would be refused; None if both are possible."""
    try:
        plan(policy, message, rule=rule)
        search = plan(policy, message, rule=rule, split=True).body  # the one of bcc is the same, or there is none
    except Unsafe as unsafe:
        return unsafe.obstacle
    return None if search is None else search.obstacle(body)


def signature_deletions(policy: Policy, message: Message, edited: Collection[str]) -> list[HeaderDeletion]:
    """The deletions of the organisation's own DKIM signatures that these edits break, in the order of their use.

    They are no obstacle: the milters behind this one, and those of the release listener, sign anew.
    """
    found = (field for field in message.fields if key_of(field.name) == DKIM)
    deletions = [
        HeaderDeletion(field.name, index)
        for index, field in enumerate(found, 1)
        if _is_ours(policy, field.value) and broken_by(field.value, edited)
    ]
    return deletions[::-1]


DKIM: Final = "dkim-signature"
"""The field of a DKIM signature, as `key_of` spells it."""

_DOMAIN: Final = re.compile(r"(?:^|;)\s*d\s*=\s*([^;\s]+)\s*(?:;|$)")


def _is_ours(policy: Policy, signature: str) -> bool:
    """Whether a DKIM signature is the organisation's, by its d= tag (RFC 6376, section 3.5)."""
    found = _DOMAIN.search(signature)
    return found is not None and policy.standing(domains.to_ascii(found[1])) is Standing.INTERNAL


def _body_search(policy: Policy, message: Message, hidden: frozenset[Key], may_show: int) -> BodySearch:
    """The search of the body for the addresses that count. Internal ones and partners' are in many signatures."""
    return BodySearch(
        hidden=frozenset(key for key in hidden if _counts(policy, *key)),
        may_show=may_show,
        has_parts=any(is_composite(value.lower()) for value in message.values("content-type")),
        is_base64=any("base64" in value.lower() for value in message.values("content-transfer-encoding")),
    )


def _counts(policy: Policy, local: str, domain: str) -> bool:
    """Whether an address counts as external."""
    return is_rerouted(local) or policy.standing(domain) is Standing.EXTERNAL


def hide(policy: Policy, message: Message) -> tuple[Edit, ...]:
    """The edits that remove every external and partner address from the recipient fields, and leave exactly one To.

    They are in the order in which to apply them: last field first, so that the indices stay valid. A second call on the
    result returns no edits. Raises Unsafe if the edited header would still show an address that is to be hidden, or if
    an address that stays cannot be written in ASCII.
    """
    own = _keys(message, "from")
    tos: list[_LocatedField] = []
    edits: list[Edit] = []
    for field in reversed(_located(policy, message.fields)):
        if field.key in BCC_FIELDS:
            edits.append(HeaderDeletion(field.name, field.index))
        elif field.key == "to":
            tos.insert(0, field)
        elif not _is_clean(policy, message, field, own):
            edits.append(_edit(field, _render(field.name, _kept(policy, message, field, own))))
    edits += _hide_to(policy, message, tos)
    if len(edits) > MAX_EDITS:
        raise Unsafe(Obstacle("more recipient fields than can be edited"))
    _verify(policy, message.fields, edits, own)
    return tuple(edits)


def _located(policy: Policy, fields: Sequence[Field]) -> list[_LocatedField]:
    """The fields that may have to be edited: the counted ones, To, Bcc and Resent-Bcc."""
    concerned = policy.counted_fields | BCC_FIELDS | {"to"}
    seen: dict[str, int] = {}
    located = []
    for name, value in fields:
        key = key_of(name)
        if key in concerned:
            if key != name.lower():
                # Postfix strips blanks before the colon and ends the header at a name with 8-bit bytes. Another MTA
                # may not find such a field by its plain name, and would edit the wrong one.
                raise Unsafe(Obstacle(f"the name of a {key.title()} field is irregular"))
            seen[key] = seen.get(key, 0) + 1
            located.append(_LocatedField(name, key, seen[key], value))
    return located


def _hide_to(policy: Policy, message: Message, fields: list[_LocatedField]) -> list[Edit]:
    """The edits that leave one To, with all addresses that may stay, or else the value that the policy names."""
    if not fields:
        return [HeaderInsertion("To", _replacement_to(policy, message))]
    if "to" not in policy.counted_fields:
        return []
    first, *rest = fields
    edits: list[Edit] = [HeaderDeletion(field.name, field.index) for field in reversed(rest)]
    more = [box for field in rest for box in _kept(policy, message, field)]
    if first.value.strip() and _is_clean(policy, message, first):
        present = {address.key for address in message.addresses(first.value)}
        if all(box.address.key in present for box in more):
            return edits
    kept: dict[Key, Mailbox] = {}
    for box in (*_kept(policy, message, first), *more):
        kept.setdefault(box.address.key, box)
    value = _render(first.name, kept.values()) or _replacement_to(policy, message)
    if value != first.value:
        edits.append(HeaderChange(first.name, first.index, value))
    return edits


def _replacement_to(policy: Policy, message: Message) -> str:
    """The value of To if no address may stay: some relays add all recipients to a message without To."""
    if policy.rewrite.to != "{from}":
        return policy.rewrite.to
    for value in message.values("from"):
        for box in message.mailboxes(value):
            if policy.standing(box.address.domain) is Standing.INTERNAL and field_text.is_writable(box.address):
                return _render("To", [box])
    return EMPTY_GROUP


def _edit(field: _LocatedField, value: str) -> Edit:
    return HeaderChange(field.name, field.index, value) if value else HeaderDeletion(field.name, field.index)


def _stays(policy: Policy, key: str, address: Address, own: frozenset[Key]) -> bool:
    """Whether an address may stay in a field. The author's own address in Reply-To may."""
    if key == "reply-to" and address.key in own:
        return True
    return policy.rewrite.keep_internal and policy.standing(address.domain) is Standing.INTERNAL


def _is_clean(policy: Policy, message: Message, field: _LocatedField, own: frozenset[Key] = frozenset()) -> bool:
    """Whether a field may stay unchanged."""
    return all(
        _stays(policy, field.key, address, own) for address in message.addresses(field.value)
    ) and not _shows_outsider(policy, field.key, field.value, own)


def _shows_outsider(policy: Policy, key: str, value: str, own: frozenset[Key]) -> bool:
    """Whether the second reader (crosscheck.py) finds an address outside the organisation in a value."""
    exempt = own if key == "reply-to" else frozenset()
    exempt_domains = {domain for _, domain in exempt}
    return any(
        policy.standing(candidate.domain) is not Standing.INTERNAL
        and candidate not in exempt
        and (candidate.local or candidate.domain not in exempt_domains)
        for candidate in candidates(value)
    )


def _kept(policy: Policy, message: Message, field: _LocatedField, own: frozenset[Key] = frozenset()) -> list[Mailbox]:
    """The mailboxes of a field that may stay and can be written. Raises Unsafe for one that needs SMTPUTF8."""
    if not any(_stays(policy, field.key, address, own) for address in message.addresses(field.value)):
        return []  # most lists are all external, and parsing mailboxes is expensive
    kept: dict[Key, Mailbox] = {}
    for box in message.mailboxes(field.value):
        if not _stays(policy, field.key, box.address, own):
            continue
        if not box.address.text.isascii():
            raise Unsafe(Obstacle(f"an address that stays in {field.key.title()} is not ASCII"))
        if field_text.is_writable(box.address):
            kept.setdefault(box.address.key, box)
    return list(kept.values())


def _render(field: str, boxes: Iterable[Mailbox]) -> str:
    boxes = list(boxes)
    value = field_text.value(field, boxes)
    if len(value) > MAX_VALUE:
        value = field_text.value(field, [box._replace(name="") for box in boxes])
    if len(value) > MAX_VALUE:
        raise Unsafe(Obstacle("the internal addresses that stay do not fit into one field"))
    return value


def _hidden(policy: Policy, message: Message) -> frozenset[Key]:
    """The hidden addresses and the outside recipients: no other field should show them."""
    shown = [value for name in policy.counted_fields | BCC_FIELDS for value in message.values(name)]
    seen = [address for value in shown for address in message.addresses(value)]
    seen += [address for recipient in message.recipients for address in addresses(recipient)]
    return frozenset(address.key for address in seen if not _stays(policy, "", address, frozenset()))


def _keys(message: Message, name: str) -> frozenset[Key]:
    """The keys of all addresses in the fields with a name."""
    return frozenset(address.key for value in message.values(name) for address in message.addresses(value))


def _verify(policy: Policy, fields: Sequence[Field], edits: Sequence[Edit], own: frozenset[Key]) -> None:
    """Read the result again with two independent readers, and check its form. Raises Unsafe."""
    after = apply(fields, edits)
    left = expose(policy, after)  # not by message.addresses: read again, independent of the plan
    if left.external or left.partner:
        raise Unsafe(STILL_VISIBLE)
    counted, names = policy.counted_fields, [key_of(name) for name, _ in after]
    seen = ((name, value) for name, (_, value) in zip(names, after, strict=True) if name in counted)
    if any(_shows_outsider(policy, name, value, own) for name, value in seen):
        raise Unsafe(Obstacle("an outside address might still be visible"))
    if not BCC_FIELDS.isdisjoint(names) or ("to" in counted and names.count("to") != 1):
        raise Unsafe(Obstacle("the edited header would not have exactly one To and no Bcc"))
    for edit in edits:
        if not isinstance(edit, HeaderDeletion) and not _WRITTEN.fullmatch(edit.value):
            raise Unsafe(Obstacle("an edited field cannot be written"))


_WRITTEN: Final = re.compile(r"[ -~]{1,998}(?:\n [ -~]{1,997})*")
