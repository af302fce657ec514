"""The warnings about a policy, and the settings that nothing uses yet."""

from __future__ import annotations

from typing import Any

import pytest

from support.factories import policy, rule
from undisclosed.policy.lint import not_used, warnings
from undisclosed.policy.policy import NOT_USED_YET
from undisclosed.policy.summary import describe


def words(**over: Any) -> str:
    """The summary of a policy in one line."""
    return " ".join(describe(policy(**over)).split())


EXEMPT = rule(name="exempt", action="accept", more_than_addresses=None)


@pytest.mark.parametrize(
    ("over", "warning"),
    [
        ({"mode": "monitor"}, 'mode = "monitor": no message is changed, delayed or refused'),
        (
            {"rules": [rule(action="quarantine")]},
            "`postsuper -H` and `postsuper -r` release held mail",
        ),
        (
            {"rules": [rule(action="rewrite")]},
            "`postsuper -H` and `postsuper -r` release held mail",
        ),
        ({"rules": [rule(action="delay")]}, "Use `undisclosed held release` instead."),
        ({"console": {"listen": "127.0.0.1:1"}}, "Set, but not used in this version: console.listen."),
        ({"milter": {"socket": "inet:8899@192.0.2.1"}}, "milter.socket listens on 192.0.2.1: any program"),
        ({"milter": {"socket": "inet:8899"}}, "milter.socket listens on every address of this host"),
        ({"milter": {"socket": "inet6:8899@::"}}, "milter.socket listens on ::"),
        ({"milter": {"socket": "inet:8899@mail.council.test"}}, "milter.socket listens on mail.council.test"),
        (
            {"organisation": {"partner_domains": ["council.test"]}},
            "partner_domains has council.test, which",
        ),
        (
            {"organisation": {"partner_domains": [".x.council.test"]}},
            "partner_domains has .x.council.test, which",
        ),
        ({"organisation": {"internal_domains": [".council.test"]}}, "but not council.test itself: add it."),
        (
            {"counting": {"personal_mail_remove": ["council.test"]}},
            "personal_mail_remove has council.test, which",
        ),
        ({"counting": {"fields": ["Cc"]}}, "counting.fields leaves out To: addresses there are not counted."),
        ({"counting": {"fields": ["X-To"]}}, "counting.fields leaves out To and Cc"),
        ({"scope": {"networks": [], "authenticated": False}}, "scope names no client"),
        ({"scope": {"networks": ["10.0.0.0/8", "::/0"]}}, "scope.networks: ::/0 takes in the whole Internet."),
        ({"rules": [EXEMPT]}, "Every rule accepts: nothing is limited."),
        (
            {"rules": [rule(senders=["a@council.test"])]},
            "Senders that no rule names have no limit: all their mail passes.",
        ),
        (
            {"rules": [rule(action="accept"), rule(name="r", more_than_addresses=3)]},
            "Rule 1 (too many in sight) lets mail pass because it shows more than 10 external addresses. Is reject",
        ),
        (
            {"rules": [rule(more_than_addresses=10_001)]},
            "Rule 1 (too many in sight) is hardly ever",
        ),
        ({"rules": [rule(more_than_organisations=20_000)]}, "Rule 1 (too many in sight) is hardly ever reached"),
    ],
)
def test_warnings(over: dict[str, Any], warning: str) -> None:
    """Each is in the warnings and in the description, and only for a policy that has its cause."""
    found = warnings(policy(**over))
    assert [sentence for sentence in found if sentence.startswith(warning) or sentence.endswith(warning)] != []
    assert all(" ".join(sentence.split()) in words(**over) for sentence in found)
    assert not any(sentence.startswith(warning) or sentence.endswith(warning) for sentence in warnings(policy()))


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"milter": {"socket": "inet:8899@127.0.0.1"}},
        {"milter": {"socket": "inet:8899@127.1.2.3"}},
        {"milter": {"socket": "inet6:8899@[::1]"}},
        {"milter": {"socket": "inet:8899@localhost"}},
        {"organisation": {"internal_domains": ["a.partner.test"], "partner_domains": [".partner.test"]}},
        {"organisation": {"internal_domains": ["council.test"], "partner_domains": [".school.council.test"]}},
        {"counting": {"personal_mail_remove": ["bt.com"]}},
        {"counting": {"personal_mail_add": ["v.test"], "personal_mail_remove": ["v.test"]}},
        {"rules": [rule(senders=["a@council.test"]), rule(name="all", more_than_addresses=20)]},
        {"rules": [{**EXEMPT, "senders": ["a@council.test"]}, rule()]},
        {"rules": [rule(more_than_addresses=9_999)]},
        {"journal": {"key_file": "/var/lib/undisclosed/key"}},
    ],
)
def test_a_sound_policy_has_no_warnings(over: dict[str, Any]) -> None:
    """Needless warnings would keep administrators from reading any."""
    assert warnings(policy(**over)) == []
    assert "Warnings" not in words(**over)


def test_settings_that_nothing_uses_are_named_where_they_are_set() -> None:
    """Only the settings in the file are named, as they are written there."""
    ours = policy(
        journal={"key_file": "/k", "url": "sqlite:////j", "subjects": True},
        hold={"expire_days": 3},
        console={"base_url": ""},
        metrics={"listen": ""},
    )
    assert not_used(ours) == ["console.base_url", "metrics.listen"]
    assert not_used(policy()) == []
    assert all(name in words().replace("[", "").replace("]", "") for name in NOT_USED_YET)
