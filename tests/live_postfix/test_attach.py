"""attach on configuration directories of their own, with the real postconf(1) and no running Postfix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import children
from support.attach_children import attach_as_nobody
from support.postfix_directories import (
    LISTS,
    MAIN_CF,
    RECORD,
    US,
    age,
    assert_attached,
    attach,
    detach,
    directory,
    fingerprint,
    names_in,
    postconf,
    settings_but_ours,
    wanting,
)
from undisclosed.postfix import PostfixError
from undisclosed.postfix import postconf as postconf_module
from undisclosed.postfix.master_cf import LISTENER, OPTIONS
from undisclosed.postfix.milter_lists import milters


@pytest.mark.parametrize("case", MAIN_CF)
def test_attach_and_detach_leave_every_byte_as_it_was(case: str) -> None:
    """For any main.cf: attach changes nothing else, a second attach changes nothing, and detach restores the bytes."""
    with directory(MAIN_CF[case]) as config_dir:
        main_cf, master_cf = config_dir / "main.cf", config_dir / "master.cf"
        before, others = main_cf.read_bytes(), {name: list_of(config_dir, name) for name in LISTS}
        services = master_cf.read_bytes()
        settings = settings_but_ours(config_dir)

        plan = attach(wanting(), config_dir)
        assert plan.written
        assert_attached(config_dir)
        assert settings == settings_but_ours(config_dir)
        assert comments(before) == comments(main_cf.read_bytes())
        for name in LISTS:
            assert others[name] == [text for text in list_of(config_dir, name) if text != US]

        assert master_cf.read_bytes().startswith(services)
        assert list_of(config_dir, "undisclosed_release_milters") == others[LISTS[0]]

        again, stood = attach(wanting(), config_dir), (fingerprint(main_cf), fingerprint(master_cf))
        assert (again.changes, again.diff, again.written) == ((), "", False)
        assert stood == (fingerprint(main_cf), fingerprint(master_cf))

        assert detach(wanting(), config_dir).written
        assert (before, services) == (main_cf.read_bytes(), master_cf.read_bytes())
        assert names_in(config_dir) == ["main.cf", "master.cf"]


def list_of(config_dir: Path, name: str) -> list[str]:
    """The elements of a list as Postfix sees them."""
    return [milter.text for milter in milters(postconf(config_dir, "-xh", name))]


def comments(main_cf: bytes) -> list[bytes]:
    """The comment lines of a main.cf, in order."""
    return [line.strip() for line in main_cf.split(b"\n") if line.lstrip().startswith(b"#")]


@pytest.mark.parametrize("case", MAIN_CF)
def test_a_dry_run_shows_what_would_be_written_and_writes_nothing(case: str) -> None:
    """The shown difference is that of the real attach: with it patch(1) turns the old file into the new one."""
    with directory(MAIN_CF[case]) as config_dir:
        main_cf = config_dir / "main.cf"
        stood, names = fingerprint(main_cf), names_in(config_dir)
        dry = attach(wanting(), config_dir, dry_run=True)
        assert (stood, names) == (fingerprint(main_cf), names_in(config_dir))
        assert not dry.written

        wet = attach(wanting(), config_dir)
        assert (dry.changes, dry.diff) == (wet.changes, wet.diff)
        added = [line[1:] for line in dry.diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
        there = main_cf.read_bytes() + (config_dir / "master.cf").read_bytes()
        assert set(added) <= set(there.decode("utf-8", "replace").replace("\r", "").split("\n"))
        assert dry.diff in dry.summary + "\n"
        assert dry.next_steps == ("Nothing has been written.",)
        assert wet.next_steps == (f"Postfix works as before until you run: postfix -c {config_dir} reload",)


def test_a_parameter_is_replaced_in_place_or_appended(config: Path) -> None:
    """The whole file: lines and comments keep their places, new lines come last."""
    attach(wanting(), config)
    expected = (
        f"# mine\nsmtpd_milters = {US}, inet:localhost:8891\nmyhostname = mx.council.test\n"
        f"non_smtpd_milters = {US}\nenable_long_queue_ids = yes\nundisclosed_release_milters = inet:localhost:8891\n"
    )
    assert expected == (config / "main.cf").read_text()


def test_the_services_of_master_cf_are_named_too(config: Path) -> None:
    """Added, changed and removed ones, beside the parameters of main.cf (users' walk, 35)."""
    added = attach(wanting(), config)
    assert [(change.parameter, change.old, change.new) for change in added.services] == [
        ("undisclosed-release/unix", None, f"smtpd, with {len(OPTIONS[LISTENER])} options (-o)"),
        ("undisclosed-cleanup/unix", None, "cleanup, with 2 options (-o)"),
    ]
    assert f"{config}/master.cf: undisclosed-release/unix\n  was      (not set)\n  is       smtpd" in added.summary
    master = config / "master.cf"
    master.write_text(master.read_text().replace("-o soft_bounce=no", "-o soft_bounce=yes"))
    [changed] = attach(wanting(), config).services
    assert changed[1:] == ("undisclosed-release/unix", "-o soft_bounce=yes", "-o soft_bounce=no")
    assert [change.new for change in detach(wanting(), config).services] == [None, None]


def test_a_list_that_refers_to_the_other_one_stays() -> None:
    """non_smtpd_milters = $smtpd_milters has our milter already."""
    with directory(MAIN_CF["variables"]) as config_dir:
        plan = attach(wanting(), config_dir)
        assert [change.parameter for change in plan.changes] == [
            "smtpd_milters", "enable_long_queue_ids", "undisclosed_release_milters"
        ]  # fmt: skip
        assert postconf(config_dir, "-h", "non_smtpd_milters") == "$smtpd_milters"
        assert postconf(config_dir, "-h", "smtpd_milters") == f"{US}, $signers"
        assert_attached(config_dir)


def test_a_list_that_refers_to_the_other_one_among_others_is_expanded() -> None:
    """Our milter would otherwise come second, or twice. The plan has a note."""
    with directory(MAIN_CF["the other list among others"]) as config_dir:
        plan = attach(wanting(), config_dir)
        assert postconf(config_dir, "-h", "non_smtpd_milters") == f"{US}, unix:a/b, inet:localhost:8891"
        assert any("non_smtpd_milters named our milter through a variable" in note for note in plan.notes)


def test_the_mode_decides_the_default_action_and_attach_follows_it(config: Path) -> None:
    """A dead milter must not stop mail in monitor mode, and must in enforce mode; detach still restores the file."""
    before = (config / "main.cf").read_bytes()
    attach(wanting("monitor"), config)
    assert_attached(config, "accept")
    plan = attach(wanting("enforce"), config)
    assert list(LISTS) == [change.parameter for change in plan.changes]
    assert_attached(config, "tempfail")
    assert not attach(wanting("enforce"), config).written
    detach(wanting("enforce"), config)
    assert before == (config / "main.cf").read_bytes()


def test_a_new_socket_replaces_the_old_one(config: Path) -> None:
    """The endpoint that attach wrote before is removed: nothing listens there any more."""
    before = (config / "main.cf").read_bytes()
    attach(wanting(), config)
    attach(wanting(socket="inet:8899@127.0.0.1"), config)
    found = milters(postconf(config, "-xh", "smtpd_milters"))
    assert [milter.endpoint for milter in found] == ["inet:127.0.0.1:8899", "inet:localhost:8891"]
    detach(wanting(socket="inet:8899@127.0.0.1"), config)
    assert before == (config / "main.cf").read_bytes()


@pytest.mark.parametrize(
    ("queue", "socket", "expected"),
    [
        ("/var/spool/postfix-out", "unix:/var/spool/postfix-out/m/m.sock", "unix:m/m.sock"),
        ("/var/spool/postfix-out", "unix:/run/undisclosed/milter.sock", "unix:/run/undisclosed/milter.sock"),
        ("/var/spool/postfix", "inet6:8899@::1", "inet:[::1]:8899"),
    ],
)  # fmt: skip
def test_the_endpoint_is_relative_to_the_queue_directory(queue: str, socket: str, expected: str) -> None:
    """A second instance has a queue directory of its own."""
    with directory(f"queue_directory = {queue}\n".encode()) as config_dir:
        attach(wanting(socket=socket), config_dir)
        assert expected == milters(postconf(config_dir, "-xh", "smtpd_milters"))[0].endpoint


def test_our_milter_written_by_hand_is_kept_and_moved_to_the_front(config: Path) -> None:
    """Its timeouts stay; detach removes it."""
    by_hand = "{ unix:undisclosed/milter.sock, default_action=accept, connect_timeout=3s }"
    postconf(config, "-e", f"smtpd_milters=inet:localhost:8891, {by_hand}")
    attach(wanting(), config)
    by_hand = "{ unix:undisclosed/milter.sock, default_action=tempfail, connect_timeout=3s }"
    assert f"{by_hand}, inet:localhost:8891" == postconf(config, "-h", "smtpd_milters")
    detach(wanting(), config)
    assert postconf(config, "-h", "smtpd_milters") == "inet:localhost:8891"


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: (path / "main.cf").unlink(), r"main\.cf: cannot be examined \(No such file"),
        (lambda path: (path / "master.cf").unlink(), r"master\.cf: cannot be examined \(No such file"),
        (lambda path: ((path / "main.cf").unlink(), (path / "main.cf").mkdir()), r"main\.cf: is not a file"),
        (lambda path: (path / "main.cf").write_text("no value\n"), "postconf says: .*missing '=' after attribute name"),
        (
            lambda path: (path / "main.cf").write_text("smtpd_milters = $smtpd_milters\n"),
            "postconf says: .*nesting.*smtpd_milters.*; macro processing error",
        ),
        (lambda path: (path / "main.cf").write_text("smtpd_milters = { inet:h:1\n"), "a { without its }"),
        (lambda path: (path / "master.cf").write_text("smtp inet n\n"), "postconf says: .*master.cf"),
        (lambda path: (path / RECORD).write_text("{}"), f"{RECORD}: is not a record that attach wrote"),
        (lambda path: (path / RECORD).write_text('{"format": 2}'), f"{RECORD}: is not a record that attach wrote"),
    ],
)
def test_a_directory_without_a_postfix_configuration_is_refused(
    config: Path, dry_run: bool, spoil: Callable[[Path], object], problem: str
) -> None:
    """The error names the file, the problem and the remedy; no file is written."""
    spoil(config)
    age(config)
    names = names_in(config)
    for command in (attach, detach):
        with pytest.raises(PostfixError, match=problem) as caught:
            command(wanting(), config, dry_run)
        assert caught.value.fix
        assert str(config) in str(caught.value.file)
        assert names == names_in(config)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """A typing error in --config-dir has an error of its own."""
    with pytest.raises(PostfixError, match="no such directory"):
        attach(wanting(), tmp_path / "postfx")


def test_a_host_without_postconf_is_refused(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """postconf is looked for in PATH and in the sbin directories."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postconf_module, "SBIN", str(tmp_path))
    with pytest.raises(PostfixError, match="postconf is not on this host"):
        attach(wanting(), config)


def test_a_socket_that_no_list_can_hold_is_refused(config: Path) -> None:
    """Before anything is written."""
    with pytest.raises(PostfixError, match="milter list cannot have"):
        attach(wanting(socket="unix:/run/my milter.sock"), config)
    assert not (config / RECORD).exists()


def test_a_user_without_rights_may_only_run_it_dry(config: Path) -> None:
    """attach needs a writable directory; --dry-run does not."""
    assert "this user may not write here" in as_nobody(config, dry_run=False)
    assert US in as_nobody(config, dry_run=True)
    (config / "main.cf").chmod(0o600)
    assert "run the command as root" in as_nobody(config, dry_run=True)


def as_nobody(config: Path, *, dry_run: bool) -> str:
    """The plan or the error of attach, as text, when an unprivileged user runs it."""
    [said], status = children.run(attach_as_nobody, config, dry_run)
    assert status == 0
    return said
