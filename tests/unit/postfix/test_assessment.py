"""assessment.py: the findings about a Postfix configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.postfix_configurations import MAIN, US, accepting, findings, postfix_config, texts
from undisclosed.postfix.model import Finding, Level, PostfixConfig

THEIRS = "{ inet:127.0.0.1:11332, default_action=accept }"


@pytest.mark.parametrize("enforce", [True, False])
def test_a_sound_configuration_has_nothing_but_oks(enforce: bool) -> None:
    """The configuration that attach leaves has no problem and no note, in either mode."""
    main = {} if enforce else accepting()
    main["smtpd_milters"] = main.get("smtpd_milters", US) + ", inet:localhost:8891"
    found = findings(postfix_config(main), enforce=enforce)
    assert {finding.level for finding in found} == {Level.OK}
    assert len(found) == 5


PROBLEMS = {
    "not attached": ({"smtpd_milters": ""}, {}, "smtpd_milters in main.cf (smtp/inet, submission/inet) does not name"),
    "not attached for sendmail": (
        {"non_smtpd_milters": ""},
        {},
        "non_smtpd_milters in main.cf (cleanup/unix) does not",
    ),
    "a signer before us": (
        {"smtpd_milters": f"local:opendkim/opendkim.sock, {US}"},
        {},
        "before ours: local:opendkim/opendkim.sock (OpenDKIM, which signs)",
    ),
    "rspamd before us": ({"smtpd_milters": f"{THEIRS} {US}"}, {}, "inet:127.0.0.1:11332 (rspamd, which may sign"),
    "some milter before us": ({"non_smtpd_milters": f"inet:h:1 {US}"}, {}, "before ours: inet:h:1."),
    "unreadable list": ({"smtpd_milters": "{ inet:h:1"}, {}, "cannot be read"),
    "no milters on submission": (
        {},
        {"submission/inet/smtpd": {"smtpd_milters": ""}},
        "smtpd_milters in master.cf, submission/inet does not name our milter",
    ),
    "others on submissions": (
        {},
        {"submissions/inet/smtpd": {"smtpd_milters": "inet:localhost:8891"}},
        "smtpd_milters in master.cf, submissions/inet does not name our milter",
    ),
    "a variable turned off on one service": (
        {"smtpd_milters": US},
        {"submission/inet/smtpd": {"my_milters": "", "smtpd_milters": ""}},
        "smtpd_milters in master.cf, submission/inet does not name our milter",
    ),
    "cleanup without us": (
        {},
        {"cleanup/unix/cleanup": {"non_smtpd_milters": ""}},
        "non_smtpd_milters in master.cf, cleanup/unix does not name our milter",
    ),
    "pickup to another cleanup": (
        {},
        {
            "pickup/unix/pickup": {"cleanup_service_name": "quiet"},
            "quiet/unix/cleanup": {"non_smtpd_milters": ""},
        },
        "non_smtpd_milters in master.cf, quiet/unix does not name our milter",
    ),
    "no_milters on smtpd": (
        {},
        {"smtp/inet/smtpd": {"receive_override_options": "no_header_body_checks,no_milters"}},
        "master.cf, smtp/inet: receive_override_options has no_milters",
    ),
    "no_milters on pickup": (
        {},
        {"pickup/unix/pickup": {"receive_override_options": "no_milters"}},
        "master.cf, pickup/unix: receive_override_options has no_milters",
    ),
    "no_milters everywhere": (
        {"receive_override_options": "no_milters"},
        {},
        "main.cf (smtp/inet, submission/inet, pickup/unix): receive_override_options has no_milters",
    ),
    "milter maps": ({"smtpd_milter_maps": "cidr:/etc/postfix/maps"}, {}, "smtpd_milter_maps is set"),
    "milter maps on one service": (
        {},
        {"smtp/inet/smtpd": {"smtpd_milter_maps": "cidr:/x"}},
        "master.cf, smtp/inet: smtpd_milter_maps is set",
    ),
    "proxy filter": ({"smtpd_proxy_filter": "127.0.0.1:10024"}, {}, "smtpd_proxy_filter is set"),
    "proxy filter on one service": (
        {},
        {"smtp/inet/smtpd": {"smtpd_proxy_filter": "127.0.0.1:10024"}},
        "master.cf, smtp/inet: smtpd_proxy_filter is set",
    ),
    "network outside the scope": (
        {"mynetworks": "127.0.0.0/8 10.0.0.0/8 192.0.2.0/24"},
        {},
        "scope.networks does not have them: 10.0.0.0/8, 192.0.2.0/24",
    ),
    "network of one service": (
        {},
        {"smtp/inet/smtpd": {"mynetworks": "10.0.0.0/8"}},
        "mynetworks in master.cf, smtp/inet lets these relay",
    ),
    "accept by us": (
        {"smtpd_milters": "{ unix:undisclosed/milter.sock, default_action=accept }"},
        {},
        "default_action=accept: while it does not answer, mail goes out unchecked",
    ),
    "quarantine by us": (
        {"smtpd_milters": "{ unix:undisclosed/milter.sock, default_action=quarantine }"},
        {},
        "default_action=quarantine: while it does not answer, mail is held unchecked",
    ),
    "accept in general": (
        {"smtpd_milters": "unix:undisclosed/milter.sock", "milter_default_action": "accept"},
        {},
        "no default_action, and milter_default_action is accept for smtp/inet, submission/inet",
    ),
    "accept in general on one service": (
        {"smtpd_milters": "unix:undisclosed/milter.sock"},
        {"submission/inet/smtpd": {"milter_default_action": "accept"}},
        "milter_default_action is accept for submission/inet",
    ),
    "logins not told": (
        {"milter_mail_macros": "i", "smtpd_sasl_auth_enable": "yes"},
        {},
        "lacks {auth_authen}",
    ),
    "logins not told on one service": (
        {},
        {"submission/inet/smtpd": {"smtpd_sasl_auth_enable": "yes", "milter_mail_macros": "{mail_addr}"}},
        "milter_mail_macros in master.cf, submission/inet lacks {auth_authen}",
    ),
    "old protocol": ({"milter_protocol": "2"}, {}, "milter_protocol in main.cf"),
    "old protocol on one service": (
        {},
        {"smtp/inet/smtpd": {"milter_protocol": "4"}},
        "milter_protocol in master.cf, smtp/inet is 4",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_each_way_to_bypass_the_milter_is_a_problem(case: str) -> None:
    """One fault in a sound configuration is one problem, which names the file and the remedy."""
    main, services, expected = PROBLEMS[case]
    found = findings(postfix_config(main, services))
    problems = [finding for finding in found if finding.level is Level.PROBLEM]
    assert len(problems) == 1
    assert expected in problems[0].text
    assert problems[0].remedy


@pytest.mark.parametrize(
    ("case", "remedy"),
    [
        ("not attached", "run: undisclosed postfix attach --config-dir /etc/postfix"),
        ("no milters on submission", "postconf -c /etc/postfix -PX submission/inet/smtpd_milters"),
        ("no_milters on pickup", "postconf -c /etc/postfix -PX pickup/unix/receive_override_options"),
        ("old protocol", "postconf -c /etc/postfix -X milter_protocol"),
        ("network outside the scope", "scope.networks"),
    ],
)
def test_a_remedy_is_a_command_where_one_does_it(case: str, remedy: str) -> None:
    """The remedy of a problem can be typed."""
    main, services, _ = PROBLEMS[case]
    (problem,) = [finding for finding in findings(postfix_config(main, services)) if finding.level is Level.PROBLEM]
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("main", "services", "expected"),
    [
        ({"milter_default_action": "accept"}, {}, "It applies to other milters; ours has default_action=tempfail"),
        ({"enable_long_queue_ids": "no"}, {}, "enable_long_queue_ids is not yes"),
        ({"internal_mail_filter_classes": "bounce"}, {}, "internal_mail_filter_classes = bounce"),
        ({"mynetworks": "127.0.0.0/8 hash:/etc/nets"}, {}, "names hash:/etc/nets, which this command cannot read"),
        ({"smtpd_relay_restrictions": "permit_tls_clientcerts"}, {}, "relay by permit_tls_clientcerts"),
        ({"smtpd_milters": f"{US}, {US}"}, {}, "names our milter 2 times"),
        ({"smtpd_milters": "unix:undisclosed/milter.sock"}, {}, "and milter_default_action is tempfail for smtp/inet,"),
        (
            {"smtpd_milters": "{ unix:undisclosed/milter.sock, default_action=reject }"},
            {},
            "default_action=reject: while it does not answer, clients are not told to try again later",
        ),
        ({}, {"smtp/inet/smtpd": {"soft_bounce": "yes"}}, "soft_bounce = yes (smtp/inet)"),
        (
            {"content_filter": "scan:[127.0.0.1]:10024"},
            {"127.0.0.1:10025/inet/smtpd": {"content_filter": "", "receive_override_options": "no_milters"}},
            "127.0.0.1:10025/inet takes mail back from content_filter and does not pass it to our milter again",
        ),
        (
            {"content_filter": "scan:[127.0.0.1]:10024"},
            {"[::1]:10025/inet/smtpd": {"content_filter": "", "smtpd_milters": "inet:localhost:8891"}},
            "[::1]:10025/inet takes mail back from content_filter and does not pass it to our milter again",
        ),
        (
            {},
            {
                "submission/inet/smtpd": {"content_filter": "scan:[127.0.0.1]:10024"},
                "back/unix/smtpd": {"smtpd_milters": ""},
            },
            "back/unix takes mail back from content_filter and does not pass it to our milter again",
        ),
        (
            {"content_filter": "scan:[127.0.0.1]:10024"},
            {"localhost:10025/inet/smtpd": {"content_filter": ""}},
            "localhost:10025/inet takes mail back from content_filter and passes it to our milter a second time",
        ),
    ],
)  # fmt: skip
def test_each_lesser_matter_is_a_note(main: dict[str, str], services: dict[str, dict[str, str]], expected: str) -> None:
    """`status` reports a note, and no problem."""
    found = findings(postfix_config(main, services))
    assert texts(found, Level.PROBLEM) == []
    assert [text for text in texts(found, Level.NOTE) if expected in text]


@pytest.mark.parametrize(
    "services",
    [
        {"127.0.0.1:10025/inet/smtpd": {"receive_override_options": "no_milters"}},
        {"0.0.0.0:10025/inet/smtpd": {"smtpd_milters": ""}},
        {"10025/inet/smtpd": {"smtpd_milters": ""}},
    ],
)
def test_a_listener_without_the_milter_is_sound_only_where_a_filter_returns_mail(
    services: dict[str, dict[str, str]],
) -> None:
    """Without a content_filter, or open to other hosts, it is a problem."""
    filtering = {} if "127.0.0.1:10025/inet/smtpd" in services else {"content_filter": "scan:[127.0.0.1]:10024"}
    assert len(texts(findings(postfix_config(filtering, services)), Level.PROBLEM)) == 1


def test_monitor_mode_should_accept() -> None:
    """accept is right, and anything else a note: a dead milter in monitor mode must not stop mail."""
    assert texts(findings(postfix_config(accepting()), enforce=False), Level.NOTE) == []
    notes = texts(findings(postfix_config(), enforce=False), Level.NOTE)
    assert len(notes) == 2
    assert all("in monitor mode mail should pass" in note for note in notes)
    assert texts(findings(postfix_config(), enforce=False), Level.PROBLEM) == []


def test_logins_outside_the_scope_are_noted() -> None:
    """scope.authenticated = false with a submission service is a note."""
    open_to_logins = postfix_config({}, {"submission/inet/smtpd": {"smtpd_sasl_auth_enable": "yes"}})
    assert texts(findings(open_to_logins), Level.NOTE) == []
    (note,) = texts(findings(open_to_logins, authenticated=False), Level.NOTE)
    assert "submission/inet: clients may log in" in note


def test_a_host_without_smtpd_or_pickup_is_ok() -> None:
    """The findings say that no mail comes in that way."""
    empty = PostfixConfig("/etc/postfix", MAIN, ())
    oks = texts(findings(empty), Level.OK)
    assert [text for text in oks if "no smtpd runs" in text]
    assert [text for text in oks if "no pickup or qmqpd runs" in text]


def test_settings_under_stress_are_checked() -> None:
    """A service that leaves the milter out while stress=yes is a problem of its own; an unchanged one is named once."""
    calm = postfix_config()
    busy = replace(calm.services[0], stress=True, settings={**calm.services[0].settings, "smtpd_milters": ""})
    (problem,) = texts(findings(replace(calm, services=(*calm.services, busy))), Level.PROBLEM)
    assert "smtp/inet under stress does not name our milter" in problem


def test_a_finding_reads_as_one_line() -> None:
    """Level, sentence and remedy, in that order."""
    assert str(Finding(Level.NOTE, "Something.", "do this")) == "note: Something. -> do this"
    assert str(Finding(Level.OK, "Something.")) == "ok: Something."
