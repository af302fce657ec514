"""The lines of master.cf that take released mail: written, taken back, and looked at."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.postfix.master_cf import CLEANUP, COLUMNS, OPTIONS, Line, findings, with_listener, without_listener
from undisclosed.postfix.model import Level

TEXTS = ["", "smtp inet n - y - - smtpd\n", "smtp inet n - y - - smtpd", "# only a comment\n\n\n", "a\r\n"]


@given(st.sampled_from([text.encode() for text in TEXTS]) | st.binary(max_size=200))
def test_taken_back_every_byte_is_as_it_was(master_cf: bytes) -> None:
    """Whatever the file looked like, and written twice is written once."""
    written = with_listener(master_cf)
    assert with_listener(written) == written
    assert without_listener(written) == master_cf


def test_lines_that_came_later_stay() -> None:
    """What an administrator adds behind the block is none of ours."""
    later = b"other unix - - n - - pipe\n"
    assert without_listener(with_listener(b"smtp inet n - y - - smtpd") + later) == b"smtp inet n - y - - smtpd" + later


def lines(**over: Line) -> dict[str, Line]:
    """Both services as attach writes them, but for some."""
    names = {name: Line(COLUMNS[name], OPTIONS[name]) for name in OPTIONS}
    return names | {name.replace("_", "-"): line for name, line in over.items()}


def found(
    services: Mapping[str, Line], milters: str = "a, b", wanted: str = "a, b", looping: bool = False
) -> list[tuple[Level, str]]:
    """What `findings` says of services, as level and text."""
    return [(one.level, one.text) for one in findings(services, milters, wanted, looping, "/etc/postfix")]


def test_as_attach_writes_it_all_is_well() -> None:
    """Nothing but that it is there."""
    assert [level for level, _ in found(lines())] == [Level.OK]


def test_without_the_listener_nothing_can_be_released() -> None:
    """One of the two is not enough."""
    assert found({CLEANUP: lines()[CLEANUP]}) == [
        (Level.NOTE, "master.cf has no undisclosed-release: held mail cannot be released.")
    ]


def test_a_listener_that_others_can_reach_is_a_problem() -> None:
    """Mail that comes in there does not meet our milter."""
    public = Line({**COLUMNS["undisclosed-release"], "private": "n"}, OPTIONS["undisclosed-release"])
    assert Level.PROBLEM in [level for level, _ in found(lines(undisclosed_release=public))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mynetworks": "0.0.0.0/0"}, "mynetworks is 0.0.0.0/0"),
        ({"smtpd_milters": ""}, "smtpd_milters is (empty)"),
        ({"smtpd_tls_cert_file": "/x"}, "smtpd_tls_cert_file is /x"),
    ],
)
def test_an_option_that_drifted_is_named(change: dict[str, str], words: str) -> None:
    """Changed, emptied or added."""
    options = {**OPTIONS["undisclosed-release"], **change}
    drifted = lines(undisclosed_release=Line(COLUMNS["undisclosed-release"], options))
    assert any(words in text for _, text in found(drifted))


def test_an_option_that_was_taken_away_is_named() -> None:
    """What main.cf says would hold there again."""
    options = {name: value for name, value in OPTIONS["undisclosed-cleanup"].items() if name != "message_size_limit"}
    drifted = lines(undisclosed_cleanup=Line(COLUMNS["undisclosed-cleanup"], options))
    assert any("message_size_limit is not set" in text for _, text in found(drifted))


def test_other_milters_than_ordinary_mail_meets_are_noted() -> None:
    """After attach somebody put a signer into smtpd_milters alone."""
    assert any("released mail meets other milters" in text for _, text in found(lines(), "a", "a, b"))


def test_a_content_filter_that_comes_back_to_us_is_noted() -> None:
    """What is released unchanged would be held again, for ever."""
    assert any("is held again" in text for _, text in found(lines(), looping=True))
