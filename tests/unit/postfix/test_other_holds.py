"""other_holds.py and tables.py: what can put mail on hold beside our milter."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.postfix_configurations import OURS, US, postfix_config
from undisclosed.postfix import other_holds
from undisclosed.postfix.model import Level
from undisclosed.postfix.other_holds import Kind
from undisclosed.postfix.tables import read_tables

TABLES = {
    "access": "# HOLD nobody\nspam@x.example REJECT\nclerk@council.test\tHOLD account under investigation\n",
    "commented": "# clerk@council.test HOLD\n  # HOLD\nhold@x.example OK\nb@x.example REJECT on holdings\n",
    "headers": "/^Subject:.*secret/ hold\n",
    "all": "# MailScanner\n/^Received:/ HOLD\n",
    "headers.regexp": "if /^X-A:/\n/^X-A: 1/i   HOLD\nendif\n",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with these tables."""
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def able(main: dict[str, str], directory: Path, services: dict[str, dict[str, str]] | None = None) -> list[str]:
    """The things that can put mail on hold under these settings."""
    config = postfix_config({name: value.replace("DIR", str(directory)) for name, value in main.items()}, services)
    found = other_holds.holders(config, OURS)
    return [
        holder.name.replace(f"{directory}/", "")
        for holder in other_holds.may_hold(found, read_tables(other_holds.tables(found)))
    ]


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ({}, []),
        ({"smtpd_sender_restrictions": "check_sender_access hash:DIR/access, reject_unknown_sender_domain"},
         ["hash:access"]),
        ({"smtpd_sender_restrictions": "check_sender_access hash:DIR/commented"}, []),
        ({"header_checks": "pcre:DIR/headers"}, ["pcre:headers"]),
        ({"header_checks": "regexp:DIR/headers.regexp regexp:DIR/commented"}, ["regexp:headers.regexp"]),
        ({"body_checks": "proxy:regexp:DIR/headers"}, ["proxy:regexp:headers"]),
        ({"milter_header_checks": "pcre:DIR/headers"}, ["pcre:headers"]),
        ({"header_checks": "pcre:DIR/missing"}, ["pcre:missing"]),
        ({"smtpd_client_restrictions": "check_client_access mysql:DIR/access"}, ["mysql:access"]),
        ({"smtpd_data_restrictions": "check_client_access static:HOLD"}, ["static:HOLD"]),
        ({"smtpd_data_restrictions": "check_client_access static:REJECT"}, []),
        ({"header_checks": "pcre:{{/^Subject: x/ HOLD}}"}, ["pcre:{{/^Subject: x/ HOLD}}"]),
        ({"smtpd_sender_restrictions": "check_sender_access unionmap:{hash:DIR/commented,hash:DIR/access}"},
         ["unionmap:{hash:commented,hash:access}"]),
        ({"smtpd_sender_restrictions": "check_sender_access unionmap:{hash:DIR/commented,ldap:/x}"},
         ["unionmap:{hash:commented,ldap:/x}"]),
        ({"smtpd_recipient_restrictions": "check_policy_service unix:private/policyd, reject_unauth_destination"},
         ["unix:private/policyd"]),
        ({"smtpd_end_of_data_restrictions": "check_policy_service { inet:127.0.0.1:9998, timeout=10s }"},
         ["inet:127.0.0.1:9998"]),
        ({"smtpd_restriction_classes": "strict", "strict": "check_sender_access hash:DIR/access"}, ["hash:access"]),
        ({"smtpd_milters": f"{US}, inet:localhost:8891"}, ["inet:localhost:8891"]),
        ({"smtpd_recipient_restrictions": "reject_rbl_client zen.example, permit_mynetworks"}, []),
    ],
)  # fmt: skip
def test_what_can_put_mail_on_hold(directory: Path, main: dict[str, str], expected: list[str]) -> None:
    """Tables with HOLD, in every list that may name one; those that cannot be read; policy services; milters."""
    assert able(main, directory) == expected


def test_a_service_may_have_a_list_of_its_own(directory: Path) -> None:
    """A list of master.cf counts too."""
    own = {"submission/inet/smtpd": {"smtpd_client_restrictions": f"check_client_access hash:{directory}/access"}}
    assert able({}, directory, own) == ["hash:access"]


def test_the_findings_name_tables_and_policy_services(directory: Path) -> None:
    """milter-reports 47: a recipe that lets another program empty the hold queue is a problem, others are notes."""
    config = postfix_config(
        {
            "header_checks": f"regexp:{directory}/all, pcre:{directory}/headers, pcre:{directory}/missing",
            "smtpd_recipient_restrictions": "check_policy_service inet:localhost:1",
            "smtpd_milters": f"{US}, inet:localhost:8891",
        }
    )
    found = other_holds.holders(config, OURS)
    assert {holder.kind for holder in found} == set(Kind)
    findings = list(other_holds.findings(found, read_tables(other_holds.tables(found))))
    assert [finding.level for finding in findings] == [Level.NOTE, Level.PROBLEM, Level.NOTE, Level.NOTE]
    assert "inet:localhost:1, which may put mail on hold" in findings[0].text
    assert "also sends what our milter holds" in findings[1].text
    assert "headers puts mail on hold (HOLD)" in findings[2].text
    assert "missing, which this command cannot read" in findings[3].text
