"""reader.py: the addresses that a person can read in one field value, case by case."""

from __future__ import annotations

import base64

import pytest

from undisclosed.addresses import Address, Mailbox, addresses, mailboxes, visible


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ann@x.test", ["ann@x.test"]),
        ("<ann@x.test>", ["ann@x.test"]),
        ("Ann Lee <ann@x.test>", ["ann@x.test"]),
        ('"Lee, Ann" <ann@x.test>, bob@y.test', ["ann@x.test", "bob@y.test"]),
        ('"Ann \\"Jo\\" Lee" <ann@x.test>', ["ann@x.test"]),
        ("O'Neill <o'neill@x.test>", ["o'neill@x.test"]),
        ("=?utf-8?q?Zo=C3=AB_Lee?= <zoe@x.test>", ["zoe@x.test"]),
        ("=?UTF-8?B?Wm/DqyBMZWU=?= <zoe@x.test>", ["zoe@x.test"]),
        ("Zoë Lee <zoe@x.test>", ["zoe@x.test"]),
        ("\n ann@x.test,\n\tbob@y.test,\n carol@z.test", ["ann@x.test", "bob@y.test", "carol@z.test"]),
        ("ann@x.test (Ann Lee)", ["ann@x.test"]),
        ("(work (mostly)) ann@x.test (Ann (Jo) Lee)", ["ann@x.test"]),
        ('ann@x.test (6" pipe), "Bob" <bob@y.test> (7" pipe)', ["ann@x.test", "bob@y.test"]),
        ("Friends: ann@x.test, Bob <bob@y.test>;, carol@z.test", ["ann@x.test", "bob@y.test", "carol@z.test"]),
        ("A:ann@x.test;B:bob@y.test;", ["ann@x.test", "bob@y.test"]),
        ("undisclosed-recipients:;", []),
        ("<@relay.test,@mx.test:ann@x.test>", ["ann@x.test"]),
        ("Ann<@relay.test:ann@x.test>", ["ann@x.test"]),
        ("Ann <@relay.test,\n @mx.test:ann@x.test>", ["ann@x.test"]),
        ('"ann lee"@x.test', ['"ann lee"@x.test']),
        ('Ann <"ann@home"@x.test>', ["ann@home", '"ann@home"@x.test']),
        ('""@x.test', ['""@x.test']),
        ("ann@[192.0.2.1], ann@[IPv6:2001:db8::1]", ["ann@[192.0.2.1]", "ann@[IPv6:2001:db8::1]"]),
        ("root@localhost", ["root@localhost"]),
        ("'@x.test, !@localhost, <~@y.test>", ["'@x.test", "!@localhost", "~@y.test"]),
        ("a!b%c=d+e{f}~g@x.test", ["a!b%c=d+e{f}~g@x.test"]),
    ],
)
def test_well_formed_fields(value: str, expected: list[str]) -> None:
    """The syntax of RFC 5322 is read correctly."""
    assert expected == visible(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("pete(at home)@example(dot).test", ["pete@example.test"]),
        ("pete . lee @ example . test", ["pete.lee@example.test"]),
        ("pete\n @example.test", ["pete@example.test"]),
        ("pete@\n example.test", ["pete@example.test"]),
        ("pete@example(a). (b) test", ["pete@example.test"]),
        ('pete."van lee".(x)jr@x.test', ['"pete.van lee.jr"@x.test']),
        ('"pete"."lee"@x.test', ["pete.lee@x.test"]),
        ("a.(b c)d@x.test", ["a.d@x.test"]),
        ("Q. Lee ann@x.test", ["ann@x.test"]),
    ],
)
def test_obsolete_spellings(value: str, expected: list[str]) -> None:
    """Comments, folding and blanks within an address, legal until RFC 2822 (RFC 5322, 4.4), do not split it."""
    assert expected == visible(value)


