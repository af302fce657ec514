"""reachability.py: chroot, permissions, and the effect on mail while the socket cannot be reached."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from support.postfix_configurations import (
    OURS,
    POSTFIX,
    QUEUE,
    REACHED,
    SOCKET,
    accepting,
    findings,
    postfix_config,
    texts,
)
from undisclosed.policy.types import parse_socket
from undisclosed.postfix.assessment import Expected, assess
from undisclosed.postfix.milter_lists import our_milter
from undisclosed.postfix.model import Level
from undisclosed.postfix.reachability import Place, Step, targets


def with_mode(place: Place, number: int, mode: int) -> Place:
    """The place with another mode for one step of the way."""
    way = list(place.way)
    way[number] = way[number]._replace(mode=mode)
    return place._replace(way=tuple(way))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place("missing"), f"there is no socket at {SOCKET}"),
        (Place("other"), f"{SOCKET} is not a socket"),
        (REACHED._replace(answers=False), f"nothing answers at {SOCKET}"),
        (with_mode(REACHED, 1, 0o2700), f"postfix may not enter {QUEUE}/undisclosed (mode 2700, 990:108)"),
        (with_mode(REACHED, 2, 0o600), f"postfix may not write to {SOCKET} (mode 0600, 990:108)"),
        (with_mode(REACHED, 2, 0o646), f"postfix may not write to {SOCKET} (mode 0646, 990:108)"),
        (with_mode(REACHED, 0, 0o750), f"postfix may not enter {QUEUE} (mode 0750, 0:0)"),
    ],
)
def test_a_socket_that_postfix_cannot_use_is_a_problem(place: Place, expected: str) -> None:
    """The finding names the first obstacle on the way, the services that meet it, and the effect on mail."""
    (problem,) = texts(findings(postfix_config(), place=place), Level.PROBLEM)
    assert expected in problem
    assert "smtp/inet, submission/inet, cleanup/unix (chrooted in /var/spool/postfix)" in problem
    assert "waits or is refused for now" in problem


def test_without_the_socket_mail_passes_in_monitor_mode() -> None:
    """The effect on mail follows from the default_action in the list."""
    (problem,) = texts(findings(postfix_config(accepting()), enforce=False, place=Place("missing")), Level.PROBLEM)
    assert problem.endswith("Until then mail goes out unchecked.")


def test_permissions_are_those_of_owner_group_or_others() -> None:
    """As in the kernel, the first class that the account belongs to decides."""
    owned = Place("socket", (Step(SOCKET, 0o066, 101, 108),))
    assert len(texts(findings(postfix_config(), place=owned), Level.PROBLEM)) == 1
    anyone = Place("socket", (Step(SOCKET, 0o666, 0, 0),))
    assert texts(findings(postfix_config(), place=anyone), Level.PROBLEM) == []


def test_a_socket_that_this_user_may_not_look_at_is_a_note() -> None:
    """An unprivileged user can run status; the finding says to run it as root."""
    found = findings(postfix_config(), place=Place("hidden"))
    assert texts(found, Level.PROBLEM) == []
    assert [finding.remedy for finding in found if finding.level is Level.NOTE] == ["run this command as root"]


def test_a_host_without_the_account_of_postfix_is_a_note() -> None:
    """Permissions cannot be checked without it."""
    (note,) = texts(findings(postfix_config(), account=None), Level.NOTE)
    assert "mail_owner = postfix, does not exist" in note


@pytest.mark.parametrize(
    ("endpoint", "chroot", "expected"),
    [
        ("unix:undisclosed/milter.sock", True, SOCKET),
        ("unix:undisclosed/milter.sock", False, SOCKET),
        (f"unix:{SOCKET}", False, SOCKET),
        (f"unix:{SOCKET}", True, f"{QUEUE}{SOCKET}"),
        ("unix:/undisclosed/milter.sock", True, SOCKET),
        ("unix:/undisclosed/milter.sock", False, "/undisclosed/milter.sock"),
    ],
)
def test_a_chroot_decides_where_a_path_leads(endpoint: str, chroot: bool, expected: str) -> None:
    """An absolute path means another file in a chroot; a relative one means the same everywhere."""
    element = f"{{ {endpoint}, default_action=tempfail }}"
    configuration = postfix_config({"smtpd_milters": element, "non_smtpd_milters": element}, chroot=chroot)
    assert [expected] == list(targets(configuration, OURS))


def test_a_socket_outside_the_chroot_is_named_with_the_chroot() -> None:
    """The finding names the path where Postfix looks, which is not where the milter listens."""
    ours = our_milter(parse_socket("unix:/run/undisclosed/milter.sock"), [QUEUE], "tempfail")
    configuration = postfix_config({"smtpd_milters": ours.element, "non_smtpd_milters": ours.element})
    (target,) = targets(configuration, ours)
    expected = Expected(ours, True, (ip_network("127.0.0.0/8"), ip_network("::1/128")), True)
    (problem,) = texts(assess(configuration, expected, {target: Place("missing")}, POSTFIX), Level.PROBLEM)
    assert "(chrooted in /var/spool/postfix): there is no socket at" in problem
    assert f"{QUEUE}/run/undisclosed/milter.sock" in problem
