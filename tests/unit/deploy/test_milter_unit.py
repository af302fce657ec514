"""The service as shipped: accepted by systemd, hardened, and in agreement with the program's own defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import milter
from support.systemd_units import UNITS, copied, run, settings
from undisclosed.cli import DEFAULT_CONFIG
from undisclosed.policy.sections import JournalSection, MilterSection

EXPOSURE_LIMIT = 10
"""Tenths of systemd's exposure scale, which ends at 10.0: the unit is at 0.5, and an unhardened one above 9."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with the program's path as it is here."""
    return copied("undisclosed.service", tmp_path)


def test_systemd_has_nothing_to_say_against_the_unit(unit: Path) -> None:
    """Neither an error nor a warning: an unknown setting would silently protect nothing."""
    verified = run("systemd-analyze", "verify", unit)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_unit_is_hardened(unit: Path) -> None:
    """The exposure that systemd computes stays within the limit, and the same tool turns a bare unit down."""
    judge = ("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}")
    judged = run(*judge, unit)
    assert judged.returncode == 0, judged.stdout + judged.stderr

    bare = unit.with_name("bare.service")
    bare.write_text(f"[Service]\nExecStart={milter.console_script()} run\n")
    assert run(*judge, bare).returncode != 0


def test_unit_stops_and_reloads_as_the_supervisor_expects() -> None:
    """The supervisor alone gets SIGTERM, has more than its ten seconds, and a reload tells its result."""
    unit = settings("undisclosed.service")
    assert (unit["Type"], unit["KillMode"], unit["Restart"]) == (["notify"], ["mixed"], ["on-failure"])
    assert unit["ExecReload"] == ["/opt/undisclosed/bin/undisclosed reload $MAINPID"]
    assert unit["RuntimeDirectory"] == ["undisclosed"]
    assert int(unit["TimeoutStopSec"][0]) > 10


def test_unit_starts_again_unless_an_administrator_has_to_correct_something() -> None:
    """After exit status 1 for as long as it takes; not after 2. RestartSec=1 alone ends at the limit of five starts."""
    unit = settings("undisclosed.service")
    assert (unit["RestartPreventExitStatus"], unit["StartLimitIntervalSec"]) == (["2"], ["0"])


def test_unit_agrees_with_the_defaults_of_the_program() -> None:
    """Configuration, key and socket are where the program looks for them when the configuration says nothing."""
    unit = settings("undisclosed.service")
    socket = MilterSection().endpoint.path
    assert socket is not None
    assert unit["ExecStart"] == [f"/opt/undisclosed/bin/undisclosed run --config {DEFAULT_CONFIG}"]
    assert unit["ReadWritePaths"] == [str(socket.parent)]
    assert f"/var/lib/{unit['StateDirectory'][0]}" == str(JournalSection().key_file.parent)


def test_user_and_socket_directory_are_made_as_the_unit_needs_them(tmp_path: Path) -> None:
    """systemd makes the unit's user, and for it a directory whose setgid bit gives the socket to Postfix's group."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "var/spool/postfix").mkdir(parents=True)
    postfix = tmp_path / "postfix.conf"
    postfix.write_text("g postfix - -\n")
    made = run("systemd-sysusers", f"--root={tmp_path}", UNITS / "undisclosed.sysusers", postfix)
    assert made.returncode == 0, made.stderr
    created = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", UNITS / "undisclosed.tmpfiles")
    assert created.returncode == 0, created.stderr

    users = _ids(tmp_path / "etc/passwd")
    groups = _ids(tmp_path / "etc/group")
    assert settings("undisclosed.service")["User"] == ["undisclosed"]
    assert users["undisclosed"] != 0
    socket = MilterSection().endpoint.path
    assert socket is not None
    directory = (tmp_path / socket.parent.relative_to("/")).stat()
    assert (directory.st_uid, directory.st_gid) == (users["undisclosed"], groups["postfix"])
    assert oct(directory.st_mode & 0o7777) == "0o2750"


def _ids(database: Path) -> dict[str, int]:
    return {line.split(":")[0]: int(line.split(":")[2]) for line in database.read_text().splitlines()}
