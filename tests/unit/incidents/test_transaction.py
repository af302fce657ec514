"""What is recorded of a message on which a rule acted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.factories import message, policy, rule
from undisclosed.decision.message import Message
from undisclosed.decision.rules import decide
from undisclosed.incidents.records import Transaction
from undisclosed.incidents.transaction import is_automatic, transaction_of
from undisclosed.journal.gateway import gateway_name

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def recorded(whole: Message, **over: Any) -> Transaction:
    """The record of a message under a policy of one rule: more than one external address."""
    ours = policy(**{"rules": [rule(more_than_addresses=1)], **over})
    return transaction_of(ours, whole, decide(ours, whole), reference="K7QF-3M2D", gateway="mx1", at=AT)


def test_facts_are_the_messages_own() -> None:
    """The envelope, the header as people read it, and the decision."""
    whole = message(
        to="Ann <ann@one.test>, bob@two.test",
        cc="clerk@council.test",
        subject="=?utf-8?q?Lle_i=27r?=\n =?utf-8?b?IHBsZW50eW4=?=",
        recipients=["ann@one.test", "bob@two.test"],
    )
    one = recorded(whole)
    assert (one.sender, one.message_id, one.queue_id) == ("clerk@council.test", "<1@council.test>", whole.queue_id)
    assert (one.subject, one.recipients, one.outcome) == ("Lle i'r plentyn", 2, "reject")
    assert (one.count, one.organisations, one.per_field) == (2, 2, {"to": 2})
    assert [address.text for address in one.visible] == ["ann@one.test", "bob@two.test"]
    assert (one.rule, one.at, one.gateway) == ("too many in sight", AT, "mx1")


@pytest.mark.parametrize(
    ("action", "mode", "outcome"),
    [
        ("reject", "enforce", "reject"),
        ("quarantine", "enforce", "hold"),
        ("rewrite", "enforce", "rewrite"),
        ("warn", "enforce", "warn"),
        ("reject", "monitor", "monitor"),
    ],
)
def test_the_outcome_is_what_is_done(action: str, mode: str, outcome: str) -> None:
    """In monitor mode nothing is, whatever the rule decided."""
    one = recorded(
        message(to="ann@one.test, bob@two.test"), rules=[rule(more_than_addresses=1, action=action)], mode=mode
    )
    assert (one.action.value, one.outcome) == (action, outcome)


@pytest.mark.parametrize(
    ("to", "named"),
    [
        ("ann@one.test, bob@two.test", 0),
        ("Ann <ann@one.test>, Bob Smith <bob@two.test>", 2),
        ('"ann@one.test" <ann@one.test>, <bob@two.test>', 0),
        ("parents: Ann <ann@one.test>, bob@two.test;", 1),
        ("Clerk <clerk@council.test>, Ann <ann@one.test>, Ann again <ANN@one.test>, bob@two.test", 1),
    ],
)
def test_names_that_are_shown_are_counted(to: str, named: int) -> None:
    """Once for each external address; an address as its own name is none."""
    assert recorded(message(to=to)).named == named


def test_a_message_without_id_and_subject_has_none() -> None:
    """Nothing is made up in their place."""
    one = recorded(message(to="ann@one.test, bob@two.test", message_id=" ", subject=""))
    assert (one.message_id, one.subject) == (None, None)


@pytest.mark.parametrize(
    ("header", "automatic"),
    [
        ({}, False),
        ({"auto_submitted": "no"}, False),
        ({"auto_submitted": "No (a person)"}, True),
        ({"auto_submitted": "auto-generated; owner=x"}, True),
        ({"precedence": "Bulk"}, True),
        ({"precedence": "first-class"}, False),
        ({"list_id": "<parents.council.test>"}, True),
        ({"sender": ""}, True),
    ],
)
def test_automatic_mail_is_known(header: dict[str, str], automatic: bool) -> None:
    """RFC 3834, section 2: nobody is written to in answer to a machine or a list."""
    assert is_automatic(message(**{"from_": "clerk@council.test", **header})) is automatic  # type: ignore[arg-type]


def test_each_postfix_instance_has_a_name_of_its_own() -> None:
    """The host's; another instance on it adds its configuration directory: queue ids are its own."""
    usual = gateway_name(policy())
    assert usual
    assert ":" not in usual
    assert gateway_name(policy(postfix={"config_dir": Path("/srv/out")})) == f"{usual}:/srv/out"
