"""The policy in words: the output of check-config."""

from __future__ import annotations

from typing import Any

import pytest

from support.factories import policy, rule
from undisclosed.policy import Action
from undisclosed.policy.summary import describe

WHOLE = """\
The mail of Exampleshire County Council
  Mode "enforce": the policy below is carried out.

Which mail
  Mail from a client that has logged in.
  Mail from 127.0.0.0/8 or ::1/128 (or from a client whose address is not known), if its envelope
    sender is internal or empty, or its From is internal.
  All other mail passes unchanged, and so does mail whose recipients are all internal.

Whose addresses
  Internal: council.test and every domain below council.test.
  External: all others.

Counting
  The distinct external addresses that a recipient can read in To and Cc. Bcc recipients who are in
    none of these fields are not visible, and are not counted.
  An organisation is a registered domain; at a personal-mail provider each address is an
    organisation of its own ({providers} domains are known).

Rules: the first that matches decides
  1. list server: Mail from *-bounces@lists.council.test or the null sender is delivered as it is.
  2. too many in sight: If mail from anybody would show its recipients more than 10 external
    addresses, it is refused (550 5.7.0), and the sender is told why.
  If none matches, the message is delivered as it is.

Refusing
  The reply has the number of external addresses that would have been visible (never the limit),
    advice, a contact (the service desk, extension 100), and a reference that is also in the log.
  Instead, mail that sendmail(1) takes with an empty envelope sender is held, because a bounce would
    reach nobody. `undisclosed steward` must run: it tells postmaster@council.test.

Recording
  Every message on which a rule acts is recorded in sqlite:////var/lib/undisclosed/journal.db before
    Postfix has the answer: without a record nothing is delivered changed or with a warning.
  Visible addresses are recorded as keyed hashes; subjects are too.

Not used in this version
  [console] and [metrics].
"""


def words(**over: Any) -> str:
    """The description of a policy, without line ends and indents."""
    return " ".join(describe(policy(**over)).split())


def test_the_whole_description() -> None:
    """The scope, the counting and each rule; nothing about parts that the rules do not use."""
    from undisclosed.addresses.domains import PERSONAL_MAIL

    exempt = rule(
        name="list server",
        senders=["*-bounces@lists.council.test", "<>"],
        more_than_addresses=None,
        action="accept",
    )
    ours = policy(
        organisation={"help": "the service desk, extension 100"},
        counting={"fields": ["To", "Cc"]},
        rules=[exempt, rule()],
    )
    assert WHOLE.format(providers=f"{len(PERSONAL_MAIL):,}") == describe(ours, width=100) + "\n"


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        (
            {},
            "If mail from anybody would show its recipients more than 10 external addresses, it is refused (550",
        ),
        ({"more_than_addresses": 0}, "would show its recipients any external address, it is"),
        ({"more_than_addresses": 1}, "more than 1 external address, it is"),
        ({"more_than_addresses": 2500}, "more than 2,500 external addresses, it is"),
        ({"more_than_organisations": 3}, "more than 10 external addresses of more than 3 organisations, it is"),
        (
            {"more_than_addresses": None, "more_than_organisations": 1},
            "addresses of more than 1 organisation, it",
        ),
        ({"senders": ["a@council.test"]}, "If mail from a@council.test would show"),
        ({"senders": ["<>", "*"]}, "If mail from anybody would show"),
        (
            {"except_senders": ["a@council.test", "<>"]},
            "from anybody but a@council.test or the null sender would",
        ),
        (
            {"senders": [f"{n}@c.test" for n in range(5000)]},
            "2@c.test, 3@c.test, 4@c.test or 4,995 more would",
        ),
        ({"action": "warn"}, "it is delivered as it is; the sender is told."),
        ({"action": "rewrite"}, "it is delivered with the external addresses hidden; the sender is told."),
        (
            {"action": "split"},
            "it is delivered to each external recipient as a separate message that shows only their own address",
        ),
        (
            {"action": "delay"},
            "it is held for 5m, then delivered with the external addresses hidden; the sender is told.",
        ),
        ({"action": "quarantine"}, "it is held until someone decides; the sender is told."),
        ({"action": "reject"}, "and the sender is told why."),
        ({"action": "accept", "more_than_addresses": None}, "Mail from anybody is delivered as it is."),
    ],
)
def test_a_rule_in_a_sentence(over: dict[str, Any], sentence: str) -> None:
    """Senders, limits and action in one sentence."""
    assert sentence in words(rules=[rule(**over)])


