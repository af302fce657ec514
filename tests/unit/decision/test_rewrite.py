"""Hiding recipients: headers before and after."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest

from support.factories import message, policy, strangers
from undisclosed.decision.edits import HeaderChange, HeaderDeletion, HeaderInsertion, apply
from undisclosed.decision.message import Field, Message
from undisclosed.decision.rewrite import MAX_EDITS, Unsafe, hide, plan
from undisclosed.policy import Policy

FROM = "From: Clerk <clerk@council.test>"


def header(text: str) -> tuple[Field, ...]:
    """A header from text: one field a line; a line that begins with a blank continues the last field."""
    fields: list[Field] = []
    for line in text.strip("\n").split("\n"):
        if line[:1] in " \t":
            fields[-1] = Field(fields[-1].name, fields[-1].value + "\n" + line)
        else:
            name, _, value = line.partition(":")
            fields.append(Field(name, value.removeprefix(" ")))
    return tuple(fields)


def mail(text: str) -> Message:
    """A message with exactly this header."""
    return Message("clerk@council.test", ("parent@family.test",), header(text))


def hidden(text: str, **sections: Any) -> tuple[Field, ...]:
    """This header after hiding."""
    sections.setdefault("organisation", {"partner_domains": ["partner.test"]})
    before = mail(text)
    return apply(before.fields, hide(policy(**sections), before))


CASES = {
    "internal addresses stay, others go": (
        "To: Ann <ann@council.test>, parent@family.test, b@partner.test\nCc: x@family.test, cc@schools.council.test",
        "To: Ann <ann@council.test>\nCc: cc@schools.council.test",
    ),
    "a To that shows nobody outside keeps its bytes": (
        'To:  Ann \n\t<ann@council.test> ,, "J\\ö" <j@council.test> (x)\nCc: x@family.test',
        'To:  Ann \n\t<ann@council.test> ,, "J\\ö" <j@council.test> (x)',
    ),
    "a group without members keeps its bytes": (
        "To: Undisclosed Recipients:;\nCc: x@family.test",
        "To: Undisclosed Recipients:;",
    ),
    "an emptied To shows the author": (
        f"{FROM}\nTo: x@family.test",
        f"{FROM}\nTo: Clerk <clerk@council.test>",
    ),
    "an external author is never put into To": (
        "From: clerk@elsewhere.test\nTo: x@family.test",
        "From: clerk@elsewhere.test\nTo: undisclosed-recipients:;",
    ),
    "a partner's author is never put into To": (
        "From: clerk@partner.test\nTo: x@family.test",
        "From: clerk@partner.test\nTo: undisclosed-recipients:;",
    ),
    "the first internal author is put into To": (
        "From: x@elsewhere.test, Ann <ann@council.test>, bob@council.test\nCc: x@family.test",
        "From: x@elsewhere.test, Ann <ann@council.test>, bob@council.test\nTo: Ann <ann@council.test>",
    ),
    "an author whose address is not ASCII is not put into To": (
        "From: jörg@council.test\nTo: x@family.test",
        "From: jörg@council.test\nTo: undisclosed-recipients:;",
    ),
    "no author, no address": ("To: x@family.test", "To: undisclosed-recipients:;"),
    "a message without To gets one": (
        f"{FROM}\nCc: x@family.test, ann@council.test\nSubject: a",
        f"{FROM}\nCc: ann@council.test\nSubject: a\nTo: Clerk <clerk@council.test>",
    ),
    "a blank To is no To": (
        f"{FROM}\nTo:  \nCc: x@family.test",
        f"{FROM}\nTo: Clerk <clerk@council.test>",
    ),
    "several To become the first": (
        "to: x@family.test, ann@council.test\nSubject: a\nTO: bob@council.test, y@family.test\nTo: ANN@council.test",
        "to: ann@council.test, bob@council.test\nSubject: a",
    ),
    "several To that add nobody leave the first as it is": (
        "To: ann@council.test,bob@council.test\nTo: x@family.test\nTo: Bob <bob@council.test>",
        "To: ann@council.test,bob@council.test",
    ),
    "several clean To are still one in the end": (
        "To: ann@council.test\nTo: Bob <bob@council.test>\nCc: x@family.test",
        "To: ann@council.test, Bob <bob@council.test>",
    ),
    "names count without regard to case": (
        "CC: x@family.test\ncc: y@family.test, ann@council.test\nTo: bob@council.test\nCc: z@family.test",
        "cc: ann@council.test\nTo: bob@council.test",
    ),
    "an arriving Bcc is removed, with any address": (
        "To: ann@council.test\nBcc: bob@council.test\nCc: x@family.test\nResent-Bcc: x@family.test\nbcc:",
        "To: ann@council.test",
    ),
    "every recipient field is emptied": (
        "Resent-To: x@family.test\nResent-Cc: y@family.test\nResent-From: a@elsewhere.test\n"
        "Apparently-To: z@family.test\nMail-Followup-To: ann@council.test, v@family.test\nTo: ann@council.test",
        "Resent-From: a@elsewhere.test\nMail-Followup-To: ann@council.test\nTo: ann@council.test",
    ),
    "the author's address in Reply-To stays": (
        "From: me@elsewhere.test\nReply-To: ME <me@Elsewhere.test>\nTo: x@family.test",
        "From: me@elsewhere.test\nReply-To: ME <me@Elsewhere.test>\nTo: undisclosed-recipients:;",
    ),
    "others go from Reply-To": (
        "From: me@elsewhere.test\nReply-To: Me <me@elsewhere.test>, x@family.test, ann@council.test\nTo: x@family.test",
        "From: me@elsewhere.test\nReply-To: Me <me@elsewhere.test>, ann@council.test\nTo: undisclosed-recipients:;",
    ),
    "an author in Cc is a recipient": (
        "From: me@elsewhere.test\nCc: me@elsewhere.test\nTo: ann@council.test",
        "From: me@elsewhere.test\nTo: ann@council.test",
    ),
    "groups go, their internal members stay": (
        "To: Parents of Ty Mawr: Ann <ann@council.test>, x@family.test;, bob@council.test",
        "To: Ann <ann@council.test>, bob@council.test",
    ),
    "comments go": (
        "To: ann@council.test (for x@family.test), Bob (y@family.test) <bob@council.test>",
        "To: ann@council.test, Bob <bob@council.test>",
    ),
    "a name that holds an address goes": (
        'To: "x@family.test" <ann@council.test>, "\'bob@council.test\'" <bob@council.test>, Cat (c) <cat@council.test>',
        "To: ann@council.test, bob@council.test, Cat <cat@council.test>",
    ),
    "an encoded name that holds an address goes": (
        "To: =?utf-8?q?x=40family=2Etest?= <ann@council.test>, =?utf-8?b?eEBmYW1pbHkudGVzdA==?= <bob@council.test>",
        "To: ann@council.test, bob@council.test",
    ),
    "a name that holds an encoded word twice over goes": (
        "To: x@family.test, =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3D40family=2Etest=3F=3D?= <ann@council.test>",
        "To: ann@council.test",
    ),
    "a full-width at-sign is one": (
        'To: x\uff20family.test, "y\uff20family.test" <ann@council.test>',
        "To: ann@council.test",
    ),
    "a local part that shows an address goes with it": (
        'To: "x@family.test"@council.test, ann@council.test',
        "To: ann@council.test",
    ),
    "a route goes": ("To: <@family.test:ann@council.test>", "To: ann@council.test"),
    "names are quoted again": (
        'To: x@family.test, "Smith, Ann" <ann@council.test>, Bob B. <bob@council.test>, "C \\"C\\"" <c@council.test>',
        'To: "Smith, Ann" <ann@council.test>, "Bob B." <bob@council.test>, "C \\"C\\""\n <c@council.test>',
    ),
    "names outside ASCII are encoded": (
        "To: x@family.test, Siân <sian@council.test>, =?iso-8859-1?q?Ll=FBr?= <llyr@council.test>",
        "To: =?utf-8?b?U2nDom4=?= <sian@council.test>, =?utf-8?b?TGzDu3I=?=\n <llyr@council.test>",
    ),
    "raw bytes and controls are not carried over": (
        "To: x@family.test, J\udce9r <j@council.test>, A\x00b <a@council.test>, C\x1bd <c@council.test>",
        "To: j@council.test, A b <a@council.test>, C d <c@council.test>",
    ),
    "the same mailbox once": (
        "To: x@family.test, Ann <ann@council.test>, ANN@COUNCIL.TEST.",
        "To: Ann <ann@council.test>",
    ),
    "look-alikes are outside": (
        "To: a@notcouncil.test, b@council.test.evil.example, c@council.test, d@schools.council.test",
        "To: c@council.test, d@schools.council.test",
    ),
    "other fields are not touched": (
        "Subject: x\nX-To: y@z.test\nTo: x@family.test\nDate: now",
        "Subject: x\nX-To: y@z.test\nTo: undisclosed-recipients:;\nDate: now",
    ),
}


@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES)
def test_the_header_after_hiding(before: str, after: str) -> None:
    """The whole header after the edits, byte for byte."""
    assert hidden(before) == header(after)


@pytest.mark.parametrize("before", [before for before, _ in CASES.values()], ids=CASES)
def test_hiding_twice_changes_nothing_more(before: str) -> None:
    """A message that is processed again, as after a release, is not changed again."""
    once = hidden(before)
    again = Message("clerk@council.test", (), once)
    assert hide(policy(organisation={"partner_domains": ["partner.test"]}), again) == ()


def test_internal_addresses_are_hidden_without_keep_internal() -> None:
    """`keep_internal = false` hides colleagues, too; To has the author, who is in From anyway."""
    before = f"{FROM}\nTo: ann@council.test\nCc: bob@council.test, x@family.test\nReply-To: clerk@council.test"
    after = f"{FROM}\nTo: Clerk <clerk@council.test>\nReply-To: clerk@council.test"
    assert hidden(before, rewrite={"keep_internal": False}) == header(after)
    assert hidden(after, rewrite={"keep_internal": False}) == header(after)


@pytest.mark.parametrize("to", ["parents:;", "Office <office@council.test>", "undisclosed-recipients:;"])
def test_an_emptied_to_has_the_configured_value(to: str) -> None:
    """`rewrite.to` may be a group without members or an internal mailbox."""
    assert hidden(f"{FROM}\nTo: x@family.test", rewrite={"to": to}) == header(f"{FROM}\nTo: {to}")


def test_fields_that_are_not_counted_are_not_hidden() -> None:
    """Only the fields in `counting.fields` are edited, and Bcc always."""
    before = "To: x@family.test\nTo: y@family.test\nCc: z@family.test\nBcc: v@family.test"
    after = "To: x@family.test\nTo: y@family.test"
    assert hidden(before, counting={"fields": ["cc"]}) == header(after)


def test_only_what_changes_is_edited() -> None:
    """A field that may stay gets no edit: Postfix would fold it differently."""
    before = mail("To: Ann\n\t<ann@council.test>\nCc: bob@council.test\nReply-To: ann@council.test\nCc: x@family.test")
    assert hide(policy(), before) == (HeaderDeletion("Cc", 2),)


def test_edits_of_one_name_go_from_the_last_to_the_first() -> None:
    """A deletion renumbers the later fields, so the edits of later fields come first."""
    before = mail(
        "Cc: a@x.test\nTo: ann@council.test, b@x.test\nCC: bob@council.test, c@x.test\nTo: d@x.test\ncc: e@x.test"
    )
    edits = hide(policy(), before)
    assert [edit for edit in edits if edit.name.lower() == "cc"] == [
        HeaderDeletion("cc", 3),
        HeaderChange("CC", 2, "bob@council.test"),
        HeaderDeletion("Cc", 1),
    ]
    assert [edit for edit in edits if edit.name == "To"] == [
        HeaderDeletion("To", 2),
        HeaderChange("To", 1, "ann@council.test"),
    ]


def test_five_hundred_names_are_folded() -> None:
    """Edited lines have less than 78 characters, a long name is cut into encoded words of at most 75."""
    people = [f"Ysgol Gynradd Tŷ Mawr, Dosbarth {n} <class{n}@council.test>" for n in range(250)]
    people += [f"Class {n} <room{n}@council.test>" for n in range(250)]
    ((name, value),) = hidden("To: " + ", ".join([*people, "x@family.test"]))
    assert name == "To"
    assert value.isascii()
    assert max(len(line) for line in f"To: {value}".split("\n")) <= 77
    assert value.count("@") == 500
    assert all(len(word) <= 75 for word in value.split() if word.startswith("=?"))


def test_what_cannot_be_folded_stays_below_the_limit_of_a_line() -> None:
    """No line reaches 998 bytes (RFC 5322, section 2.1.1): a relay would break it anywhere."""
    name = "n" * 200
    local = "l" * 300
    text = f"x@family.test, {name} <a@council.test>, {local}@council.test, {'w' * 201} <b@council.test>"
    ((_, value),) = hidden(f"To: {text}, {'x' * 400}@council.test")
    assert value == f"{name}\n <a@council.test>,\n {local}@council.test,\n b@council.test"


UNSAFE = {
    "a kept address outside ASCII": (
        "To: jörg@council.test, x@family.test",
        "an address that stays in To is not ASCII",
    ),
    "a kept address in raw bytes": (
        "Cc: j\udce9@council.test, x@family.test",
        "an address that stays in Cc is not ASCII",
    ),
    "a name with a blank": ("To : x@family.test", "the name of a To field is irregular"),
    "a name that only looks like one": ("Re\u017fent-To: x@family.test", "the name of a Resent-To field is irregular"),
}


@pytest.mark.parametrize(("text", "reason"), UNSAFE.values(), ids=UNSAFE)
def test_recipients_that_cannot_be_hidden(text: str, reason: str) -> None:
    """`hide` and `plan` raise Unsafe with the same reason."""
    with pytest.raises(Unsafe) as raised:
        hide(policy(), mail(text))
    assert str(raised.value) == reason
    with pytest.raises(Unsafe, match=re.escape(reason)):
        plan(policy(), mail(text))


def test_an_untouched_field_may_hold_what_an_edited_one_may_not() -> None:
    """Non-ASCII addresses do not matter in a field that is not edited."""
    assert hidden("To: jörg@council.test\nCc: x@family.test") == header("To: jörg@council.test")


def test_too_many_fields_are_not_edited() -> None:
    """Postfix searches each from the top: minutes for many thousand. A person decides instead."""
    few = mail("\n".join(["To: ann@council.test"] + ["Cc: x@family.test"] * MAX_EDITS))
    assert len(hide(policy(), few)) == MAX_EDITS
    many = mail("\n".join(["To: ann@council.test"] + ["Cc: x@family.test"] * (MAX_EDITS + 1)))
    with pytest.raises(Unsafe, match="more recipient fields than can be edited"):
        hide(policy(), many)


def test_a_merged_to_must_fit_into_one_field() -> None:
    """Display names are dropped first; if the addresses alone are too long, nothing is edited."""
    named = [f"{'Ein langer Name ' * 3}{n} <somebody{n}@council.test>" for n in range(1600)]
    fields = [f"To: {', '.join(named[at : at + 400])}" for at in range(0, 1600, 400)]
    ((_, value),) = hidden("\n".join(fields))
    assert value.count("@council.test") == 1600
    assert "Name" not in value
    assert len(value) <= 60_000
    with pytest.raises(Unsafe, match="do not fit into one field"):
        hidden("\n".join(fields).replace("somebody", "somebody.with.a.long.address."))


APPLY = {
    "change": (HeaderChange("to", 1, "x"), "to: x\nCc: 1\nCC: 2\nTo: b"),
    "change the second": (HeaderChange("TO", 2, "x"), "To: a\nCc: 1\nCC: 2\nTO: x"),
    "change past the last adds": (HeaderChange("To", 3, "x"), "To: a\nCc: 1\nCC: 2\nTo: b\nTo: x"),
    "change to nothing deletes": (HeaderChange("cc", 1, ""), "To: a\nCC: 2\nTo: b"),
    "change of 0 is of the first": (HeaderChange("To", 0, "x"), "To: x\nCc: 1\nCC: 2\nTo: b"),
    "delete": (HeaderDeletion("cc", 2), "To: a\nCc: 1\nTo: b"),
    "delete past the last does nothing": (HeaderDeletion("cc", 3), "To: a\nCc: 1\nCC: 2\nTo: b"),
    "insert": (HeaderInsertion("To", "x"), "To: a\nCc: 1\nCC: 2\nTo: b\nTo: x"),
}


@pytest.mark.parametrize(("edit", "after"), APPLY.values(), ids=APPLY)
def test_an_edit_does_what_postfix_does(edit: HeaderChange | HeaderDeletion | HeaderInsertion, after: str) -> None:
    """The rules of smfi_chgheader and smfi_addheader, as observed with Postfix."""
    assert apply(header("To: a\nCc: 1\nCC: 2\nTo: b"), [edit]) == header(after)


def test_deleting_renumbers() -> None:
    """After the deletion of the first, the second is the former third."""
    fields = header("Cc: 1\nCc: 2\nCc: 3")
    assert apply(fields, [HeaderDeletion("Cc", 1), HeaderDeletion("Cc", 1)]) == header("Cc: 3")
    assert apply(fields, [HeaderDeletion("Cc", 1), HeaderChange("Cc", 2, "x")]) == header("Cc: 2\nCc: x")
    assert apply(fields, [HeaderDeletion("Cc", 1), HeaderInsertion("Cc", "4"), HeaderDeletion("Cc", 3)]) == header(
        "Cc: 2\nCc: 3"
    )


@pytest.mark.parametrize(
    "names",
    [
        strangers(1),
        strangers(95),
        [f"Parent {n} <{one}>" for n, one in enumerate(strangers(866))],
        [f'"Parent, {n}" <{one}>' for n, one in enumerate(strangers(500))],
    ],
    ids=len,
)
def test_the_breaches_are_hidden(names: Iterable[str]) -> None:
    """Of lists as long as in the known breaches only the sender's own address is left."""
    before = message(to=", ".join(names), cc=", ".join(names), from_="Clerk <clerk@council.test>")
    after = apply(before.fields, hide(policy(), before))
    assert [field for field in after if field.name in ("To", "Cc")] == [Field("To", "Clerk <clerk@council.test>")]


def test_two_policies_do_not_interfere() -> None:
    """Two policies have different results for the same message, in any order."""
    before = mail("To: ann@council.test, x@partner.test")
    strict: Policy = policy()
    assert hide(strict, before) == hide(strict, before) == (HeaderChange("To", 1, "ann@council.test"),)
