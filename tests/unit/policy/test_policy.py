"""policy.py, sections.py, types.py and senders.py: the meaning of settings, and that none is silently ignored."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from support.factories import make_rule, message, policy, rule
from undisclosed.decision.exposure import expose
from undisclosed.decision.message import Client, Field
from undisclosed.decision.rules import decide
from undisclosed.policy import Refused, Rule, Standing
from undisclosed.policy.senders import Senders
from undisclosed.policy.types import Socket, parse_socket


def refused(**over: Any) -> str:
    """The error for a policy that is refused."""
    with pytest.raises(ValidationError) as caught:
        policy(**over)
    return str(caught.value)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("council.test", Standing.INTERNAL),
        ("mail.council.test", Standing.INTERNAL),
        ("a.b.council.test", Standing.INTERNAL),
        ("notcouncil.test", Standing.EXTERNAL),
        ("council.test.evil.example", Standing.EXTERNAL),
        ("test", Standing.EXTERNAL),
        ("", Standing.EXTERNAL),
        ("xn--mnchen-3ya.test", Standing.INTERNAL),
        ("office.xn--mnchen-3ya.test", Standing.EXTERNAL),
        ("partner.test", Standing.EXTERNAL),
        ("branch.partner.test", Standing.PARTNER),
        ("school.branch.partner.test", Standing.INTERNAL),
        ("[192.0.2.1]", Standing.EXTERNAL),
    ],
)
def test_the_standing_of_a_domain(domain: str, expected: Standing) -> None:
    """A plain domain matches itself, one with a leading dot all domains below; internal precedes partner."""
    internal = ["Council.TEST.", ".council.test", "MÜNCHEN.test", "school.branch.partner.test"]
    organisation = {"internal_domains": internal, "partner_domains": [".Partner.test."]}
    assert expected is policy(organisation=organisation).standing(domain)


def test_a_domain_below_an_idn_is_found() -> None:
    """`.münchen.test` is configured in Unicode, and domains in mail are A-labels."""
    ours = policy(organisation={"internal_domains": [".münchen.test"]})
    assert ours.standing("post.xn--mnchen-3ya.test") is Standing.INTERNAL
    assert ours.standing("xn--mnchen-3ya.test") is Standing.EXTERNAL


@pytest.mark.parametrize("key", ["internal_domains", "partner_domains"])
@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("co.uk", "public suffix"),
        (".uk", "public suffix"),
        (".GOV.UK.", "public suffix"),
        ("kent.sch.uk", "public suffix"),
        ("github.io", "public suffix"),
        ("gmail.com", "personal-mail provider"),
        (".gmail.com", "personal-mail provider"),
        ("GMail.com.", "personal-mail provider"),
        ("eu.gmail.com", "personal-mail provider"),
        ("btinternet.com", "personal-mail provider"),
        ("privaterelay.appleid.com", "personal-mail provider"),
    ],
)
def test_public_suffixes_and_personal_mail_are_refused(key: str, domain: str, why: str) -> None:
    """Neither may be internal or partner: the public can register domains or open mailboxes there."""
    assert why in refused(organisation={key: ["council.test", domain]})


def test_a_personal_mail_provider_may_be_its_own_organisation() -> None:
    """A provider removes its own domain from the list; its addresses are then one organisation."""
    remove = {"personal_mail_remove": ["BTinternet.com"]}
    ours = policy(organisation={"internal_domains": ["btinternet.com"]}, counting=remove)
    assert ours.standing("btinternet.com") is Standing.INTERNAL
    assert not ours.is_personal_mail("btinternet.com")
    assert ours.is_personal_mail("gmail.com")


def test_a_provider_that_the_list_lacks_can_be_added() -> None:
    """Each address there, and below it, is then an organisation of its own, and the domain cannot be a partner."""
    counting = {"personal_mail_add": [".village-net.test"]}
    fields = (Field("To", "a@village-net.test, b@mail.village-net.test"),)
    assert expose(policy(), fields).organisations == 1
    assert expose(policy(counting=counting), fields).organisations == 2
    assert "personal-mail provider" in refused(
        counting=counting, organisation={"partner_domains": ["village-net.test"]}
    )


def test_colleagues_are_one_organisation_and_families_are_many() -> None:
    """The registrable domain for a firm, the address for a personal-mail provider, the literal for a literal."""
    domains = ["firm.test", "post.firm.test", "gmail.com", "[192.0.2.1]"]
    names = [policy().known(domain).organisation for domain in domains]
    assert names == ["firm.test", "firm.test", None, "[192.0.2.1]"]
    fields = (Field("To", "a@firm.test, b@post.firm.test, A@gmail.com, c@gmail.com, d@[192.0.2.1], e@[192.0.2.1]"),)
    assert expose(policy(), fields).organisations == 4


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (None, True),
        ("unknown", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("IPv6:::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.77", True),
        ("192.0.2.77", True),
        ("192.0.3.1", False),
        ("2001:db8::25", True),
        ("2001:db9::25", False),
        ("fe80::1%eth0", False),
        ("198.51.100.7", False),
    ],
)
def test_which_clients_are_in_scope(client: str | None, expected: bool) -> None:
    """Networks of both families, IPv4-mapped IPv6, a scope id; an unknown or unreadable address counts as in scope."""
    scope = policy(scope={"networks": ["127.0.0.0/8", "::1", "192.0.2.0/24", "2001:db8::/32"]}).scope
    assert expected is scope.holds(client)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/milter.sock", Socket("unix", path=Path("/run/milter.sock"))),
        ("local:/run/milter.sock", Socket("unix", path=Path("/run/milter.sock"))),
        ("inet:8899@127.0.0.1", Socket("inet", port=8899, host="127.0.0.1")),
        ("inet:8899", Socket("inet", port=8899)),
        ("inet:08899@localhost", Socket("inet", port=8899, host="localhost")),
        ("inet6:8899@::1", Socket("inet6", port=8899, host="::1")),
        ("inet6:8899@[::1]", Socket("inet6", port=8899, host="[::1]")),
    ],
)
def test_sockets_in_libmilters_syntax(text: str, expected: Socket) -> None:
    """The forms that smfi_setconn accepts."""
    assert expected == parse_socket(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "unix", "unix:", "unix:milter.sock", "unix:/run/", "/run/milter.sock", "8899", "inet:", "inet:@::1"),
        *("inet:0@127.0.0.1", "inet:65536@::1", "inet:127.0.0.1:8899", "inet:8899@127.0.0.1:25", "inet:\uff18"),
        *("inet:8899@a b", "tcp:8899", "inet:8899@host:25", "INET:8899@127.0.0.1", "unix:/" + "a" * 90),
    ],
)
def test_an_invalid_socket_is_refused_with_a_fix(text: str) -> None:
    """Each error says what to write instead; no other exception is raised."""
    with pytest.raises(Refused) as caught:
        parse_socket(text)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("rules", "number"),
    [
        ([rule(), rule(name="2")], 2),
        ([rule(), rule(name="2", more_than_addresses=11, action="quarantine")], 2),
        ([rule(), rule(name="2", more_than_organisations=3)], 2),
        ([rule(), rule(name="2", more_than_addresses=None, more_than_organisations=10)], 2),
        ([rule(more_than_addresses=None, more_than_organisations=0), rule(name="2", more_than_addresses=0)], 2),
        ([rule(action="accept", more_than_addresses=None), rule(name="2")], 2),
        ([rule(senders=["*@council.test"]), rule(name="2", senders=["a@council.test", "b?@COUNCIL.test"])], 2),
        ([rule(except_senders=["a@council.test"]), rule(name="2", except_senders=["a@council.test"])], 2),
        ([rule(except_senders=["a@council.test"]), rule(name="2", except_senders=["*@council.test"])], 2),
        ([rule(except_senders=["a@council.test"]), rule(name="2", senders=["b@council.test"])], 2),
        ([rule(senders=["*", "a@council.test"]), rule(name="2", senders=["<>"])], 2),
        (
            [rule(more_than_addresses=5), rule(name="2", more_than_addresses=2), rule(name="3", more_than_addresses=3)],
            3,
        ),
    ],
)
def test_a_rule_that_no_message_reaches_is_refused(rules: list[dict[str, Any]], number: int) -> None:
    """An earlier rule matches every message that it could match."""
    assert f"'{number}' is never reached" in refused(rules=rules)


@pytest.mark.parametrize(
    "rules",
    [
        [rule(), rule(name="2", more_than_addresses=9)],
        [rule(), rule(name="2", more_than_addresses=None, more_than_organisations=9)],
        [rule(more_than_organisations=3), rule(name="2")],
        [rule(more_than_addresses=None, more_than_organisations=1), rule(name="2", more_than_addresses=100)],
        [rule(senders=["a@council.test"]), rule(name="2")],
        [rule(senders=["a?@council.test"]), rule(name="2", senders=["a*@council.test"])],
        [rule(except_senders=["a@council.test"]), rule(name="2")],
        [rule(except_senders=["*@council.test"]), rule(name="2", except_senders=["a@council.test"])],
        [rule(except_senders=["a@council.test"]), rule(name="2", senders=["a@council.test", "b@council.test"])],
        [rule(senders=["*@*"]), rule(name="2", senders=["*"])],
        [rule(action="accept", more_than_addresses=None, senders=["<>"]), rule(name="2")],
    ],
)
def test_overlapping_rules_are_fine(rules: list[dict[str, Any]]) -> None:
    """A rule is accepted if some message can reach it."""
    assert len(policy(rules=rules).rules) == len(rules)


PATTERNS = ("*", "<>", "*@a.test", "*@*.test", "a@a.test", "A@A.Test", "a*@a.test", "?@a.test", "a?*@*", "*b*", "a*")
SOME = st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True)
SENDERS = st.sampled_from(["", "a@a.test", "b@a.test", "ab@a.test", "aab@b.test", "b@b.test", "root"]) | st.from_regex(
    r"\A[ab]{0,3}@[ab]{1,2}\.test\Z"
)
LIMITS = st.none() | st.integers(0, 4)


@st.composite
def two_rules(draw: st.DrawFn) -> tuple[Rule, Rule]:
    """Two rules with a few of a few patterns and low limits; the later one often a little narrower than the first."""
    made: list[Rule] = []
    for _ in range(2):
        senders, but, narrower = draw(SOME) or ["*"], draw(SOME), draw(st.booleans())
        if made and narrower:
            but += made[0].except_senders
        limits = {"more_than_addresses": draw(LIMITS), "more_than_organisations": draw(LIMITS)}
        action = "reject" if any(limit is not None for limit in limits.values()) else "accept"
        if not Senders(senders).difference(Senders(but)).patterns:
            but = []
        made.append(make_rule(senders=senders, except_senders=but, action=action, **limits))
    return made[0], made[1]


@settings(max_examples=200)
@given(two_rules(), SENDERS, st.integers(0, 6), st.integers(1, 6))
def test_covers_is_never_wrong(rules: tuple[Rule, Rule], sender: str, count: int, of: int) -> None:
    """If `covers` is true, the earlier rule matches every message that the later rule matches."""
    first, later = rules
    to = [f"person{number}@firm{number % of}.test" for number in range(count)]
    mail = message(sender=sender, from_="clerk@council.test", to=", ".join(to), client=Client("127.0.0.1", 25, "clerk"))
    earlier_alone, later_alone = (policy(rules=[one.model_dump()]) for one in (first, later))
    covered = first.covers(later)
    event(f"covered: {covered}")
    if covered and decide(later_alone, mail).rule is not None:
        assert decide(earlier_alone, mail).rule is not None


@given(st.lists(st.sampled_from(PATTERNS), max_size=3), st.lists(st.sampled_from(PATTERNS), max_size=3), SENDERS)
def test_include_is_never_wrong(wide: list[str], narrow: list[str], sender: str) -> None:
    """If `include` is true, every sender of the narrow set is in the wide one."""
    if Senders(wide).include(Senders(narrow)) and sender in Senders(narrow):
        assert sender in Senders(wide)


@pytest.mark.parametrize(
    "to",
    [
        *("{from}", "undisclosed-recipients:;", "Parents of year 7: ;", "office@council.test", "<office@council.test>"),
        *("School office <office@mail.council.test>", '"Office, school" <Office@Council.test>'),
    ],
)
def test_what_to_may_show(to: str) -> None:
    """`rewrite.to`: the author, an empty group, an internal address with or without a name."""
    assert policy(rewrite={"to": to}).rewrite.to == to


@pytest.mark.parametrize(
    "to",
    [
        *("", "{sender}", "{from}, a@council.test", "parents", "parents:", "a@council.test, b@council.test", ":;"),
        *("parent@x.test", "Office <parent@x.test>", "council.test <a@x.test>", "a@notcouncil.test", "<a@x.test>"),
        *(
            "a@council.test <b@x.test>",
            "b@x.test <a@council.test>",
            "Büro <a@council.test>",
            "x <a@council.test> b@x.test",
        ),
        *("parents: a@council.test;", "junk a@council.test", "(a@council.test)", "a@council.test\nBcc: b@x.test"),
    ],
)
def test_an_unsafe_to_is_refused(to: str) -> None:
    """`rewrite.to` is shown to every recipient: no outside address, and a valid field in ASCII."""
    refused(rewrite={"to": to})


@pytest.mark.parametrize("code", [449, 521, 552, 560, 600, "550", 550.5, True])
def test_reply_codes_that_are_no_refusal_are_refused(code: object) -> None:
    """Another class, 521 (hang up), 552 (too many recipients), and values that are no number."""
    refused(reply={"code": code})


@pytest.mark.parametrize(
    "enhanced", ["4.7.1", "5.7", "5.7.0.0", "5.7.1000", "5.07.1", "5.7.1\n", "\uff15.7.1", 5.7, ""]
)
def test_enhanced_codes_of_another_class_are_refused(enhanced: object) -> None:
    """Postfix would answer "451 Server configuration problem" in their place."""
    refused(reply={"enhanced": enhanced})


def test_the_policy_is_a_snapshot() -> None:
    """A policy is frozen, and a worker gets all its settings through a pipe, also after values were cached."""
    ours = policy(rules=[rule(senders=["*@council.test", "a@b.test"], except_senders=["x?@council.test"])])
    assert ours.standing("council.test") is Standing.INTERNAL
    assert ours.rules[0].concerns("a@council.test")
    for section, name in ((ours, "mode"), (ours.rules[0], "action"), (ours.scope, "networks")):
        with pytest.raises(ValidationError):
            setattr(section, name, None)
    copy = pickle.loads(pickle.dumps(ours))
    assert ours == copy
    assert copy.rules[0].concerns("a@council.test")
    assert not copy.rules[0].concerns("xy@council.test")
    assert copy.counted_fields == ours.counted_fields


def test_derived_values_are_kept() -> None:
    """Patterns and domain sets are compiled once, not for each message."""
    ours = policy()
    assert ours.counted_fields is ours.counted_fields
    assert ours.rules[0]._senders is ours.rules[0]._senders
    assert ours._internal is ours._internal


def test_counted_fields_are_compared_in_any_case() -> None:
    """Header names have no case (RFC 5322, 1.2.2)."""
    assert policy(counting={"fields": ["TO", "cc", "X-Envelope-To"]}).counted_fields == {"to", "cc", "x-envelope-to"}
