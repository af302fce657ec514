"""The exposure of a message."""

from __future__ import annotations

from support.factories import message, policy, strangers
from undisclosed.decision.exposure import expose
from undisclosed.decision.message import Field


def test_an_address_counts_once_in_all_counted_fields() -> None:
    """An address in several fields counts once; each field has its own number."""
    shown = expose(
        policy(),
        message(
            to=["a@family.test, b@family.test", "C <c@family.test>"],
            cc="A@Family.Test, d@family.test",
            resent_to="e@family.test",
            mail_followup_to="f@family.test",
            bcc="g@family.test",
            x_to="h@family.test",
        ).fields,
    )
    assert [address.text for address in shown.external] == [f"{letter}@family.test" for letter in "abcdefg"]
    assert shown.per_field == {"to": 3, "cc": 2, "resent-to": 1, "mail-followup-to": 1, "bcc": 1}


def test_the_authors_own_address_in_reply_to_is_no_recipient() -> None:
    """Reply-To counts, but not the address in From."""
    shown = expose(
        policy(), message(from_="Me <me@home.test>", reply_to="me@home.test, all@list.test", to="x@council.test").fields
    )
    assert [address.text for address in shown.external] == ["all@list.test"]


def test_a_field_name_with_a_blank_before_its_colon_is_that_field() -> None:
    """RFC 5322, section 4.5.3: the obsolete form `To : …` is To."""
    assert expose(policy(), [Field("TO ", "a@family.test")]).count == 1


def test_a_bare_carriage_return_hides_no_field() -> None:
    """Postfix may pass on a CR inside a field, and the server of a recipient may take it for a line end."""
    many = ", ".join(strangers(3))
    for value in (f"x\rTo: {many}", f"x\r\rCC : {many}", f"x\r To: a\rTo: {many}\rX-Y: z", f"x\r\n\rTo:{many}"):
        assert expose(policy(), [Field("Subject", value)]).count == 3
    folded = expose(policy(), [Field("To", f"{many},\r\n d@family4.test")])
    assert folded.count == 4


def test_an_address_that_is_routed_on_by_its_local_part_is_outside() -> None:
    """`user%outside@inside` is an outside address for people and for Postfix."""
    to = "a%family.test@council.test, family.test!b@council.test, c@council.test"
    shown = expose(policy(), message(to=to).fields)
    assert (shown.count, len(shown.internal)) == (2, 1)


def test_a_list_of_authors_does_not_excuse_the_same_list_in_reply_to() -> None:
    """The exemption is for a single author: Reply All to twelve "authors" reaches all of them."""
    many = ", ".join(strangers(12))
    shown = expose(policy(), message(from_=f"clerk@council.test, {many}", reply_to=many, to="x@council.test").fields)
    assert shown.count == 12
