"""The lines of master.cf for released mail: written, removed, and checked."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.postfix.master_cf import (
    BEGIN,
    CLEANUP,
    COLUMNS,
    END,
    NO_LINE_END,
    OPTIONS,
    MasterLine,
    findings,
    with_listener,
    without_listener,
)
from undisclosed.postfix.model import Level

TEXTS = ["", "smtp inet n - y - - smtpd\n", "smtp inet n - y - - smtpd", "# only a comment\n\n\n", "a\r\n"]


@given(st.sampled_from([*(text.encode() for text in TEXTS), BEGIN, END, NO_LINE_END]) | st.binary(max_size=200))
def test_removing_the_lines_restores_every_byte(master_cf: bytes) -> None:
    """Of any file; and writing the lines twice changes nothing more."""
    written = with_listener(master_cf)
    assert with_listener(written) == written
    assert without_listener(written) == master_cf


def test_lines_that_came_later_stay() -> None:
    """Lines that an administrator adds after the block are kept."""
    later = b"other unix - - n - - pipe\n"
    assert without_listener(with_listener(b"smtp inet n - y - - smtpd") + later) == b"smtp inet n - y - - smtpd" + later


def lines(**over: MasterLine) -> dict[str, MasterLine]:
    """Both services as attach writes them, some replaced."""
    names = {name: MasterLine(COLUMNS[name], OPTIONS[name]) for name in OPTIONS}
    return names | {name.replace("_", "-"): line for name, line in over.items()}


def found(
    services: Mapping[str, MasterLine], milters: str = "a, b", wanted: str = "a, b", looping: bool = False
) -> list[tuple[Level, str]]:
    """The findings about services, as level and text."""
    return [(finding.level, finding.text) for finding in findings(services, milters, wanted, looping, "/etc/postfix")]


def test_the_lines_as_attach_writes_them_are_ok() -> None:
    """The only finding is an ok."""
    assert [level for level, _ in found(lines())] == [Level.OK]


def test_without_the_listener_nothing_can_be_released() -> None:
    """The cleanup service alone is not enough."""
    assert found({CLEANUP: lines()[CLEANUP]}) == [
        (Level.NOTE, "master.cf has no undisclosed-release: held mail cannot be released.")
    ]


def test_a_listener_that_others_can_reach_is_a_problem() -> None:
    """Mail that comes in there bypasses our milter."""
    public = MasterLine({**COLUMNS["undisclosed-release"], "private": "n"}, OPTIONS["undisclosed-release"])
    assert Level.PROBLEM in [level for level, _ in found(lines(undisclosed_release=public))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mynetworks": "0.0.0.0/0"}, "mynetworks is 0.0.0.0/0; attach writes 127.0.0.0/8"),
        ({"smtpd_milters": ""}, "smtpd_milters is (empty)"),
        ({"smtpd_tls_cert_file": "/x"}, "smtpd_tls_cert_file is /x; attach writes no such option"),
    ],
)
def test_an_option_that_drifted_is_named(change: dict[str, str], words: str) -> None:
    """Changed, emptied or added."""
    options = {**OPTIONS["undisclosed-release"], **change}
    drifted = lines(undisclosed_release=MasterLine(COLUMNS["undisclosed-release"], options))
    assert any(words in text for _, text in found(drifted))


def test_an_option_that_was_removed_is_named() -> None:
    """The value of main.cf would apply there."""
    options = {name: value for name, value in OPTIONS["undisclosed-cleanup"].items() if name != "message_size_limit"}
    drifted = lines(undisclosed_cleanup=MasterLine(COLUMNS["undisclosed-cleanup"], options))
    assert any("message_size_limit is not set" in text for _, text in found(drifted))


def test_other_milters_for_released_mail_are_noted() -> None:
    """As after an administrator has added a signer to smtpd_milters only, after attach."""
    assert any("released mail passes other milters" in text for _, text in found(lines(), "a", "a, b"))


def test_a_content_filter_that_returns_mail_to_our_milter_is_noted() -> None:
    """Mail released unchanged would be held again, for ever."""
    assert any("is held again" in text for _, text in found(lines(), looping=True))
