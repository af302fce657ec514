"""The decision: scope, limits, the first matching rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.factories import message, policy, rule, strangers
from undisclosed.decision.message import Client
from undisclosed.decision.rules import Scope, after_body, decide, judge
from undisclosed.policy import Action

MANY = ", ".join(strangers(11))


@pytest.mark.parametrize(
    ("client", "sender", "author", "expected"),
    [
        (Client("127.0.0.1", 4711), "clerk@council.test", "clerk@council.test", Scope.OUTGOING),
        (Client("127.0.0.1", 0), "clerk@council.test", "clerk@council.test", Scope.OUTGOING),
        (Client("127.0.0.1", 4711), "", "MAILER-DAEMON@council.test", Scope.OUTGOING),
        (Client("127.0.0.1", 4711), "clerk", "clerk", Scope.OUTGOING),
        (Client("127.0.0.1", 4711), "bounce@bulk.example", "News <clerk@council.test>", Scope.OUTGOING),
        (Client("127.0.0.1", 4711), "bounce@bulk.example", "news@bulk.example", Scope.NOT_OUTGOING),
        (Client("192.0.2.7", 4711), "clerk@council.test", "clerk@council.test", Scope.NOT_OUTGOING),
        (Client("192.0.2.7", 4711, login="clerk"), "anybody@bulk.example", "a@bulk.example", Scope.OUTGOING),
        (Client("::1", 4711), "clerk@council.test", "clerk@council.test", Scope.OUTGOING),
        (Client("::ffff:127.0.0.1", 4711), "clerk@council.test", "clerk@council.test", Scope.OUTGOING),
        (Client(None, None), "clerk@council.test", "clerk@council.test", Scope.OUTGOING),
        (Client("unknown", None), "clerk@council.test", "clerk@council.test", Scope.OUTGOING),
    ],
)
def test_outgoing_is_authenticated_or_from_our_networks_in_our_name(
    client: Client, sender: str, author: str, expected: Scope
) -> None:
    """A message is outgoing by its login, or by the network of its client with an internal sender or author."""
    decision = decide(policy(), message(client=client, sender=sender, from_=author, to=MANY))
    assert decision.scope is expected
    assert decision.action is (Action.REJECT if expected is Scope.OUTGOING else Action.ACCEPT)


def test_a_login_does_not_count_without_scope_authenticated() -> None:
    """With `scope.authenticated = false` only the networks count."""
    outside = message(client=Client("192.0.2.7", 4711, login="clerk"), to=MANY)
    assert decide(policy(scope={"authenticated": False}), outside).scope is Scope.NOT_OUTGOING


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [
        (["a@council.test", "b@schools.council.test"], Scope.INTERNAL_ONLY),
        (["a"], Scope.INTERNAL_ONLY),
        (["a@council.test", "b@family.test"], Scope.OUTGOING),
        (["a@notcouncil.test"], Scope.OUTGOING),
        (["a@council.test.evil.example"], Scope.OUTGOING),
        (["a%family.test@council.test"], Scope.OUTGOING),
        (["family.test!a@council.test"], Scope.OUTGOING),
        (["family.test!a"], Scope.OUTGOING),
        (["@council.test:a@family.test"], Scope.OUTGOING),
        (['"a@family.test"@council.test'], Scope.OUTGOING),
        ([], Scope.OUTGOING),
    ],
)
def test_only_recipients_that_certainly_stay_inside_are_internal(recipients: list[str], expected: Scope) -> None:
    """A recipient that Postfix may route outside does not make a message internal."""
    assert decide(policy(), message(recipients=recipients, to=MANY)).scope is expected


@pytest.mark.parametrize(("count", "expected"), [(10, Action.ACCEPT), (11, Action.REJECT)])
def test_more_than_means_more_than(count: int, expected: Action) -> None:
    """Exactly the limit passes, one more does not."""
    decision = decide(policy(), message(to=", ".join(strangers(count))))
    assert (decision.action, decision.exposure.count) == (expected, count)


def test_twenty_colleagues_of_one_firm_are_one_organisation() -> None:
    """Twenty at one firm pass a limit on organisations that twenty at a personal-mail provider do not."""
    rules = [rule(more_than_addresses=10, more_than_organisations=5)]
    ours = policy(rules=rules, counting={"personal_mail_add": ["homes.test"]})
    firm = decide(ours, message(to=", ".join(strangers(20, "firm.test"))))
    families = decide(ours, message(to=", ".join(strangers(20, "homes.test"))))
    assert (firm.action, firm.exposure.organisations) == (Action.ACCEPT, 1)
    assert (families.action, families.exposure.organisations) == (Action.REJECT, 20)


def test_the_first_rule_that_matches_decides() -> None:
    """An exemption above a limit holds, and the limit holds for all other senders."""
    rules = [
        rule(name="lists", senders=["*-bounces@lists.council.test"], action="accept", more_than_addresses=None),
        rule(name="limit", action="quarantine"),
    ]
    exempt = decide(policy(rules=rules), message(sender="news-bounces@LISTS.council.test", to=MANY))
    other = decide(policy(rules=rules), message(to=MANY))
    assert (exempt.rule, exempt.action) == ("lists", Action.ACCEPT)
    assert (other.rule, other.action) == ("limit", Action.QUARANTINE)


def test_partners_and_colleagues_are_not_counted() -> None:
    """Internal and partner addresses are listed separately, and do not count towards the limit."""
    ours = policy(organisation={"partner_domains": ["nhs.test", ".nhs.test"]})
    inside = ["a@council.test", "b@schools.council.test"]
    partners = [*strangers(9, "nhs.test"), "x@trust.nhs.test"]
    shown = decide(ours, message(to=", ".join([*inside, *partners, *strangers(10)]))).exposure
    assert (shown.count, len(shown.partner), len(shown.internal)) == (10, 10, 2)


def test_rewrite_when_unsafe() -> None:
    """A signed message is quarantined, with its obstacle; a plain one has edits."""
    ours = policy(rules=[rule(action="rewrite")])
    signed = message(to=MANY, content_type='multipart/signed; protocol="application/pkcs7-signature"; boundary=x')
    plain = decide(ours, message(to=MANY))
    unsafe = decide(ours, signed)
    assert (plain.action, bool(plain.edits), plain.obstacle) == (Action.REWRITE, True, None)
    assert (unsafe.action, unsafe.edits) == (Action.QUARANTINE, ())
    assert unsafe.obstacle


def test_an_invitation_found_in_the_body_takes_the_edits_back() -> None:
    """An obstacle in the body changes the rewrite to a quarantine, without edits."""
    ours = policy(rules=[rule(action="rewrite")])
    mixed = message(to=MANY, content_type="multipart/mixed; boundary=x", mime_version="1.0")
    first = decide(ours, mixed)
    assert first.needs_body
    body = b"--x\r\nContent-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n--x--\r\n"
    last = after_body(ours, mixed, first, body, complete=True)
    assert (last.action, last.edits, last.needs_body) == (Action.QUARANTINE, (), False)


def test_a_whole_message_is_judged_at_once() -> None:
    """`judge` is `decide` and, if the body matters, `after_body`."""
    ours = policy(rules=[rule(action="rewrite")])
    parts = message(to=MANY, content_type="multipart/mixed; boundary=x")
    invitation = b"--x\r\nContent-Type: text/calendar\r\n\r\n--x--\r\n"
    assert judge(ours, parts, b"--x--\r\n").action is Action.REWRITE
    assert judge(ours, parts, b"--x--\r\n", complete=False).action is Action.QUARANTINE
    assert judge(ours, parts, invitation) == after_body(ours, parts, decide(ours, parts), invitation, complete=True)
    plain = message(to=MANY)
    assert judge(ours, plain, invitation) == decide(ours, plain)


@pytest.mark.parametrize(
    ("to", "action", "acts"), [(MANY, "warn", True), (MANY, "accept", False), ("a@family.test", "warn", False)]
)
def test_a_decision_acts_where_a_rule_does_more_than_to_accept(to: str, action: str, acts: bool) -> None:
    """Such a message is an incident."""
    assert decide(policy(rules=[rule(action=action)]), message(to=to)).acts is acts


@given(st.lists(st.tuples(st.sampled_from(["To", "Cc", "From", "Reply-To", "X-To"]), st.text()), max_size=6), st.text())
def test_every_message_gets_an_answer(fields: list[tuple[str, str]], sender: str) -> None:
    """No header and no envelope raises an exception."""
    decision = decide(
        policy(rules=[rule(action="rewrite", more_than_addresses=0)]), message(sender=sender, fields=fields)
    )
    assert decision.action in Action


def test_a_list_behind_a_bare_carriage_return_is_not_rewritten_but_held() -> None:
    """No edit reaches a field inside the value of another field."""
    ours = policy(rules=[rule(action="rewrite")])
    decision = decide(ours, message(subject=f"x\rTo: {MANY}", to="a@council.test"))
    assert (decision.action, decision.exposure.count, decision.edits) == (Action.QUARANTINE, 11, ())


@pytest.mark.parametrize(
    ("sender", "port", "expected"),
    [
        ("", 0, Action.QUARANTINE),
        ("double-bounce@council.test", 0, Action.QUARANTINE),
        ("clerk@council.test", 0, Action.REJECT),
        ("", 4711, Action.REJECT),
    ],
)
def test_a_refusal_that_nobody_would_learn_of_becomes_a_hold(sender: str, port: int, expected: Action) -> None:
    """Postfix makes a bounce of the refusal of sendmail(1)'s mail, and discards one to the null sender (milter reports,
    34). An SMTP client gets the refusal itself."""
    decision = decide(policy(), message(sender=sender, client=Client("127.0.0.1", port), to=MANY))
    assert decision.action is expected
    assert decision.reason.endswith("; a bounce would reach nobody") is (expected is Action.QUARANTINE)


def test_an_obstacle_found_in_the_body_refuses_no_mail_whose_bounce_is_lost() -> None:
    """`when_unsafe = "reject"` is a refusal like any other."""
    ours = policy(rules=[rule(action="rewrite")], rewrite={"when_unsafe": "reject"})
    body = b"--x\r\nContent-Type: text/calendar\r\n\r\n--x--\r\n"
    for sender, expected in (("", Action.QUARANTINE), ("clerk@council.test", Action.REJECT)):
        parts = message(
            sender=sender,
            from_="clerk@council.test",
            client=Client("127.0.0.1", 0),
            to=MANY,
            content_type="multipart/mixed; boundary=x",
        )
        assert judge(ours, parts, body).action is expected
