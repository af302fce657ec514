"""milter_lists.py: lists split as Postfix splits them, with our milter first, and without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.postfix_configurations import OURS, QUEUE, SOCKET, US
from undisclosed.policy.types import Socket, parse_socket
from undisclosed.postfix.milter_lists import (
    ListEdit,
    ListError,
    Milter,
    UnwritableSocket,
    canonical,
    milters,
    our_milter,
    with_ours_first,
    without_ours,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("  ,, \t", []),
        ("inet:a:1", ["inet:a:1"]),
        ("inet:a:1,unix:b inet:c:3 ,\tlocal:d", ["inet:a:1", "unix:b", "inet:c:3", "local:d"]),
        ("{ inet:a:1, protocol=6 }, unix:b", ["{ inet:a:1, protocol=6 }", "unix:b"]),
        ("$smtpd_milters, ${more}", ["$smtpd_milters", "${more}"]),
        ("${stress?{inet:a:1, inet:b:2}:{inet:c:3}} unix:d", ["${stress?{inet:a:1, inet:b:2}:{inet:c:3}}", "unix:d"]),
    ],
)
def test_a_list_is_split_where_postfix_splits_it(value: str, expected: list[str]) -> None:
    """Blanks and commas separate, except within braces."""
    assert expected == [milter.text for milter in milters(value)]


@pytest.mark.parametrize("value", ["{ inet:a:1", "inet:a:1 }", "{ }", "{a}{b}", "}{"])
def test_a_list_that_postfix_could_not_read_is_refused(value: str) -> None:
    """Braces that do not match, and a group of nothing, are errors and not milters."""
    with pytest.raises(ListError):
        milters(value)


def test_a_group_has_an_endpoint_and_attributes() -> None:
    """Attributes are read however they are written, and the last one of a name counts."""
    value = "{ inet:h:1,protocol=2 { command_timeout = 10s } default_action=accept default_action=reject }"
    (milter,) = milters(value)
    assert milter.endpoint == "inet:h:1"
    assert milter.attribute("protocol") == "2"
    assert milter.attribute("command_timeout") == "10s"
    assert milter.attribute("default_action") == "reject"
    assert milter.attribute("connect_timeout") is None


@pytest.mark.parametrize(
    ("socket", "expected"),
    [
        (f"unix:{SOCKET}", "unix:undisclosed/milter.sock"),
        (f"local:{SOCKET}", "unix:undisclosed/milter.sock"),
        ("unix:/run/undisclosed/milter.sock", "unix:/run/undisclosed/milter.sock"),
        ("unix:/var/spool/postfix-out/m.sock", "unix:/var/spool/postfix-out/m.sock"),
        ("inet:8899@127.0.0.1", "inet:127.0.0.1:8899"),
        ("inet:8899@milter.council.test", "inet:milter.council.test:8899"),
        ("inet:8899", "inet:127.0.0.1:8899"),
        ("inet:8899@0.0.0.0", "inet:127.0.0.1:8899"),
        ("inet6:8899@::1", "inet:[::1]:8899"),
        ("inet6:8899@::", "inet:[::1]:8899"),
        ("inet6:8899", "inet:[::1]:8899"),
    ],
)
def test_a_socket_is_written_in_the_syntax_of_postfix(socket: str, expected: str) -> None:
    """The path is relative to the queue directory if it is below it; the host comes before the port."""
    assert expected == our_milter(parse_socket(socket), [QUEUE], "tempfail").endpoint


def test_a_queue_directory_behind_a_symbolic_link_is_recognised() -> None:
    """Whichever of the two names the policy uses, the path is relative to the queue directory."""
    names = (QUEUE, "/data/spool/postfix")
    by_link = our_milter(parse_socket(f"unix:{SOCKET}"), names, "tempfail")
    by_target = our_milter(parse_socket("unix:/data/spool/postfix/undisclosed/milter.sock"), names, "tempfail")
    elsewhere = our_milter(parse_socket("unix:/s/m.sock"), names, "tempfail", resolved="/data/spool/postfix/x/m.sock")
    assert by_link.endpoint == by_target.endpoint == "unix:undisclosed/milter.sock"
    assert elsewhere.endpoint == "unix:x/m.sock"


@pytest.mark.parametrize("path", ["/a b/m.sock", "/a,b", "/a{b", "/a$b"])
def test_a_path_that_a_list_cannot_hold_is_refused(path: str) -> None:
    """Postfix would split it into several elements."""
    with pytest.raises(UnwritableSocket):
        our_milter(Socket("unix", path=Path(path)), [QUEUE], "tempfail")


@pytest.mark.parametrize(
    "endpoint",
    [
        "unix:undisclosed/milter.sock",
        "local:undisclosed/milter.sock",
        "unix:./undisclosed//milter.sock",
        f"unix:{SOCKET}",
        "unix:/undisclosed/milter.sock",
    ],
)
def test_our_milter_matches_every_name_of_its_socket(endpoint: str) -> None:
    """An administrator may have written another name than attach does."""
    assert OURS.matches(Milter(endpoint, endpoint))


def test_localhost_matches_the_loopback_address() -> None:
    """In any case, and with the same port only."""
    ours = our_milter(parse_socket("inet:8899@127.0.0.1"), [QUEUE], "tempfail")
    assert ours.matches(Milter("", "inet:localhost:8899"))
    assert ours.matches(Milter("", "inet:LOCALHOST:8899"))
    assert not ours.matches(Milter("", "inet:127.0.0.1:8891"))
    assert not ours.matches(Milter("", "inet:[::1]:8899"))
    assert canonical("inet:[::1]:8899") == canonical("inet:::1:8899")


THEIRS = "{ inet:127.0.0.1:11332, default_action=accept }"


@pytest.mark.parametrize(
    ("raw", "expanded", "expected"),
    [
        ("", "", ListEdit(US)),
        ("inet:h:1", "inet:h:1", ListEdit(f"{US}, inet:h:1")),
        ("inet:h:1  unix:b,", "inet:h:1  unix:b,", ListEdit(f"{US}, inet:h:1  unix:b")),
        (THEIRS, THEIRS, ListEdit(f"{US}, {THEIRS}")),
        ("$others", "inet:h:1 unix:b", ListEdit(f"{US}, $others")),
        ("$others", "", ListEdit(f"{US}, $others")),
        (US, US, None),
        (f"{US}, inet:h:1", f"{US}, inet:h:1", None),
        ("$smtpd_milters", f"{US}, inet:h:1", None),
        ("$ours inet:h:1", f"{US} inet:h:1", None),
        # elsewhere in the list, twice, or with another action
        (f"inet:h:1 {US} unix:b", f"inet:h:1 {US} unix:b", ListEdit(f"{US}, inet:h:1, unix:b")),
        (f"{US}, inet:h:1, {US}", f"{US}, inet:h:1, {US}", ListEdit(f"{US}, inet:h:1")),
        ("unix:undisclosed/milter.sock", "unix:undisclosed/milter.sock", ListEdit(US)),
        (
            "{ unix:undisclosed/milter.sock, default_action=accept, connect_timeout=3s }",
            "{ unix:undisclosed/milter.sock, default_action=accept, connect_timeout=3s }",
            ListEdit("{ unix:undisclosed/milter.sock, default_action=tempfail, connect_timeout=3s }"),
        ),
        (
            "{ unix:undisclosed/milter.sock, { protocol = 6 no_header_reply } }",
            "{ unix:undisclosed/milter.sock, { protocol = 6 no_header_reply } }",
            ListEdit("{ unix:undisclosed/milter.sock, default_action=tempfail, { protocol = 6 no_header_reply } }"),
        ),
        # a name that a chrooted smtpd cannot follow
        (
            f"{{ unix:{SOCKET}, default_action=tempfail }}",
            f"{{ unix:{SOCKET}, default_action=tempfail }}",
            ListEdit(US),
        ),
        # brought in by a variable at another place
        ("inet:h:1, $smtpd_milters", f"inet:h:1, {US}, unix:b", ListEdit(f"{US}, inet:h:1, unix:b", written_out=True)),
        (f"{US}, $smtpd_milters", f"{US}, {US}, unix:b", ListEdit(f"{US}, unix:b", written_out=True)),
    ],
)
def test_our_milter_is_put_first_and_only_once(raw: str, expanded: str, expected: ListEdit | None) -> None:
    """Other elements keep their order, their text and their variables."""
    assert expected == with_ours_first(raw, expanded, OURS)


def test_a_new_socket_replaces_the_one_that_attach_wrote() -> None:
    """Nothing listens at the old endpoint any more: all mail would wait for it."""
    moved = our_milter(parse_socket("inet:8899@127.0.0.1"), [QUEUE], "tempfail", formerly=[OURS.endpoint])
    assert with_ours_first(f"{US}, inet:h:1", f"{US}, inet:h:1", moved) == ListEdit(f"{moved.element}, inet:h:1")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        (US, ""),
        ("inet:h:1  unix:b", "inet:h:1  unix:b"),
        (f"{US}, inet:h:1", "inet:h:1"),
        (f"inet:h:1,{US} $more", "inet:h:1, $more"),
        ("$smtpd_milters", "$smtpd_milters"),
    ],
)
def test_our_milter_is_removed(raw: str, expected: str) -> None:
    """A list without our milter stays as it is written."""
    assert expected == without_ours(raw, OURS)


elements = st.one_of(
    st.just(US),
    st.sampled_from(["unix:undisclosed/milter.sock", "{ unix:undisclosed/milter.sock, default_action=accept }"]),
    st.from_regex(r"\A(inet:[a-z]{1,5}:[1-9][0-9]{0,3}|unix:[a-z]{1,5}/[a-z]{1,5})\Z"),
    st.from_regex(r"\A\{ inet:[a-z]{1,5}:[1-9], (default_action=accept|\{ protocol = 6 \}) \}\Z"),
)


@given(st.lists(st.tuples(elements, st.sampled_from([" ", ",", ", ", "\t", " ,, "])), max_size=6))
def test_any_list_gets_our_milter_first_and_keeps_the_others(parts: list[tuple[str, str]]) -> None:
    """Doing it again changes nothing, and removing our milter leaves the others."""
    raw = "".join(element + separator for element, separator in parts)
    others = [milter.text for milter in milters(raw) if not OURS.matches(milter)]
    edit = with_ours_first(raw, raw, OURS)
    now = raw if edit is None else edit.value
    assert [OURS.matches(milter) for milter in milters(now)] == [True] + [False] * len(others)
    assert milters(now)[0].attribute("default_action") == "tempfail"
    assert [milter.text for milter in milters(now)[1:]] == others
    assert with_ours_first(now, now, OURS) is None
    assert [milter.text for milter in milters(without_ours(now, OURS))] == others


@given(st.text(alphabet="{}$,: ab=\t", max_size=40))
def test_any_text_is_refused_or_gives_a_readable_list(text: str) -> None:
    """A list has our milter first."""
    try:
        edit = with_ours_first(text, text, OURS)
    except ListError:
        return
    assert edit is not None
    assert OURS.is_current(milters(edit.value)[0])


def test_the_element_of_our_milter() -> None:
    """A group with endpoint, default_action and timeouts."""
    expected = "{ unix:undisclosed/milter.sock, default_action=tempfail, connect_timeout=10s, command_timeout=30s, "
    assert expected + "content_timeout=60s }" == US
    assert OURS.is_current(milters(US)[0])
