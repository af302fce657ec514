"""The record of a transaction on which a rule acted: facts of the message, and the decision."""

from __future__ import annotations

from datetime import datetime

from undisclosed.addresses import Address
from undisclosed.addresses.encoded_words import decoded
from undisclosed.decision.message import Message
from undisclosed.decision.reference import recipients_hash, reference
from undisclosed.decision.rules import Decision
from undisclosed.incidents.automatic import automatic
from undisclosed.incidents.records import Transaction
from undisclosed.policy import Mode, Policy, Standing


def transaction_of(
    policy: Policy, message: Message, decision: Decision, *, identity: str, key: bytes, gateway: str, at: datetime
) -> Transaction:
    """The record of a message on which a rule acted; `at` is UTC."""
    treatment = decision.action.effect.treatment
    assert decision.rule is not None
    assert treatment is not None
    exposure = decision.exposure
    return Transaction(
        reference=reference(identity),
        identity=identity,
        gateway=gateway,
        queue_id=message.queue_id,
        message_id=message.message_id,
        sender=message.sender,
        author=author_of(policy, message),
        client=message.client.address,
        login=message.client.login,
        rule=decision.rule,
        action=decision.action,
        treatment="monitor" if policy.mode is Mode.MONITOR else treatment,
        reason=decision.reason,
        obstacle=decision.obstacle.text if decision.obstacle else None,
        obstacle_kind=decision.obstacle.kind if decision.obstacle else None,
        per_field=dict(exposure.per_field),
        count=exposure.count,
        organisations=exposure.organisations,
        named=_named(policy, message, exposure.external),
        visible=exposure.external,
        recipients=len(message.recipients),
        recipients_hash=recipients_hash(key, message.recipients),
        subject=subject_of(message),
        automatic=automatic(message),
        at=at,
    )


def author_of(policy: Policy, message: Message) -> str | None:
    """The one internal address in From; None if there is none, or several."""
    found = {
        address.key: f"{address.local}@{address.domain}"
        for value in message.values("from")
        for address in message.addresses(value)
        if policy.standing(address.domain) is Standing.INTERNAL
    }
    return next(iter(found.values())) if len(found) == 1 else None


def _named(policy: Policy, message: Message, external: tuple[Address, ...]) -> int:
    """The number of visible external addresses with a display name in a counted field."""
    keys = {address.key for address in external}
    with_name = {
        box.address.key
        for field in policy.counted_fields
        for value in message.values(field)
        for box in message.mailboxes(value)
        if box.name.strip() and box.name.strip().casefold() != box.address.text.casefold()
    }
    return len(keys & with_name)


def subject_of(message: Message) -> str | None:
    """The subject as people read it, in one line."""
    subject = message.first("subject")
    return None if subject is None else " ".join(decoded(subject).split())