@pytest.mark.parametrize("action", sorted(Action))
def test_every_action_has_words(action: Action) -> None:
    """Every action that a rule can name has a sentence."""
    assert f"1. {action}: " in words(rules=[rule(name=action.value, action=action.value)])


def test_a_sender_who_gets_no_notice() -> None:
    """The sentence of an action that notices.after leaves out says so; of a hold the sender is told all the same."""
    told = words(
        rules=[rule(name="a", more_than_addresses=20, action="quarantine"), rule(action="rewrite")],
        notices={"after": ["warn"], "administrator": "desk@council.test"},
    )
    assert "delivered with the external addresses hidden; the sender is told nothing." in told
    assert "it is held until someone decides; the sender is told." in told
    assert "Where no sender can be told of it, desk@council.test is, once a day." in told


@pytest.mark.parametrize(("on_expiry", "end"), [("delete", "deleted"), ("keep", "kept for the administrator")])
def test_holding_in_words(on_expiry: str, end: str) -> None:
    """The commands for held mail, and its expiry."""
    told = words(rules=[rule(action="delay")], hold={"on_expiry": on_expiry, "expire_days": 3})
    assert "`undisclosed held list` shows it" in told
    assert f"After 3 days without a decision it is {end}." in told


def test_rewriting_in_words() -> None:
    """Removed and kept addresses, the value of To, and the action for mail that must not be changed."""
    told = words(rules=[rule(action="rewrite")])
    assert "Internal addresses stay visible. If no address stays in To, its value is the author's own address" in told
    assert "attached messages and text files) is held until someone decides" in told
    assert "The whole message is searched, whatever its size" in told
    assert "Held mail is in Postfix's hold queue" in told
    told = words(
        rules=[rule(action="rewrite")], rewrite={"to": "parents:;", "keep_internal": False, "when_unsafe": "reject"}
    )
    assert "Internal addresses are removed too. If no address stays in To, its value is parents:;." in told
    assert "and text files) is refused (550 5.7.0), and the sender is told why." in told
    assert "hold queue" not in told
    assert "Rewriting" not in words()


@pytest.mark.parametrize("action", ["rewrite", "split", "delay"])
def test_a_message_that_cannot_be_hidden_in_words(action: str) -> None:
    """`rewrite.when_unsafe` holds for three actions, and its refusal is a reply of the policy (hostile review, 3)."""
    told = words(rules=[rule(action=action)], rewrite={"when_unsafe": "reject"})
    assert "Instead, for `rewrite`, `split` and `delay` alike, a message whose recipients cannot be hidden" in told
    assert "The reply has the number of external addresses" in told


def test_the_rest_in_words() -> None:
    """Partners, monitor mode, providers added and removed, no authenticated clients, no contact."""
    told = words(
        mode="monitor",
        organisation={"partner_domains": ["police.test", ".nhs.test"], "help": ""},
        scope={"authenticated": False, "networks": []},
        counting={"personal_mail_add": ["village-net.test"], "personal_mail_remove": ["bt.com"]},
    )
    assert 'Mode "monitor": each decision is logged' in told
    assert "Partners, whose addresses are not counted: police.test and every domain below nhs.test." in told
    assert "and village-net.test, but not bt.com)" in told
    assert "logged in" not in told
    assert "Mail from a client whose address is not known, if" in told
    assert "a contact, and a reference" in told


def test_no_line_is_wider_than_a_terminal() -> None:
    """Long names and lists wrap."""
    ours = policy(
        organisation={"internal_domains": [f"{'school' * 5}{n}.test" for n in range(20)]}, rules=[rule(name="n" * 99)]
    )
    assert max(map(len, describe(ours, width=100).splitlines())) <= 100 + len("n" * 99)
    assert max(len(line) for line in describe(ours, width=100).splitlines() if "nnn" not in line) <= 100
