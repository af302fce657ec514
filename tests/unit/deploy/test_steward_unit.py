"""The steward's service as shipped: accepted by systemd, in agreement with the milter's, and able to do its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.paths import PROJECT
from support.systemd_units import copied, run, settings
from undisclosed.cli import DEFAULT_CONFIG
from undisclosed.policy.sections import JournalSection
from undisclosed.postfix.mail_log import LOG_GROUPS

EXPOSURE_LIMIT = 25
"""Tenths of systemd's exposure scale: a part of it is root and must read what others own."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with the program's path as it is here, beside the milter's, which it names."""
    copied("undisclosed.service", tmp_path)
    return copied("undisclosed-steward.service", tmp_path)


def test_systemd_has_nothing_to_say_against_the_unit(unit: Path) -> None:
    """Neither an error nor a warning: an unknown setting would silently protect nothing."""
    verified = run("systemd-analyze", "verify", unit)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_unit_is_hardened(unit: Path) -> None:
    """The exposure that systemd computes stays within the limit."""
    judged = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}", unit)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_unit_lets_the_steward_do_its_work() -> None:
    """The steward starts as root, may become the milter's user, and its sendmail(1) can run postdrop(1)."""
    unit = settings("undisclosed-steward.service")
    assert "User" not in unit
    assert {"CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"} <= set(unit["CapabilityBoundingSet"][0].split())
    assert not {"NoNewPrivileges", "RestrictSUIDSGID", "StateDirectory"} & set(unit)
    assert "AF_NETLINK" in unit["RestrictAddressFamilies"][0]  # Postfix's tools list the host's addresses
    assert unit["SupplementaryGroups"] == [" ".join(LOG_GROUPS)]
    assert "/var/spool/postfix" in unit["ReadWritePaths"][0].split()
    assert unit["RuntimeDirectory"] == ["undisclosed-steward"]  # root's; the other half must be able to enter it
    assert int(unit["RuntimeDirectoryMode"][0], 8) & 0o001


def test_both_units_name_a_page_of_this_project() -> None:
    """docs/install.md copies the pages to the place that `systemctl status` names."""
    for unit in ("undisclosed.service", "undisclosed-steward.service"):
        [address] = settings(unit)["Documentation"]
        page = address.removeprefix("file:///opt/undisclosed/")
        assert (PROJECT / page).is_file()
    assert "cp -r README.md docs /opt/undisclosed/" in (PROJECT / "docs" / "install.md").read_text()


def test_unit_agrees_with_the_milters() -> None:
    """The same configuration and user, so that both can write the journal; each stops and reloads alike."""
    unit, other = settings("undisclosed-steward.service"), settings("undisclosed.service")
    start = f"/opt/undisclosed/bin/undisclosed steward --user {other['User'][0]} --config {DEFAULT_CONFIG}"
    assert unit["ExecStart"] == [start]
    assert str(JournalSection().key_file.parent) in unit["ReadWritePaths"][0].split()
    for name in (
        "Type", "KillMode", "Restart", "ExecReload", "RestartPreventExitStatus", "StartLimitIntervalSec"
    ):  # fmt: skip
        assert unit[name] == other[name]
