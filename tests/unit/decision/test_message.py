"""A message: its header fields by name, each read once."""

from __future__ import annotations

import sys
from collections import Counter
from types import CodeType, FrameType

import pytest

from support.factories import message, policy, rule, strangers
from undisclosed.addresses import addresses, mailboxes
from undisclosed.decision.message import Message
from undisclosed.decision.rules import decide
from undisclosed.policy import Action

READERS: dict[CodeType, str] = {addresses.__code__: "addresses", mailboxes.__code__: "mailboxes"}


def reads(judged: Message) -> Counter[tuple[str, str]]:
    """The number of calls of each reader with each value, in a decision to rewrite."""
    counted: Counter[tuple[str, str]] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in READERS:
            counted[READERS[frame.f_code], frame.f_locals["value"]] += 1

    sys.setprofile(count)
    try:
        decision = decide(policy(rules=[rule(action="rewrite")]), judged)
    finally:
        sys.setprofile(None)
    assert decision.action is Action.REWRITE
    return counted


def test_each_field_is_read_once_in_a_rewrite() -> None:
    """`Message` keeps the addresses and mailboxes of a value; only the result of the edits is read again."""
    to, cc, author = ", ".join(strangers(95)), "ann@council.test, x@other.test", '"Clerk"  <clerk@council.test>'
    counted = reads(message(to=to, cc=cc, from_=author, list_id="<parents.council.test>"))
    assert {value: counted["addresses", value] for value in (to, cc, author)} == {to: 1, cc: 1, author: 1}
    assert {value: counted["mailboxes", value] for value in (to, cc, author)} == {to: 0, cc: 1, author: 1}


def test_a_field_that_stays_is_read_once_more_in_the_result() -> None:
    """The check after a rewrite must not use addresses that were read before it."""
    counted = reads(message(to=", ".join(strangers(95)), from_="clerk@council.test", cc="ann@council.test"))
    assert counted["addresses", "ann@council.test"] == 2


def test_a_value_is_remembered_with_its_message_only() -> None:
    """A message keeps its own addresses; another message reads again."""
    one, other = message(to="a@x.test"), message(to="a@x.test")
    assert one.addresses("a@x.test") is one.addresses("a@x.test")
    assert one.addresses("a@x.test") is not other.addresses("a@x.test")
    assert one == other


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([""], None), ([" "], None), ([" <1@x> ", "<2@x>"], "<1@x>"), (["", "<2@x>"], None)],
)
def test_the_message_id_is_the_first_value(values: list[str], expected: str | None) -> None:
    """Of several fields the first counts; an empty one is none."""
    fields = [("Message-ID", value) for value in values]
    assert message(message_id="", fields=fields).message_id == expected
