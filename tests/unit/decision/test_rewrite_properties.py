"""Properties of every rewrite, tested on headers that are built to keep an address visible.

Every address outside has a domain whose name begins with "outside", and nothing else in a header contains that word. So
the result can be read by code independent of this project: the standard library, and a plain search.
"""

from __future__ import annotations

import email.header
import inspect
import re
from dataclasses import replace
from email.utils import getaddresses

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.factories import policy
from undisclosed.decision.edits import HeaderChange, HeaderDeletion, HeaderInsertion, apply
from undisclosed.decision.exposure import expose
from undisclosed.decision.message import Field, Message
from undisclosed.decision.rewrite import Unsafe, hide
from undisclosed.policy.sections import COUNTED_FIELDS

POLICY = policy(organisation={"partner_domains": ["outside-partner.test"]})
RECIPIENT_FIELDS = {name.casefold() for name in COUNTED_FIELDS}

OUTSIDE = re.compile(r"@[\s(]*outside", re.IGNORECASE)

outside = st.sampled_from(
    [
        "anna@outside.test",
        "Bob.Smith@Outside1.Example",
        "o'hara@outside-partner.test",
        '"c d"@outside.test',
        "e@outside.council.test.example",
        "f@outside\u00e9.example",
        "g@outside.test.",
        "<h@outside.test>",
        "i @ outside.test",
        "j@(home)outside.test",
        "@council.test:k@outside.test",
        "mailto:l@outside.test",
        "m\uff20outside.test",
        "n\\@outside.test",
        "=?utf-8?q?o=40outside=2Etest?=",
        "=?utf-8?b?cEBvdXRzaWRlLnRlc3Q=?=",
        "=?iso-8859-1*en?Q?q=40outside.test?=",
        "=?utf-8?q?r=40out?= =?utf-8?q?side=2Etest?=",
        "=?utf-8?q?s=40outside.test",
        "=?unknown?q?t=40outside.test?=",
        "\udce9u@outside.test",
        "v@\n outside.test",
    ]
)
inside = st.sampled_from(
    [
        "ann@council.test",
        "ANN@Council.Test.",
        "<bob@schools.council.test>",
        '"x y"@council.test',
        "cat@council.test",
        "<@council.test:dan@council.test>",
    ]
)
words = st.sampled_from(
    [
        "Ann",
        "Smith",
        "Si\u00e2n",
        "=?utf-8?q?Ll=C5=B7r?=",
        "J\udce9",
        "\x00",
        "\x1b[1m",
        "a.b",
        "\\",
        "team",
        "=?",
        "?=",
    ]
)
punctuation = st.sampled_from(
    [
        ", ",
        ",",
        ";",
        ":",
        " ",
        "\n ",
        "\t",
        '"',
        '" ',
        "<",
        ">",
        "(",
        ")",
        "()",
        "\\",
        "'",
        "@",
        "[",
        "]",
        "",
        "\r",
        "\x85",
    ]
)


@st.composite
def entries(draw: st.DrawFn) -> str:
    """One entry of a list: mostly sound, with an address where a name, comment or group belongs."""
    name = draw(st.one_of(words, outside, inside))
    address = draw(st.one_of(outside, inside)).strip("<>")
    form = draw(
        st.sampled_from(
            [
                "{address}",
                "<{address}>",
                "{name} <{address}>",
                '"{name}" <{address}>',
                "\"'{name}'\" <{address}>",
                '"{name}, {name}" <{address}>',
                "{address} ({name})",
                "{name} ({name}) <{address}>",
                "{name}: {address};",
                "{name}: {address}, <{address}>;",
                '"{name} <{address}>',
                "{name} <{address}",
                "({name} {address}",
                "{name} {address}",
                "<{name}> {address}",
                "{name} <mailto:{address}>",
                '"{name} \\" <{address}>',
            ]
        )
    )
    return form.format(name=name, address=address)


sound_lists = st.lists(entries(), min_size=1, max_size=6).map(", ".join)
junk = st.lists(st.one_of(outside, inside, words, punctuation), max_size=12).map("".join)
values = st.one_of(sound_lists, junk, st.tuples(sound_lists, junk).map("".join))
names = st.sampled_from(
    ["To", "TO", "to", "Cc", "CC", "Bcc", "Resent-To", "Resent-Cc", "Reply-To", "Resent-Bcc", "Subject"]
)
authors = st.sampled_from(
    [
        "Clerk <clerk@council.test>",
        "clerk@elsewhere.test",
        '"me@elsewhere.test" <clerk@council.test>',
        "=?utf-8?q?me=40elsewhere.test?= <clerk@council.test>",
        "cl\u00e9rk@council.test",
        "",
    ]
)
headers = st.tuples(authors, st.lists(st.builds(Field, names, values), max_size=6)).map(
    lambda parts: (Field("From", parts[0]), *parts[1])
)


