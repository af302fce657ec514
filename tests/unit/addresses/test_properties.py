"""reader.py and scanner.py: properties of every field (hypothesis)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from email.charset import QP, Charset
from email.header import Header
from types import FrameType

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from support.address_forms import FORMS, MARKS, domain_of, local_of
from undisclosed.addresses import addresses, mailboxes, visible
from undisclosed.addresses.domains import to_ascii
from undisclosed.addresses.encoded_words import decoded
from undisclosed.addresses.reader import mailboxes_by_grammar
from undisclosed.addresses.scanner import scan

ANY_TEXT = st.text(alphabet=st.characters(codec=None))
"""Every code point, lone surrogates (raw bytes) and controls included."""

FIELDS = st.lists(st.sampled_from(MARKS) | ANY_TEXT | st.from_regex(r"[a-z]{1,3}@[a-z]{1,3}\.test", fullmatch=True))
SOUP = FIELDS.map("".join)
"""Text with many of the characters that have a meaning in an address list."""

NAME = st.sampled_from(["Ann", "Ann Lee", "Zo\xeb", "Ann-Marie O'Neill", "Dr. Lee", "R&D"])
NUMBERS = st.lists(st.integers(1, 99), min_size=1, max_size=5, unique=True)
"""Numbers, from which local parts and domains of distinct addresses are made."""


SEPARATORS = [", ", ",", ",\n ", ",\n\t", " , ", "; ", ";", ",,"]


@st.composite
def well_formed(draw: st.DrawFn, forms: list[str] = FORMS) -> tuple[str, int]:
    """An address list, and the number of distinct addresses in it."""
    numbers, separator = draw(NUMBERS), draw(st.sampled_from(SEPARATORS))
    entries = [
        draw(st.sampled_from(forms)).format(
            local=local_of(number), domain=domain_of(number), name=draw(NAME), number=number
        )
        for number in numbers
    ]
    return separator.join(entries), len(numbers)


@given(ANY_TEXT | SOUP)
@example("=?utf-8?q?_?= =?utf-8?b?=?=")
@example('"\\')
@example("a@[\\")
@example("a@\u2025 a@\ufe19 a@\xb4")
@example('" "ann,\n lee"@f.test')
def test_any_text_is_read(value: str) -> None:
    """Nothing raises; keys are distinct; every address has both parts, and a domain in the canonical spelling."""
    found_here = addresses(value)
    assert len(found_here) == len({each.key for each in found_here})
    assert visible(value) == [each.text for each in found_here]
    for each in found_here:
        assert "@" in each.text
        assert each.domain
        assert each.domain.lower() == each.domain
        assert "@" not in each.domain
        assert each.domain == to_ascii(each.domain)
        assert each.domain.startswith("[") or not any(map(str.isspace, each.domain))
        assert not {"\n", "\r"} & set(each.text)


@given(ANY_TEXT | SOUP)
def test_an_entry_is_never_an_address_that_was_not_counted(value: str) -> None:
    """The address of every entry is a visible one, and a name has neither line end nor control character."""
    counted = addresses(value)
    for box in mailboxes(value):
        assert box.address.key in {each.key for each in counted}
        assert not any(mark < " " or mark == "\x7f" for mark in box.name)


@given(well_formed())
def test_well_formed_lists_are_counted_exactly(made: tuple[str, int]) -> None:
    """In any form and mixture of forms, each address counts once."""
    value, count = made
    assert count == len(addresses(value))


@given(well_formed())
def test_both_readers_agree(made: tuple[str, int]) -> None:
    """The fast expression and the tolerant scan find the same addresses, spelled the same."""
    scanned = {(local, domain): text for text, local, domain in reversed(scan(made[0]))}
    assert scanned == {each.key: each.text for each in addresses(made[0])}


@given(well_formed(), st.data())
def test_one_stray_mark_hides_nothing(made: tuple[str, int], data: st.DataObject) -> None:
    """A mark inserted into a well-formed list, or removed from it, never lowers the count."""
    value, count = made
    place = data.draw(st.integers(0, len(value)))
    mark = data.draw(st.sampled_from(["", *"\"()<>,;:\\[].' \t@&*", "\n ", '""', "()", "<>", "\x00", "\u200b", "?="]))
    if mark:
        broken = value[:place] + mark + value[place:]
    else:
        taken = value[place : place + 1]
        assume(taken in '"()<>,;:[]')
        broken = value[:place] + value[place + 1 :]
    assert count <= len(addresses(broken))


@given(well_formed(), well_formed())
def test_what_follows_hides_nothing(one: tuple[str, int], other: tuple[str, int]) -> None:
    """Two lists in one show all addresses of both."""
    keys = {each.key for value, _ in (one, other) for each in addresses(value)}
    assert keys == {each.key for each in addresses(f"{one[0]}, {other[0]}")}


@given(well_formed([form for form in FORMS if "relay" not in form]), st.data())
def test_a_cut_field_shows_what_is_before_the_cut(made: tuple[str, int], data: st.DataObject) -> None:
    """A field cut anywhere counts at least the entries that are whole."""
    value, _ = made
    cut = data.draw(st.integers(0, len(value)))
    whole = max((value.rfind(mark, 0, cut) for mark in (",\n", ", ", "; ")), default=-1)
    whole_entries = value[:whole] if whole > 0 else ""
    assume(not whole_entries.count('"') % 2 and whole_entries.count("(") == whole_entries.count(")"))
    assert len(addresses(whole_entries)) <= len(addresses(value[:cut]))


@pytest.mark.parametrize(
    "hide",
    [
        '"{}" <bob@y.test>',
        '"Lee ({})" <bob@y.test>',
        "Bob <bob@y.test> ({})",
        "Bob <bob@y.test> (a (b {} c) d)",
        "bob(({}))@y.test",
        "{}: bob@y.test;",
        '"unterminated {}, bob@y.test',
        "(unterminated {}, bob@y.test",
        "{} <bob@y.test>",
        "[{}] bob@y.test",
        "bob@y.test&lt;{}&gt;",
        "bob@y.test <mailto:{}>",
        "bob@y.test\uff0c{}\u3001",
        "bob@y.test \u201c{}\u201d",
        "bob@y.test, =?utf-8?q?{}",
        '"\\"{}\\"" <bob@y.test>',
    ],
)
@given(number=st.integers(1, 99))
@settings(max_examples=20)
def test_an_address_counts_wherever_it_stands(hide: str, number: int) -> None:
    """An address in quotes, comments, names, groups and links, ended or not, is found."""
    local, domain = local_of(number), domain_of(number)
    assert {(local, domain), ("bob", "y.test")} <= {each.key for each in addresses(hide.format(f"{local}@{domain}"))}


@given(
    name=st.text(alphabet=st.characters(categories=["L", "N", "Zs"])),
    number=st.integers(1, 99),
    charset=st.sampled_from(["utf-8", "utf-16", "utf-7", "gb18030"]),
    quoted_printable=st.booleans(),
    length=st.integers(20, 200),
)
def test_encoded_names_show_what_they_hold(
    name: str, number: int, charset: str, quoted_printable: bool, length: int
) -> None:
    """An address in a display name that the standard library encoded, cut into words of any length, is found."""
    local, domain, how = local_of(number), domain_of(number), Charset(charset)
    how.header_encoding = QP if quoted_printable and charset == "utf-8" else how.header_encoding or 2
    field = Header(f"{name} {local}@{domain}", how, maxlinelen=length).encode()
    assert {(local, domain), ("bob", "y.test")} <= {each.key for each in addresses(f"{field} <bob@y.test>")}


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.integers(20, 90))
def test_encoded_words_decode_to_what_was_encoded(text: str, length: int) -> None:
    """Text that the standard library encodes is decoded, however often it was folded."""
    text = " ".join(text.split())
    assert text == decoded(Header(text, "utf-8", maxlinelen=length).encode()).strip() or "=?" in text


@pytest.mark.parametrize(
    "unit",
    [
        *("(", '"', "<", "a@", "=?utf-8?q?", "g:", "\\", '\\"', "a@b(", "<a@", '"a" ', ",", "@", ".", "=?utf-8?b?"),
        *("a@b, ", "a. ", "(a@b)", '"a@b" ', 'a"@b.c" ', "a@b. c", "a\\", "[", "a@[", "<@a.b,", "'@", "mailto:%40"),
    ],
)
def test_work_grows_with_the_length_of_the_field(unit: str) -> None:
    """Four times as much of anything takes at most five times as many calls, by both functions."""
    for function in (addresses, mailboxes):
        few, many = (_calls(function, unit * count) for count in (100, 400))
        assert many <= 5 * few


@pytest.mark.parametrize(
    ("begin", "middle", "end"),
    [("a.(", "", ")b@c.d"), ("(", "", "a@b.c)"), ("a(", "", ")@b.c "), ('"\\', '"a@b.c', ""), ("<(", "a@b", ")>")],
)
def test_work_grows_with_the_depth_of_nesting(begin: str, middle: str, end: str) -> None:
    """Nested comments and quotes cost no more than the same marks in a row."""
    few, many = (_calls(addresses, begin * depth + middle + end * depth) for depth in (100, 400))
    assert many <= 5 * few


def _calls(function: Callable[[str], object], value: str) -> int:
    """The number of calls, of Python and of C, that reading a field takes: independent of the load of the machine."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function(value)
    finally:
        sys.setprofile(None)
    return count


WORDS = st.text(alphabet="aZ9_ .,()'&-\n\"<>@;:=?%\\", max_size=8)
ENTRY = st.builds(
    "{}{}{}<{}>{}".format, st.sampled_from(["", '"']), WORDS, st.sampled_from(["", '" ', " "]), WORDS, WORDS
)
COMMON = st.lists(
    st.builds("{} <{}>".format, NAME, st.just("ann@home.example")) | ENTRY | WORDS | st.just("bob@work.test"),
    max_size=4,
)


@settings(max_examples=500)
@given(COMMON.map(", ".join) | SOUP)
@example('"Last, First" <a@b.test>, ann.lee@home.example,\n\tO\'Neill & Sons <c@d.test> ,')
@example("'ann@home.example' <ann@home.example>")
@example("Ann <a@b.test> <c@d.test>")
@example("a=?utf-8?q?=40?=@b.test")
def test_the_quick_look_at_entries_sees_what_the_grammar_sees(value: str) -> None:
    """The same names and addresses in the same order, for any text."""
    assert mailboxes(value) == mailboxes_by_grammar(value)
