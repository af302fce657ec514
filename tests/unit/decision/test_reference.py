"""The identity of a message, its reference, and the hash of its recipients."""

from __future__ import annotations

import re

from support.factories import message, policy, strangers
from undisclosed.decision.exposure import expose
from undisclosed.decision.message import Message
from undisclosed.decision.reference import REFERENCE_LETTERS, identity, recipients_hash, reference


def identity_of(one: Message, key: bytes = b"key") -> str:
    """The identity of a message under the usual policy."""
    return identity(key, one, expose(policy(), one.fields))


def test_a_reference_is_short_and_the_same_for_every_transaction_of_one_message() -> None:
    """Queue id, envelope recipients, folds and blanks do not matter: servers on the way change them."""
    one = message(to=", ".join(strangers(3)), queue_id="4dX1", recipients=["a@family.test"], date="Mon,  2 Feb 2026")
    fields = [field._replace(value=field.value.replace("Mon,  2", "Mon,\n 2")) for field in one.fields]
    two = Message("CLERK@council.test", ("b@family.test",), tuple(fields), one.client, "4dX2")
    assert identity_of(one) == identity_of(two)
    assert re.fullmatch(f"[{REFERENCE_LETTERS}]{{4}}-[{REFERENCE_LETTERS}]{{4}}", reference(identity_of(one)))


def test_an_identity_differs_by_key_sender_and_all_that_tells_messages_apart() -> None:
    """Held-mail review, B: a program sent "Trip" and "Exclusions" to one list with one Message-ID.

    Without the key it is impossible to test whether a list belongs to a reference.
    """
    first = message(to="a@family.test")
    names = [
        identity_of(first),
        identity_of(first, b"other"),
        identity_of(message(to="a@family.test", sender="other@council.test", from_="clerk@council.test")),
        identity_of(message(to="a@family.test", from_="head@council.test")),
        identity_of(message(to="a@family.test", message_id="<2@council.test>")),
        identity_of(message(to="a@family.test", subject="Exclusions")),
        identity_of(message(to="a@family.test", date="Mon, 02 Feb 2026 09:00:00 +0000")),
        identity_of(message(to="b@family.test")),
    ]
    assert len({reference(name) for name in names}) == len(names)


def test_the_first_value_of_a_field_counts() -> None:
    """The value that mail programs show."""
    one, two = (message(to="a@family.test", subject=["Trip", second]) for second in ("x", "y"))
    assert identity_of(one) == identity_of(two)


def test_messages_without_a_message_id_are_told_apart_by_queue_id() -> None:
    """Without a Message-ID each transaction is an incident of its own."""
    pair = [
        message(to="a@family.test", message_id=empty, queue_id=queue_id)
        for empty, queue_id in (("", "4dX1"), (" ", "4dX2"))
    ]
    assert len(set(map(identity_of, pair))) == 2


def test_the_hash_of_recipients_does_not_depend_on_their_order() -> None:
    """A client may sort them anew; with another key, or other recipients, the hash is another one."""
    assert recipients_hash(b"key", ["a@x.test", "b@x.test"]) == recipients_hash(b"key", ["b@x.test", "a@x.test"])
    others = [recipients_hash(b"key", ["a@x.test"]), recipients_hash(b"other", ["a@x.test"])]
    assert len({recipients_hash(b"key", ["a@x.test", "b@x.test"]), *others}) == 3
