"""A policy and a message as tests want them: sound where the test does not say otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from undisclosed.addresses import addresses
from undisclosed.decision.message import Client, Field, Message
from undisclosed.incidents.records import Transaction
from undisclosed.policy import Action, Policy, Rule

ORGANISATION: Mapping[str, Any] = {
    "name": "Exampleshire County Council",
    "internal_domains": ["council.test", ".council.test"],
}


def policy(**over: Any) -> Policy:
    """A Policy from TOML-like sections: each keyword replaces a setting, or adds to `organisation` and to no other.

    Without `rules` there is one: `reject` above 10 external addresses. Raises pydantic's ValidationError.
    """
    sections = {"rules": [rule()], **over}
    sections["organisation"] = {**ORGANISATION, **over.get("organisation", {})}
    return Policy.model_validate(sections)


def rule(**over: Any) -> dict[str, Any]:
    """A rule's settings; without any, `reject` above 10 external addresses. None takes one away."""
    settings = {"name": "too many in sight", "more_than_addresses": 10, "action": "reject", **over}
    return {key: value for key, value in settings.items() if value is not None}


def make_rule(**over: Any) -> Rule:
    """A Rule made of `rule(**over)`."""
    return Rule.model_validate(rule(**over))


def message(
    *,
    sender: str = "clerk@council.test",
    recipients: Iterable[str] = ("parent@family.test",),
    fields: Iterable[tuple[str, str]] = (),
    client: Client = Client("127.0.0.1", 40000),  # noqa: B008  frozen: it can be shared
    queue_id: str = "4dX1c23kLmz9Q",
    **header: str | Iterable[str],
) -> Message:
    """A Message of the council's own, leaving it.

    Each further keyword is a header field, or several: `to="a@x.test"`, `reply_to=[…]`; `from_` is From. `fields`
    stands before them. From, Message-ID and Subject are there unless the keyword says otherwise ("" leaves one out).
    """
    header = {"from_": sender, "message_id": "<1@council.test>", "subject": "School admissions", **header}
    found = [Field(*pair) for pair in fields]
    for keyword, values in header.items():
        name = "-".join(part.capitalize() for part in keyword.strip("_").split("_")).replace("Message-Id", "Message-ID")
        found += [Field(name, value) for value in ([values] if isinstance(values, str) else values) if value]
    return Message(sender, tuple(recipients), tuple(found), client, queue_id)


def strangers(count: int, domain: str = "family{}.test") -> list[str]:
    """Distinct addresses outside the organisation, each in a domain of its own where `domain` has a place for it."""
    return [f"parent{number}@{domain.format(number)}" for number in range(1, count + 1)]


def transaction(**over: Any) -> Transaction:
    """A Transaction to be recorded: a held message that shows two parents; each keyword replaces a field.

    Its identity follows from its reference, unless a keyword says otherwise.
    """
    fields: dict[str, Any] = {
        "reference": "K7QF-3M2D",
        "gateway": "mx1.council.test",
        "queue_id": "4dX1c23kLmz9Q",
        "message_id": "<1@council.test>",
        "sender": "clerk@council.test",
        "author": "clerk@council.test",
        "client": "127.0.0.1",
        "login": "",
        "rule": "too many in sight",
        "action": Action.QUARANTINE,
        "treatment": "hold",
        "reason": "2 external addresses, the limit is 1",
        "obstacle": None,
        "obstacle_kind": None,
        "per_field": {"to": 2},
        "count": 2,
        "organisations": 2,
        "named": 1,
        "visible": tuple(address for text in strangers(2) for address in addresses(text)),
        "recipients": 2,
        "recipients_hash": "1f" * 16,
        "subject": "School admissions",
        "automatic": None,
        "at": datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    }
    fields |= over
    fields.setdefault("identity", f"identity of {fields['reference']}")
    return Transaction(**fields)