@pytest.mark.parametrize(
    "value",
    [
        "'ann@x.test' <ann@x.test>",
        '"ann@x.test" <ann@x.test>',
        "\"'ann@x.test'\" <ann@x.test>",
        "\u2018ann@x.test\u2019 <ann@x.test>",
        "\u201cann@x.test\u201d <ann@x.test>",
        "\xabann@x.test\xbb ann@x.test",
        "ann@x.test <mailto:ann@x.test>",
        "ann@x.test<mailto:ann@x.test>",
        "[mailto:ann@x.test] ann@x.test",
        "<mailto:ann%40x.test?subject=Hello>, ann@x.test",
        "&lt;ann@x.test&gt; ann@x.test",
        "*ann@x.test* `ann@x.test` _ann@x.test_ {ann@x.test} |ann@x.test| ann@x.test",
        "ftp://ann@x.test ann@x.test",
        "ann@x.test (ann@x.test)",
        "ann@x.test, Ann@X.Test, ANN@x.test.",
        '"ann"@x.test, ann@x.test, "a\\nn"@x.test',
        "ann@x.test, =?utf-8?q?ann=40x=2Etest?=",
        "ann@x.test, ann\uff20x.test, ann\ufe6bx\uff0etest, ann@x\u3002test, ann@x\uff61test",
        "ann@x.test, an\u200bn@x.test, \u202aann@x.test\u202c, ann@\u00adx.test, \ufeffann@x.test, ann@x.te\x00st",
        "zo\xeb@m\xfcller.test, ZO\xcb@M\xdcLLER.TEST, zoe\u0308@mu\u0308ller.test, zo\xeb@xn--mller-kva.test",
    ],
)
def test_spellings_of_one_address_are_one(value: str) -> None:
    """An address that a client wraps in itself, or in two spellings that look the same, counts once."""
    expected = 1
    assert expected == len(addresses(value))


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ('"ann@x.test" <bob@y.test>', "ann@x.test"),
        ('"Lee (ann@x.test)" <bob@y.test>', "ann@x.test"),
        ('"Lee <ann@x.test>" <bob@y.test>', "ann@x.test"),
        ('"ann\\@x.test" <bob@y.test>', "ann@x.test"),
        ('"ann@x.test"@y.test, bob@y.test', "ann@x.test"),
        ('"ann@"x.test <bob@y.test>', "ann@x.test"),
        ('ann"@x.test" <bob@y.test>', "ann@x.test"),
        ("bob@y.test (ann@x.test)", "ann@x.test"),
        ("bob@y.test ((((ann@x.test))))", "ann@x.test"),
        ("bob(ann@x.test)@y.test", "ann@x.test"),
        ("Lee, ann@x.test <bob@y.test>", "ann@x.test"),
        ("ann@x.test: bob@y.test;", "ann@x.test"),
        ("<@ann@x.test:bob@y.test>", "ann@x.test"),
        ("=?utf-8?q?ann=40x.test?= <bob@y.test>", "ann@x.test"),
        ("=?utf-8?Q?Lee_=28ann=40x.test=29?= <bob@y.test>", "ann@x.test"),
        ("=?utf-8?b?YW5uQHgudGVzdA==?= <bob@y.test>", "ann@x.test"),
        ("=?utf-8?q?ann?= =?utf-8?q?=40x.test?= <bob@y.test>", "ann@x.test"),
        ("=?utf-8?q?an?=\n =?utf-8?b?bkA=?=\n =?utf-8?q?x=2Etest?= <bob@y.test>", "ann@x.test"),
        ("ann=?utf-8?q?=40?=x.test <bob@y.test>", "ann@x.test"),
        ("=?utf-8?q?ann?=@x.test, bob@y.test", "ann@x.test"),
        ("ann@=?utf-8?q?x.test?=, bob@y.test", "ann@x.test"),
        ('"=?utf-8?q?ann=40x.test?=" <bob@y.test>', "ann@x.test"),
        ("bob@y.test (=?utf-8?q?ann=40x.test?=)", "ann@x.test"),
        ("=?iso-8859-1?q?ann=40x.test?= <bob@y.test>", "ann@x.test"),
        ("=?utf-16be?b?AGEAbgBuAEAAeAAuAHQAZQBzAHQ=?= <bob@y.test>", "ann@x.test"),
        ("=?utf-7?q?ann+AEA-x.test?= <bob@y.test>", "ann@x.test"),
        ("=?x-unknown?q?ann=40x.test?= <bob@y.test>", "ann@x.test"),
        ("=?utf-8*en?q?ann=40x.test?= <bob@y.test>", "ann@x.test"),
        ("=?utf-8?q?Ann Lee ann=40x.test?= <bob@y.test>", "ann@x.test"),
        ("bob@y.test, =?utf-8?q?ann=40x.test", "ann@x.test"),
        ("bob@y.test, =?utf-8?b?YW5uQHgudGVzdA", "ann@x.test"),
        ("=?utf-8?q?ann=EF=BC=A0x.test?= <bob@y.test>", "ann@x.test"),
        ("=?utf-8?q?ann=EF=BC?= =?utf-8?q?=A0x.test?= <bob@y.test>", "ann@x.test"),
        ("=?utf-8?b? ann@x.test ?= <bob@y.test>", "ann@x.test"),
        ("=?iso-2022-jp?q?=1B$B ann@x.test?= <bob@y.test>", "ann@x.test"),
        ("<mailto:bob%40y.test?cc=ann%40x.test>", "ann@x.test"),
        ("Name [ann@x.test] <bob@y.test>", "ann@x.test"),
        ("\uff1cann@x.test\uff1e\uff0cbob@y.test", "ann@x.test"),
    ],
)
def test_hidden_addresses_count(value: str, hidden: str) -> None:
    """An address in a name, quotes, a comment, an encoded word, a route or a link is visible, so it counts."""
    keys = {address.key for address in addresses(value)}
    assert {addresses(hidden)[0].key, ("bob", "y.test")} <= keys


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("ann@x.test bob@y.test", 2),
        ("ann@x.test;bob@y.test; carol@z.test;", 3),
        ("ann@x.test / bob@y.test|carol@z.test\xb6dan@w.test", 4),
        ("ann@x.test/bob@y.test", 2),
        ("<ann@x.test><bob@y.test>", 2),
        ("ann@x.test<bob@y.test>", 2),
        ('"A" <ann@x.test>"B" <bob@y.test>', 2),
        ("ann@x.testbob@y.test", 2),
        ("ann@x.test@bob@y.test", 2),
        ("ann@x.test.bob@y.test", 2),
        ("ann@x.test. bob@y.test", 2),
        (",,, ,ann@x.test,,;bob@y.test,", 2),
        ("ann@x.test\uff0cbob@y.test\uff1bcarol@z.test\u3001dan@w.test", 4),
        ('"Lee, Ann <ann@x.test>, Bob <bob@y.test>', 2),
        ('Lee, Ann" <ann@x.test>, "Bob" <bob@y.test>', 2),
        ('"Lee, Ann <ann@x.test>, "Bob" <"bob b"@y.test>', 2),
        ("(Ann <ann@x.test>, Bob <bob@y.test>", 2),
        ("Ann) <ann@x.test>, (Bob <bob@y.test>", 2),
        ("(a (b ann(x)@x.test (c) bob@y(d).test", 2),
        ("Ann <ann@x.test, Bob <bob@y.test", 2),
        ("Ann ann@x.test>, Bob bob@y.test>", 2),
        ("Friends: ann@x.test, bob@y.test", 2),
        ("ann@[192.0.2.1, bob@[192.0.2.2]", 2),
        ("ann@[bob@y.test]", 2),
        ("ann>@x.test, bob<@y.test", 2),
        ("ann,@x.test; bob;@y.test", 2),
        ("ann@@x.test, bob@,y.test, carol@&z.test", 3),
        ("ann\\@x.test, bob@\\y.test", 2),
        ("a\\b@x.test, c\\b@x.test", 2),
        ('"\\"ann lee\\"@x.test, \\"bob lee\\"@x.test" <carol@z.test>', 3),
        ('"\\"ann lee\\"@x.test, \\"bob lee\\"@x.test', 2),
        ('("ann lee"@x.test, "bob lee"@x.test)', 2),
        ('Lee" <"ann lee"@x.test>, "bob lee"@x.test, "carol lee"@x.test', 3),
        ("=?utf-8?q?ann_lee@x.test, bob_lee@x.test?=", 3),
        ("=?utf-8?q? a_lee@x.test ?= =?utf-8?q? b_lee@x.test ?=", 3),
        ("ann@x.test, Bob <bob@y.te", 2),
        ("ann@x.test, Bob <bob@", 1),
        ("ann@\udcfcx.test, b\udcfcb@y.test", 2),
        ("\x1bann@x.test\x07, bob\x00@y.test", 2),
        ("a\x07nn@x.test, b\x07nn@x.test", 2),
        ("(write to ann@x.test. Thanks!) bob@y.test. Bye <carol@z.test>", 3),
        ("ann@gateway.test. council.test", 2),
    ],
)
def test_broken_fields_count_no_less(value: str, count: int) -> None:
    """Wrong separators, unclosed marks, cuts, stray marks, raw bytes and control characters hide no address."""
    assert count == len(addresses(value))


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "\n ", ",", ";", "<>", "@", "@@", "ann", "ann@", "@x.test", "<@x.test>", "Ann Lee", '"Ann Lee"'),
        *("ann [at] x.test", "ann at x.test", "ann(at)x.test", "ann@.", "ann@-", '"@"', "(@)", "<@>", "ann @", "[@]"),
        *(
            "'@'",
            "Users of '@' <>",
            "ann@\u200d",
            "Ann@ <>",
            "!@!",
            "Ann !@Q! Lee",
            '"c:\\\\ann@pc\\\\x"',
            "\u200b@\u200b",
        ),
        *("=?utf-8?q??=", "=?utf-8?q?=40?=", "mailto:", "=?utf-8?b?QA==?=", '"Ann @ Lee"', "(meet @ noon)"),
        "https://x.test/~ann",
    ],
)
def test_what_is_no_address(value: str) -> None:
    """A bare word, an at sign alone, spelled-out obfuscation and prose are no addresses."""
    assert not visible(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Ann.Lee@X.Test", ("Ann.Lee@X.Test", "ann.lee", "x.test")),
        ("<ann@x.test.>", ("ann@x.test", "ann", "x.test")),
        ('"Ann Lee"@x.test', ('"Ann Lee"@x.test', "ann lee", "x.test")),
        ('"a\\"b"@x.test', ('"a\\"b"@x.test', 'a"b', "x.test")),
        ('"ann\n lee"@x.test', ('"ann lee"@x.test', "ann lee", "x.test")),
        ('ann."b c"@x.test', ('"ann.b c"@x.test', "ann.b c", "x.test")),
        ("Stra\xdfe@x.test", ("Stra\xdfe@x.test", "strasse", "x.test")),
        ("ann@M\xfcller.test", ("ann@M\xfcller.test", "ann", "xn--mller-kva.test")),
        ("ann\uff20x\u3002test", ("ann@x\u3002test", "ann", "x.test")),
        ("Ann@[IPv6:2001:DB8::1]", ("Ann@[IPv6:2001:DB8::1]", "ann", "[ipv6:2001:db8::1]")),
        ("ann(c)@x(d).test", ("ann@x.test", "ann", "x.test")),
        ("b\udcf6b@x.test", ("b\udcf6b@x.test", "b\udcf6b", "x.test")),
        ("ann@b\udcf6b.test", ("ann@b\udcf6b.test", "ann", "b\udcf6b.test")),
        ("'ann@x.test'", ("ann@x.test", "ann", "x.test")),
    ],
)
def test_how_an_address_is_spelled(value: str, expected: tuple[str, str, str]) -> None:
    """The text is the bare address as written, the local part unquoted and case-folded, the domain an A-label."""
    address = addresses(value)[0]
    assert Address(*expected) == address
    assert expected[1:] == address.key


