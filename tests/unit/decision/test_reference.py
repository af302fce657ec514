"""The reference of an incident."""

from __future__ import annotations

import re

from support.factories import message, policy, strangers
from undisclosed.decision.exposure import expose
from undisclosed.decision.message import Message
from undisclosed.decision.reference import REFERENCE_LETTERS, reference


def test_a_reference_is_short_and_the_same_for_every_transaction_of_one_message() -> None:
    """A reference depends on sender, Message-ID and visible addresses, not on queue id and recipients."""
    one = message(to=", ".join(strangers(3)), queue_id="4dX1", recipients=["a@family.test"])
    two = Message("CLERK@council.test", ("b@family.test",), one.fields, one.client, "4dX2")
    names = {reference(b"key", each, expose(policy(), each.fields)) for each in (one, two)}
    assert len(names) == 1
    assert re.fullmatch(f"[{REFERENCE_LETTERS}]{{4}}-[{REFERENCE_LETTERS}]{{4}}", names.pop())


def test_a_reference_differs_by_key_sender_message_id_and_list() -> None:
    """Without the key it is impossible to test whether a list belongs to a reference."""
    first = message(to="a@family.test")
    variants = [
        (b"key", first),
        (b"other", first),
        (b"key", message(to="a@family.test", sender="other@council.test")),
        (b"key", message(to="a@family.test", message_id="<2@council.test>")),
        (b"key", message(to="b@family.test")),
    ]
    names = {reference(key, each, expose(policy(), each.fields)) for key, each in variants}
    assert len(names) == len(variants)


def test_messages_without_a_message_id_are_told_apart_by_queue_id() -> None:
    """Without a Message-ID each transaction is an incident of its own."""
    pair = [message(to="a@family.test", message_id="", queue_id=queue_id) for queue_id in ("4dX1", "4dX2")]
    names = {reference(b"key", each, expose(policy(), each.fields)) for each in pair}
    assert len(names) == 2
