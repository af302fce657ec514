"""The decision: scope, limits, the first matching rule."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.factories import message, policy, rule, strangers
from undisclosed.decision.message import Client
from undisclosed.decision.obstacles import INVITATION, REPEATED
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


HIDING = ["rewrite", "split", "delay"]


@pytest.mark.parametrize("action", HIDING)
@pytest.mark.parametrize("when_unsafe", ["quarantine", "reject"])
def test_a_message_that_must_not_be_changed(action: str, when_unsafe: str) -> None:
    """A signed message meets `rewrite.when_unsafe` under each action that hides recipients (hostile review, 3)."""
    ours = policy(rules=[rule(action=action)], rewrite={"when_unsafe": when_unsafe})
    signed = message(to=MANY, content_type='multipart/signed; protocol="application/pkcs7-signature"; boundary=x')
    plain = decide(ours, message(to=MANY))
    unsafe = decide(ours, signed)
    assert (plain.action, bool(plain.edits), plain.obstacle) == (action, action == "rewrite", None)
    assert (unsafe.action, unsafe.edits, unsafe.body) == (when_unsafe, (), None)
    assert unsafe.obstacle


@pytest.mark.parametrize("action", HIDING)
def test_an_obstacle_in_the_body_changes_the_action(action: str) -> None:
    """An invitation in the body: a quarantine, without edits."""
    ours = policy(rules=[rule(action=action)])
    parts = message(to=MANY, content_type="multipart/mixed; boundary=x", mime_version="1.0")
    first = decide(ours, parts)
    assert first.body is not None
    last = after_body(ours, parts, first, INVITATION)
    assert (last.action, last.obstacle, last.edits, last.body) == (Action.QUARANTINE, INVITATION, (), None)
    assert after_body(ours, parts, first, None) == first


@pytest.mark.parametrize("action", ["warn", "quarantine", "reject"])
def test_the_body_does_not_matter_to_other_actions(action: str) -> None:
    """It is not read: nothing is hidden."""
    decision = decide(policy(rules=[rule(action=action)]), message(to=MANY, content_type="multipart/signed"))
    assert (decision.action, decision.body, decision.obstacle) == (action, None, None)


def test_a_signature_that_only_split_breaks() -> None:
    """`split` writes the recipient's address into a To that a rewrite would leave as it is."""
    fields = (("DKIM-Signature", "v=1; d=elsewhere.test; h=from:to; b=y"),)
    signed = message(fields=fields, to="ann@council.test", cc=MANY)
    actions = [decide(policy(rules=[rule(action=action)]), signed).action for action in HIDING]
    assert actions == [Action.REWRITE, Action.QUARANTINE, Action.DELAY]


def test_a_whole_message_is_judged_at_once() -> None:
    """`judge` is `decide` and, if the body matters, `after_body`."""
    ours = policy(rules=[rule(action="rewrite")])
    parts = message(to=MANY, content_type="multipart/mixed; boundary=x")
    invitation = [b"--x\r\nContent-Type: text/cal", b"endar\r\n\r\n--x--\r\n"]
    assert judge(ours, parts, [b"--x--\r\n"]).action is Action.REWRITE
    assert judge(ours, parts, invitation) == after_body(ours, parts, decide(ours, parts), INVITATION)
    plain = message(to=MANY)
    assert judge(ours, plain, invitation) == decide(ours, plain)


def test_internal_addresses_and_authors_are_no_list_in_a_body() -> None:
    """The signature of a newsletter names the office, its text perhaps the outside author."""
    ours = policy(rules=[rule(action="rewrite")], rewrite={"keep_internal": False})
    letter = message(from_="press@agency.test", to=f"{MANY}, press@agency.test, office@council.test, head@council.test")
    search = decide(ours, letter).body
    assert search is not None
    assert search.hidden == {tuple(address.split("@")) for address in (*strangers(11), *letter.recipients)}


@pytest.mark.parametrize("action", ["rewrite", "split", "delay"])
@pytest.mark.parametrize(
    ("limits", "may_show"),
    [
        ({"more_than_addresses": 10}, 3),
        ({"more_than_addresses": 3}, 3),
        ({"more_than_addresses": 2}, 2),
        ({"more_than_addresses": 1}, 1),
        ({"more_than_addresses": 0}, 1),
        ({"more_than_addresses": None, "more_than_organisations": 1}, 3),
        ({"more_than_addresses": 2, "more_than_organisations": 9}, 2),
    ],
)
def test_a_text_repeats_the_list_from_so_many_addresses_on(
    action: str, limits: dict[str, int | None], may_show: int
) -> None:
    """A reply quotes the authors before it; more addresses than the rule allows in To are no quotation.

    The trace fields count together, like a text. One address is never a list, also where the rule allows none.
    """
    ours = policy(
        rules=[{"name": "strict", "more_than_addresses": 50, "action": "reject"}, rule(action=action, **limits)]
    )
    shown = strangers(may_show + 1)

    def of(text: Sequence[str], traces: Sequence[str]) -> Action:
        received = [("Received", f"by scanner for <{address}>; now") for address in traces]
        quoted = "".join(f"> On Monday <{address}> wrote:\n" for address in text)
        return judge(ours, message(to=MANY, fields=received), [f"Dear all\n{quoted}".encode()]).action

    assert of(shown[:may_show], shown[-may_show:]) is Action(action)
    assert of(shown, ()) is Action.QUARANTINE
    assert of((), shown) is Action.QUARANTINE


def test_without_its_rule_a_text_shows_as_little_as_the_strictest_one_allows() -> None:
    """A rule that was renamed while a message was held, or mail that no rule held."""
    ours = policy(rules=[rule(), rule(name="five", more_than_addresses=5), rule(name="two", more_than_addresses=2)])
    assert {name: ours.may_show(name) for name in ("two", "five", "gone", "")} == {
        "two": 2,
        "five": 3,
        "gone": 2,
        "": 2,
    }


def test_partners_are_no_list_in_a_body() -> None:
    """A text may name addresses that the policy does not count, also if they are recipients; but no rerouted one."""
    ours = policy(rules=[rule(action="rewrite", more_than_addresses=1)], organisation={"partner_domains": ["nhs.test"]})
    contacts = "ward@nhs.test, clinic@nhs.test, desk@nhs.test, duty@nhs.test"
    letter = message(to=f"{MANY}, {contacts}, a%x@nhs.test, b%x@nhs.test")
    assert judge(ours, letter, [f"For help write to {contacts}".encode()]).action is Action.REWRITE
    assert judge(ours, letter, [b"For help write to a%x@nhs.test, b%x@nhs.test"]).obstacle == REPEATED


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
        ("Double-Bounce@council.test", 0, Action.QUARANTINE),  # Postfix compares it in any case
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
    body = [b"--x\r\nContent-Type: text/calendar\r\n\r\n--x--\r\n"]
    for sender, expected in (("", Action.QUARANTINE), ("clerk@council.test", Action.REJECT)):
        parts = message(
            sender=sender,
            from_="clerk@council.test",
            client=Client("127.0.0.1", 0),
            to=MANY,
            content_type="multipart/mixed; boundary=x",
        )
        assert judge(ours, parts, body).action is expected
