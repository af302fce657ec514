"""The call of sendmail(1): its arguments, its input, its failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import processes
from lab.waiting import until
from support.notice_factories import notice
from undisclosed.notices import NoticeError, send


def program(path: Path, script: str) -> Path:
    """A shell script in place of sendmail(1)."""
    file = path / "sendmail"
    file.write_text(f"#!/bin/sh\ncd {path}\n{script}\n")
    file.chmod(0o755)
    return file


def test_how_sendmail_is_called(tmp_path: Path) -> None:
    """With the null sender, the recipient after `--`, the message with LF, and an empty environment."""
    sendmail = program(tmp_path, 'printf "%s\\n" "$@" >arguments; env >environment; cat >message')
    message = notice("held")
    send(message, "clerk@council.test", sendmail, Path("/etc/postfix-out"))
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ["-C", "/etc/postfix-out", "-i", "-f", "<>", "--", "clerk@council.test"]
    assert (tmp_path / "message").read_bytes() == message.as_bytes()
    assert b"\r" not in message.as_bytes()
    assert "HOME=" not in (tmp_path / "environment").read_text()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "cat >/dev/null; echo 'fatal: parent@family.test: no such alias <root>' >&2; exit 75",
            "ended with status 75: fatal: …: no such alias …",
        ),
        ("cat >/dev/null; echo 'queue file\nwrite error' >&2; exit 75", "ended with status 75: queue file write error"),
        ("exit 1", "ended with status 1: no message"),
        ("kill -9 $$", "ended with status -9"),
    ],
)
def test_a_sendmail_that_fails(tmp_path: Path, script: str, said: str) -> None:
    """The error has its status and its message, also if it never reads its input."""
    with pytest.raises(NoticeError, match=said):
        send(notice("held"), "clerk@council.test", program(tmp_path, script))


def test_a_sendmail_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Its child postdrop(1) holds the pipe open."""
    script = "echo $$ >parent; sh -c 'echo $$ >child; exec sleep 60'; exit 0"
    sendmail = program(tmp_path, script)
    child = tmp_path / "child"
    for timeout in (0.5, 5.0, 50.0):
        with pytest.raises(NoticeError, match=rf"did not end within {timeout:g} s"):
            send(notice("held"), "clerk@council.test", sendmail, timeout=timeout)
        if child.exists() and child.read_text():
            break  # else the machine was too busy to start the child in that time
    pids = [int(file.read_text()) for file in (tmp_path / "parent", child)]
    until(lambda: not any(map(processes.is_running, pids)), what="both processes to end")


def test_a_missing_sendmail(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(NoticeError, match="sendmail cannot be started: No such file"):
        send(notice("held"), "clerk@council.test", tmp_path / "sendmail")


@pytest.mark.parametrize("sender", ["", "a@council.test,b@family.test", "a@council.test b@family.test", "clerk"])
def test_sendmail_is_never_given_two_addresses(tmp_path: Path, sender: str) -> None:
    """sendmail(1) would read several addresses in one argument."""
    with pytest.raises(NoticeError, match="not an address"):
        send(notice("held"), sender, program(tmp_path, "touch called"))
    assert list(tmp_path.iterdir()) == [tmp_path / "sendmail"]