def test_addresses_come_in_order_of_first_sight() -> None:
    """In the order of the text, also with names, quotes and comments; a repeated address keeps its first place."""
    value = 'c@x.test, "b@x.test" <a@x.test> (d@x.test), C@x.test, =?utf-8?q?e=40x.test?= <f@x.test>'
    expected = ["c@x.test", "b@x.test", "a@x.test", "d@x.test", "e@x.test", "f@x.test"]
    assert expected == visible(value)


def test_the_scan_takes_over_in_the_middle() -> None:
    """A list of hundreds in common forms with one broken entry loses none, before, at or behind it."""
    entries = [f"Ann {number} <ann{number}@family{number}.test>" for number in range(300)]
    entries[150] = '"Ann 150 <ann150@family150.test>'
    assert [f"ann{number}@family{number}.test" for number in range(300)] == visible(", ".join(entries))


def test_names_that_look_structured_stay_names() -> None:
    """Encoded words that decode to commas, quotes and brackets neither split nor hide an entry."""
    name = base64.b64encode(b'Lee, "Ann" <(; :-(').decode()
    expected = ["ann@x.test", "bob@y.test"]
    assert expected == visible(f"=?utf-8?b?{name}?= <ann@x.test>, =?utf-8?b?{name}?= <bob@y.test>")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("undisclosed-recipients:;", []),
        ("Ann <ann@x.test>", [("Ann", "ann@x.test")]),
        ('"Lee, Ann" <ann@x.test>, bob@y.test', [("Lee, Ann", "ann@x.test"), ("", "bob@y.test")]),
        ("Team: Ann <ann@x.test>, bob@y.test;, Carol <carol@z.test>",
         [("Ann", "ann@x.test"), ("", "bob@y.test"), ("Carol", "carol@z.test")]),
        ("ann@x.test (Ann Lee)", [("", "ann@x.test")]),
        ("Ann (ann@home.test) <ann(bob@y.test)@x(c).test>", [("Ann", "ann@x.test")]),
        ("=?utf-8?q?Zo=C3=AB?= =?utf-8?q?_Lee?= <zoe@x.test>", [("Zo\xeb Lee", "zoe@x.test")]),
        ('"=?utf-8?q?Zo=C3=AB?=" <zoe@x.test>', [("Zo\xeb", "zoe@x.test")]),
        ("=?utf-8?q?Ann=0D=0ABcc=3A_x?= <ann@x.test>", [("Ann Bcc: x", "ann@x.test")]),
        ('"Ann\n\tLee" <ann@x.test>', [("Ann Lee", "ann@x.test")]),
        ("Ann <Lee> <ann@x.test>", [("Ann <Lee>", "ann@x.test")]),
        ("<@relay.test,@mx.test:ann@x.test>", [("", "ann@x.test")]),
        ("ann@[IPv6:2001:db8::1], Bob <bob@y.test>", [("", "ann@[IPv6:2001:db8::1]"), ("Bob", "bob@y.test")]),
        ("bob@y.test <ann@x.test>", [("bob@y.test", "ann@x.test")]),
        ("ann@x.test bob@y.test", [("", "ann@x.test"), ("", "bob@y.test")]),
        ("Ann <ann@x.test>Bob <bob@y.test>", [("Ann", "ann@x.test"), ("Bob", "bob@y.test")]),
        ("Ann <ann@x.test, Bob <bob@y.test", [("Ann", "ann@x.test"), ("Bob", "bob@y.test")]),
        ("Ann <ann@x.test>; Bob <bob@y.test>", [("Ann", "ann@x.test"), ("Bob", "bob@y.test")]),
        ("<ann@x.test>, <>, <bob@>", [("", "ann@x.test")]),
        ('bob@y.test, "Ann@home <ann@x.test', [("", "bob@y.test"), ('"Ann@home', "ann@x.test")]),
        ("ann@=?utf-8?q?x,y.test?=", [("", "ann@x")]),
    ],
)  # fmt: skip
def test_entries_of_a_list(value: str, expected: list[tuple[str, str]]) -> None:
    """Entries keep their decoded names; groups are flattened, comments dropped; the rest are bare addresses."""
    assert expected == [(box.name, box.address.text) for box in mailboxes(value)]


def test_a_mailbox_holds_the_address_that_counts() -> None:
    """The address of an entry equals the one that `addresses` returns."""
    value = 'Ann <Ann@X.test>, "Bob" <bob(c)@y.test>'
    assert [Mailbox("Ann", addresses(value)[0]), Mailbox("Bob", addresses(value)[1])] == mailboxes(value)


@pytest.mark.parametrize(
    "unit", ["(", '"', "<", "a@", "=?utf-8?q?", "g:", "\\", '\\"', "a@b(", "@", '"a" ', "'", "[", ")"]
)
def test_deep_nesting_overflows_nothing(unit: str) -> None:
    """Twenty thousand repetitions of any mark are read without recursion."""
    assert {("ann", "x.test")} <= {each.key for each in addresses(f"ann@x.test, {unit * 20_000}")}
