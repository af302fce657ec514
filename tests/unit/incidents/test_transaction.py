"""The record of a message on which a rule acted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.factories import message, policy, rule
from undisclosed.decision.message import Message
from undisclosed.decision.rules import decide
from undisclosed.incidents.records import Transaction
from undisclosed.incidents.transaction import transaction_of
from undisclosed.journal.gateway import gateway_name

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def recorded(whole: Message, **over: Any) -> Transaction:
    """The record of a message under a policy of one rule: more than one external address."""
    ours = policy(**{"rules": [rule(more_than_addresses=1)], **over})
    return transaction_of(ours, whole, decide(ours, whole), identity="1f" * 16, key=b"key", gateway="mx1", at=AT)


def test_facts_are_the_messages_own() -> None:
    """The envelope, the header as people read it, and the decision."""
    whole = message(
        to="Ann <ann@record.test>, bob@two.test",
        cc="clerk@council.test",
        subject="=?utf-8?q?Lle_i=27r?=\n =?utf-8?b?IHBsZW50eW4=?=",
        recipients=["ann@record.test", "bob@two.test"],
    )
    record = recorded(whole)
    assert (record.sender, record.message_id, record.queue_id) == (
        "clerk@council.test",
        "<1@council.test>",
        whole.queue_id,
    )
    assert (record.subject, record.recipients, record.treatment) == ("Lle i'r plentyn", 2, "reject")
    assert (record.count, record.organisations, record.per_field) == (2, 2, {"to": 2})
    assert [address.text for address in record.visible] == ["ann@record.test", "bob@two.test"]
    assert (record.rule, record.at, record.gateway) == ("too many in sight", AT, "mx1")


@pytest.mark.parametrize(
    ("action", "mode", "treatment"),
    [
        ("reject", "enforce", "reject"),
        ("quarantine", "enforce", "hold"),
        ("rewrite", "enforce", "rewrite"),
        ("warn", "enforce", "warn"),
        ("reject", "monitor", "monitor"),
    ],
)
def test_the_treatment_is_what_is_done(action: str, mode: str, treatment: str) -> None:
    """In monitor mode the treatment is `monitor` for every action of the rule."""
    record = recorded(
        message(to="ann@record.test, bob@two.test"), rules=[rule(more_than_addresses=1, action=action)], mode=mode
    )
    assert (record.action.value, record.treatment) == (action, treatment)


@pytest.mark.parametrize(
    ("to", "named"),
    [
        ("ann@record.test, bob@two.test", 0),
        ("Ann <ann@record.test>, Bob Smith <bob@two.test>", 2),
        ('"ann@record.test" <ann@record.test>, <bob@two.test>', 0),
        ("parents: Ann <ann@record.test>, bob@two.test;", 1),
        ("Clerk <clerk@council.test>, Ann <ann@record.test>, Ann again <ANN@record.test>, bob@two.test", 1),
    ],
)
def test_names_that_are_shown_are_counted(to: str, named: int) -> None:
    """Each external address counts once; an address that is its own display name does not count."""
    assert recorded(message(to=to)).named == named


def test_a_message_without_id_and_subject_has_none() -> None:
    """Both are None."""
    record = recorded(message(to="ann@record.test, bob@two.test", message_id=" ", subject=""))
    assert (record.message_id, record.subject) == (None, None)


@pytest.mark.parametrize(
    ("from_", "author"),
    [
        ("The Clerk <Clerk@COUNCIL.test>", "clerk@council.test"),
        ("clerk@council.test, clerk@council.test", "clerk@council.test"),
        ("clerk@council.test, head@council.test", None),
        ("news@esp.example, clerk@council.test", "clerk@council.test"),
        ("news@esp.example", None),
        ("", None),
    ],
)
def test_the_author_is_the_one_internal_address_in_from(from_: str, author: str | None) -> None:
    """A mailing service has its own envelope sender; the person who wrote is in From."""
    record = recorded(message(to="ann@record.test, bob@two.test", from_=from_, sender="clerk@council.test"))
    assert record.author == author


def test_each_postfix_instance_has_a_name_for_people() -> None:
    """The name of the host; a second instance adds its configuration directory."""
    usual = gateway_name(policy())
    assert usual
    assert ":" not in usual
    assert gateway_name(policy(postfix={"config_dir": Path("/srv/out")})) == f"{usual}:/srv/out"
