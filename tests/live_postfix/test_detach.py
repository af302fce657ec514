"""detach after main.cf was edited, with the real postconf(1) and no running Postfix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.postfix_directories import (
    DEBIAN_MASTER_CF,
    RECORD,
    US,
    age,
    assert_attached,
    attach,
    detach,
    directory,
    fingerprint,
    postconf,
    wanting,
)
from undisclosed.postfix import PostfixError


def test_later_edits_stay_and_our_settings_go(config: Path) -> None:
    """A new comment and another setting survive detach; the lines of attach are gone."""
    attach(wanting(), config)
    with (config / "main.cf").open("a") as file:
        file.write("# later\nmydestination = council.test\n")
    age(config)
    plan = detach(wanting(), config)
    expected = (
        "# mine\nsmtpd_milters = inet:localhost:8891\nmyhostname = mx.council.test\n"
        "# later\nmydestination = council.test\n"
    )
    assert expected == (config / "main.cf").read_text()
    assert any("has been edited since" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        # a milter added behind us, before us, or ours alone left
        ({"smtpd_milters": f"{US}, inet:localhost:8891, unix:new/m.sock"}, "inet:localhost:8891, unix:new/m.sock"),
        ({"smtpd_milters": f"unix:new/m.sock {US}"}, "unix:new/m.sock"),
        ({"smtpd_milters": US}, ""),
        # our group changed
        ({"smtpd_milters": "{ unix:undisclosed/milter.sock, default_action=accept } unix:x/y"}, "unix:x/y"),
        # taken out already
        ({"smtpd_milters": "inet:localhost:8891"}, "inet:localhost:8891"),
        # another parameter
        ({"myhostname": "other.council.test"}, "inet:localhost:8891"),
    ],
)
def test_only_our_element_leaves_a_list_that_was_edited_since(
    config: Path, edits: dict[str, str], expected: str
) -> None:
    """Elements that an administrator added after attach stay."""
    attach(wanting(), config)
    for name, value in edits.items():
        postconf(config, "-e", f"{name}={value}")
    detach(wanting(), config)
    assert expected == postconf(config, "-h", "smtpd_milters")
    assert postconf(config, "-h", "myhostname") == edits.get("myhostname", "mx.council.test")
    assert "non_smtpd_milters" not in (config / "main.cf").read_text()
    assert "enable_long_queue_ids" not in (config / "main.cf").read_text()


def test_long_queue_ids_that_were_on_before_stay_on() -> None:
    """Only settings that attach changed are undone."""
    with directory(b"enable_long_queue_ids = yes\n") as config_dir:
        attach(wanting(), config_dir)
        postconf(config_dir, "-e", "myhostname=mx.council.test")
        detach(wanting(), config_dir)
        assert postconf(config_dir, "-n", "-h", "enable_long_queue_ids") == "yes"


def test_long_queue_ids_that_somebody_set_since_stay_as_set(config: Path) -> None:
    """An administrator has changed them since."""
    attach(wanting(), config)
    postconf(config, "-e", "enable_long_queue_ids=no")
    detach(wanting(), config)
    assert "enable_long_queue_ids = no\n" in (config / "main.cf").read_text()


def test_attach_after_an_edit_and_detach_after_that(config: Path) -> None:
    """Attached, edited so that our milter is second, attached again: detach keeps the edit and removes our milter."""
    attach(wanting(), config)
    postconf(config, "-e", f"smtpd_milters=unix:new/m.sock, {US}", "myhostname=other.council.test")
    attach(wanting(), config)
    assert_attached(config)
    detach(wanting(), config)
    expected = "# mine\nsmtpd_milters = unix:new/m.sock\nmyhostname = other.council.test\n"
    assert expected == (config / "main.cf").read_text()


def test_without_the_record_only_the_lists_are_restored(config: Path) -> None:
    """Our milter leaves the lists; long queue ids stay, and a note says so."""
    attach(wanting(), config)
    (config / RECORD).unlink()
    plan = detach(wanting(), config)
    expected = (
        "# mine\nsmtpd_milters = inet:localhost:8891\nmyhostname = mx.council.test\nenable_long_queue_ids = yes\n"
    )
    assert expected == (config / "main.cf").read_text()
    assert any("no record" in note for note in plan.notes)


def test_detach_without_attach_changes_nothing(config: Path) -> None:
    """A second detach changes nothing either."""
    stood = fingerprint(config / "main.cf")
    plan = detach(wanting(), config)
    assert (plan.changes, plan.written) == ((), False)
    assert plan.next_steps == ("Nothing to change.",)
    assert stood == fingerprint(config / "main.cf")


def test_a_dry_detach_shows_and_leaves(config: Path) -> None:
    """The record and main.cf stay."""
    attach(wanting(), config)
    stood, record = fingerprint(config / "main.cf"), (config / RECORD).read_bytes()
    plan = detach(wanting(), config, dry_run=True)
    assert f"-non_smtpd_milters = {US}" in plan.diff
    assert (stood, record) == (fingerprint(config / "main.cf"), (config / RECORD).read_bytes())


@pytest.mark.parametrize(
    ("main_cf", "master_cf", "expected"),
    [
        (
            f"ours = {US}\nsmtpd_milters = $ours\n".encode(),
            DEBIAN_MASTER_CF,
            "smtpd_milters still names our milter, through a variable",
        ),
        (
            b"",
            DEBIAN_MASTER_CF + f"submission inet n - y - - smtpd\n  -o {{ smtpd_milters = {US} }}\n",
            "smtpd_milters of submission/inet in master.cf still names our milter",
        ),
    ],
)
def test_detach_says_where_our_milter_is_still_named(main_cf: bytes, master_cf: str, expected: str) -> None:
    """An element that attach did not write stays, and a note names it."""
    with directory(main_cf, master_cf) as config_dir:
        attach(wanting(), config_dir)
        plan = detach(wanting(), config_dir)
        assert any(expected in note for note in plan.notes)


def test_the_record_has_the_former_file(config: Path) -> None:
    """With it an administrator can do by hand what detach does."""
    before = (config / "main.cf").read_text()
    attach(wanting(), config)
    record = json.loads((config / RECORD).read_text())
    assert before == record["before"]
    assert record["changes"]["enable_long_queue_ids"] == {"old": None, "new": "yes"}


def test_detach_refuses_while_mail_is_held(config: Path) -> None:
    """users-walk 4: Postfix would rename the held files, and nothing could release them. --anyway detaches."""
    queue = config.parent / "queue"
    postconf(config, "-e", f"queue_directory={queue}")
    attach(wanting(), config)
    (queue / "hold" / "4").mkdir(parents=True)
    for name in ("4/4jdbR82RhMzKWq6", "4jdbRC1d9FzKWq7"):
        (queue / "hold" / name).touch()
    stood = fingerprint(config / "main.cf")
    with pytest.raises(PostfixError, match=r"2 messages are on hold, .*--anyway"):
        detach(wanting(), config)
    assert stood == fingerprint(config / "main.cf")
    assert any("2 messages are on hold" in note for note in detach(wanting(), config, dry_run=True).notes)
    plan = detach(wanting(), config, anyway=True)
    assert plan.written
    assert any("2 messages are on hold" in note for note in plan.notes)
