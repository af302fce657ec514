"""The files that attach and detach replace: owner, links, crashes in the middle, and other editors."""

from __future__ import annotations

import fcntl
import grp
import os
import subprocess
from pathlib import Path

import pytest

from support import children
from support.attach_children import die_before
from support.postfix_directories import (
    RECORD,
    age,
    assert_attached,
    attach,
    detach,
    directory,
    names_in,
    postconf,
    wanting,
)
from undisclosed.postfix import PostfixError, config_files
from undisclosed.postfix.milter_lists import milters


def test_owner_group_and_mode_are_kept(config: Path) -> None:
    """postconf itself would make mode 0644 and owner root."""
    main_cf = config / "main.cf"
    group = grp.getgrnam("postfix").gr_gid
    os.chown(main_cf, 0, group)
    main_cf.chmod(0o640)
    for command in (attach, detach):
        assert command(wanting(), config).written
        facts = main_cf.stat()
        assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (0o640, 0, group)
    attach(wanting(), config)
    facts = (config / RECORD).stat()
    assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (0o640, 0, group)


def test_a_symbolic_link_stays_one(config: Path, tmp_path: Path) -> None:
    """Its target is replaced."""
    real = tmp_path / "real.cf"
    (config / "main.cf").rename(real)
    (config / "main.cf").symlink_to(real)
    before = real.read_bytes()
    for command in (attach, detach):
        command(wanting(), config)
        assert (config / "main.cf").is_symlink()
        assert [real] == list(tmp_path.iterdir())
    assert before == real.read_bytes()


def test_the_directory_may_be_named_relative_or_by_a_link(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postfix's own commands take either."""
    link = config.parent / "link"
    link.symlink_to(config)
    attach(wanting(), link)
    monkeypatch.chdir(config.parent)
    assert not attach(wanting(), Path("postfix")).written


def test_config_directory_in_a_value_keeps_its_meaning() -> None:
    """The edit happens on a copy in another directory; a value with $config_directory must not change by it."""
    with directory(b"smtpd_milters = unix:$config_directory/m.sock\n") as config_dir:
        attach(wanting(), config_dir)
        assert f"unix:{config_dir}/m.sock" == milters(postconf(config_dir, "-xh", "smtpd_milters"))[1].endpoint
        assert "$config_directory" in postconf(config_dir, "-h", "smtpd_milters")


def test_a_crash_at_any_step_leaves_a_whole_file_that_detach_restores(config: Path) -> None:
    """Killed before each change of the directory: main.cf is the old or the new one, and detach restores it."""
    main_cf, master_cf = config / "main.cf", config / "master.cf"
    before, services = main_cf.read_bytes(), master_cf.read_bytes()
    attach(wanting(), config)
    after, more_services = main_cf.read_bytes(), master_cf.read_bytes()
    detach(wanting(), config)
    for command, states in ((attach, (before, after)), (detach, (after, before))):
        steps = 0
        while True:
            if command is detach:
                attach(wanting(), config)
            _, status = children.run(die_before, steps, command, config)
            assert status in (0, children.KILLED)
            assert main_cf.read_bytes() in states
            assert master_cf.read_bytes() in (services, more_services)
            age(config)
            attach(wanting(), config)
            assert (after, more_services) == (main_cf.read_bytes(), master_cf.read_bytes())
            detach(wanting(), config)
            assert (before, services) == (main_cf.read_bytes(), master_cf.read_bytes())
            assert names_in(config) == ["main.cf", "master.cf"]
            if status == 0:
                break
            steps += 1
        assert steps >= 4


def test_a_temporary_file_left_by_a_crash_is_no_obstacle(config: Path) -> None:
    """The file may be incomplete, or a hard link to main.cf."""
    leftover = config / "main.cf.tmp"
    leftover.write_bytes(b"half of a fi")
    leftover.chmod(0o600)
    attach(wanting(), config)
    assert_attached(config)
    os.link(config / "main.cf", leftover)
    detach(wanting(), config)
    assert names_in(config) == ["main.cf", "master.cf"]


def test_other_editors_lose_nothing(config: Path) -> None:
    """postconf -e and attach at the same time: each keeps the changes of the others."""
    children = [
        subprocess.Popen(["/usr/sbin/postconf", "-c", str(config), "-e", f"test_{number}={number}"])
        for number in range(20)
    ]
    attach(wanting(), config)
    assert [child.wait(timeout=60) for child in children] == [0] * 20
    assert_attached(config)
    text = (config / "main.cf").read_text()
    assert all(f"test_{number} = {number}\n" in text for number in range(20))


def test_another_editor_that_does_not_end_is_reported(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait ends after LOCK_TIMEOUT, and the error names the file."""
    monkeypatch.setattr(config_files, "LOCK_TIMEOUT", 0.1)
    before = (config / "main.cf").read_bytes()
    with (config / "main.cf.tmp").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(PostfixError, match="another program is editing"):
            attach(wanting(), config)
    assert before == (config / "main.cf").read_bytes()