def recipient_fields(fields: tuple[Field, ...]) -> list[Field]:
    """The fields in which a person reads who received a message."""
    return [field for field in fields if field.name.casefold() in RECIPIENT_FIELDS]


def decoded(value: str) -> str:
    """A value as a mail client decodes it; or unchanged if the standard library cannot decode it."""
    try:
        parts = email.header.decode_header(value.encode("ascii", "replace").decode())
        return "".join(
            part if isinstance(part, str) else part.decode(charset or "latin-1", "replace") for part, charset in parts
        )
    except (email.errors.HeaderParseError, LookupError, ValueError):
        return value


def parsed(value: str) -> list[str]:
    """The addresses that the standard library's most tolerant reading finds."""
    lenient = {"strict": False} if "strict" in inspect.signature(getaddresses).parameters else {}
    return [address for _, address in getaddresses([value], **lenient)]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(headers)
@example((Field("From", "clerk@elsewhere.test"), Field("To", "ann@council.test"), Field("To", "anna@outside.test")))
def test_no_address_outside_is_left(fields: tuple[Field, ...]) -> None:
    """After the edits no reader finds an address outside in a recipient field, or the rewrite was refused."""
    message = Message("clerk@council.test", (), fields)
    try:
        edits = hide(POLICY, message)
    except Unsafe:
        return
    after = apply(fields, edits)
    left = expose(POLICY, after)
    assert (left.external, left.partner) == ((), ())
    for field in recipient_fields(after):
        assert not OUTSIDE.search(field.value)
        assert not OUTSIDE.search(decoded(field.value))
        assert not [address for address in parsed(field.value) if OUTSIDE.search(address)]


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(headers)
def test_the_form_of_what_is_left(fields: tuple[Field, ...]) -> None:
    """One To, no Bcc, ASCII where something was written, the bytes as they were everywhere else."""
    message = Message("clerk@council.test", (), fields)
    try:
        edits = hide(POLICY, message)
    except Unsafe:
        return
    after = apply(fields, edits)
    counted = [field.name.casefold() for field in recipient_fields(after)]
    assert counted.count("to") == 1
    assert not {"bcc", "resent-bcc"} & set(counted)
    written = [edit for edit in edits if not isinstance(edit, HeaderDeletion)]
    for edit in written:
        assert re.fullmatch(r"[ -~]+(?:\n [ -~]+)*", edit.value)
        assert not re.search(r"@[\s(]*(?:outside|elsewhere)", edit.value) or edit.name.lower() == "reply-to"
        assert max(map(len, edit.value.split("\n"))) <= 998
    for field in after:
        assert field in fields or field.value in [edit.value for edit in written]
    assert [field for field in after if field.name == "Subject"] == [
        field for field in fields if field.name == "Subject"
    ]


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(headers)
def test_hiding_twice_is_hiding_once(fields: tuple[Field, ...]) -> None:
    """A second rewrite finds nothing to edit."""
    message = Message("clerk@council.test", (), fields)
    try:
        after = apply(fields, hide(POLICY, message))
    except Unsafe:
        return
    assert hide(POLICY, replace(message, fields=after)) == ()


fields_of_few_names = st.lists(st.builds(Field, st.sampled_from(["A", "a", "B"]), st.sampled_from("123")), max_size=6)
edits = st.lists(
    st.one_of(
        st.builds(HeaderChange, st.sampled_from("AaB"), st.integers(1, 4), st.sampled_from(["x", ""])),
        st.builds(HeaderDeletion, st.sampled_from("AaB"), st.integers(1, 4)),
        st.builds(HeaderInsertion, st.sampled_from("AaB"), st.just("y")),
    ),
    max_size=6,
)


@given(fields_of_few_names, edits)
def test_edits_are_applied_as_counting_says(
    fields: list[Field], edits: list[HeaderChange | HeaderDeletion | HeaderInsertion]
) -> None:
    """`apply` agrees with the rule spelled out one field at a time: the index counts what is there at that moment."""
    expected = list(fields)
    for edit in edits:
        value = "" if isinstance(edit, HeaderDeletion) else edit.value
        places = [place for place, field in enumerate(expected) if field.name.lower() == edit.name.lower()]
        if isinstance(edit, HeaderInsertion) or (edit.index > len(places) and value):
            expected.append(Field(edit.name, value))
        elif edit.index <= len(places):
            expected[places[edit.index - 1] : places[edit.index - 1] + 1] = [Field(edit.name, value)] if value else []
    assert apply(fields, edits) == tuple(expected)
