"""A transaction on which a rule acted, as the journal is to have it: facts of the message, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from undisclosed.addresses import Address, mailboxes
from undisclosed.addresses.encoded_words import decoded
from undisclosed.decision.message import Message
from undisclosed.decision.rules import Decision
from undisclosed.incidents.records import Outcome, Transaction
from undisclosed.policy import Action, Mode, Policy

_OUTCOMES: Final[Mapping[Action, Outcome]] = {
    Action.WARN: "warn",
    Action.REWRITE: "rewrite",
    Action.SPLIT: "hold",
    Action.DELAY: "hold",
    Action.QUARANTINE: "hold",
    Action.REJECT: "reject",
}
"""What an action does to the message in enforce mode."""


def transaction_of(
    policy: Policy, message: Message, decision: Decision, *, reference: str, gateway: str, at: datetime
) -> Transaction:
    """What is to be recorded of a message on which a rule acted; `at` is UTC."""
    assert decision.rule is not None
    exposure = decision.exposure
    return Transaction(
        reference=reference,
        gateway=gateway,
        queue_id=message.queue_id,
        message_id=_first(message, "message-id"),
        sender=message.sender,
        client=message.client.address,
        login=message.client.login,
        rule=decision.rule,
        action=decision.action,
        outcome="monitor" if policy.mode is Mode.MONITOR else _OUTCOMES[decision.action],
        reason=decision.reason,
        obstacle=decision.obstacle,
        per_field=dict(exposure.per_field or {}),
        count=exposure.count,
        organisations=exposure.organisations,
        named=_named(policy, message, exposure.external),
        visible=exposure.external,
        recipients=len(message.recipients),
        subject=_subject(message),
        automatic=is_automatic(message),
        at=at,
    )


def is_automatic(message: Message) -> bool:
    """Whether nobody is to be written to about a message: it is itself automatic, or comes from a list.

    RFC 3834 section 2 (the null sender, Auto-Submitted), RFC 2919 (List-Id), and the older Precedence.
    """
    submitted = (value.partition(";")[0].strip().casefold() for value in message.values("auto-submitted"))
    precedence = (value.strip().casefold() for value in message.values("precedence"))
    return (
        not message.sender
        or any(value != "no" for value in submitted)
        or any(value in ("bulk", "junk", "list") for value in precedence)
        or bool(message.values("list-id"))
    )


def _named(policy: Policy, message: Message, external: tuple[Address, ...]) -> int:
    """How many of the visible external addresses carry a person's name in one of the counted fields."""
    keys = {address.key for address in external}
    named = {
        box.address.key
        for field in policy.counted_fields
        for value in message.values(field)
        for box in mailboxes(value)
        if box.name.strip() and box.name.strip().casefold() != box.address.text.casefold()
    }
    return len(keys & named)


def _subject(message: Message) -> str | None:
    subject = _first(message, "subject")
    return None if subject is None else " ".join(decoded(subject).split())


def _first(message: Message, name: str) -> str | None:
    values = message.values(name)
    return (values[0].strip() or None) if values else None
