"""status on real configuration directories with real sockets; and a running Postfix with the attached line."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import client
from lab.postfix import PrivatePostfix
from lab.waiting import until
from support.postfix_configurations import texts
from support.postfix_directories import DEBIAN_MASTER_CF, US, age, attach, detach, directory, wanting
from support.terminal import into_pipe, on_terminal
from undisclosed.policy import Policy
from undisclosed.postfix import Finding, Level, status

MYNETWORKS = "mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128\ncompatibility_level = 3.6\n"


class Host:
    """A configuration directory, its queue directory, and a milter's socket in it on which a process listens."""

    def __init__(self, config_dir: Path, listener: socket.socket) -> None:
        self.config_dir = config_dir
        self.queue_dir = config_dir.parent / "queue"
        self.socket = self.queue_dir / "undisclosed" / "milter.sock"
        self.listener = listener

    def policy(self, mode: str = "enforce", **sections: object) -> Policy:
        """A policy whose milter listens there."""
        return wanting(mode, f"unix:{self.socket}", **sections)

    def status(self, policy: Policy | None = None) -> list[Finding]:
        """The findings of status on this host."""
        return status(policy or self.policy(), self.config_dir)

    def problems(self, policy: Policy | None = None) -> list[str]:
        """The sentences of the problems."""
        return [finding.text for finding in self.status(policy) if finding.level is Level.PROBLEM]


@contextmanager
def host(main_cf: str = "", master_cf: str = "", base: str = DEBIAN_MASTER_CF) -> Iterator[Host]:
    """A sound host with the milter attached and listening, and with lines added to main.cf and master.cf."""
    with directory(master_cf=base + master_cf) as config_dir, socket.socket(socket.AF_UNIX) as listener:
        made = Host(config_dir, listener)
        log = config_dir / "mail.log"
        log.touch(0o644)
        (config_dir / "main.cf").write_text(
            f"{MYNETWORKS}queue_directory = {made.queue_dir}\nsmtpd_milters = inet:localhost:8891\n"
            f"maillog_file = {log}\nmaillog_file_prefixes = {config_dir}\n"
        )
        age(config_dir)
        made.socket.parent.mkdir(parents=True)
        shutil.chown(made.socket.parent, "nobody", "postfix")
        made.socket.parent.chmod(0o2750)
        listener.bind(str(made.socket))
        listener.listen()
        shutil.chown(made.socket, "nobody", "postfix")
        made.socket.chmod(0o660)
        attach(made.policy(), config_dir)
        with (config_dir / "main.cf").open("a") as file:
            file.write(main_cf)
        age(config_dir)
        yield made


def test_an_attached_host_is_sound() -> None:
    """After attach on Debian's configuration all is ok, the socket included."""
    with host() as sound:
        found = sound.status()
        assert {finding.level for finding in found} == {Level.OK}
        assert any(f"{sound.socket} can be reached" in finding.text for finding in found)


def test_before_attach_both_lists_are_problems() -> None:
    """The remedy of each is to attach."""
    with host() as made:
        detach(made.policy(), made.config_dir)
        found = [finding for finding in made.status() if finding.level is Level.PROBLEM]
        assert [finding.text.partition(" does not")[0] for finding in found] == [
            "smtpd_milters in main.cf (smtp/inet)",
            "non_smtpd_milters in main.cf (cleanup/unix)",
        ]
        assert {finding.remedy for finding in found} == {
            f"run: undisclosed postfix attach --config-dir {made.config_dir}"
        }


SUBMISSION = "submission inet n - y - - smtpd\n"


BYPASSES = {
    "an empty override": ("", SUBMISSION + "  -o smtpd_milters=\n", "submission/inet does not name"),
    "another milter in braces": (
        "",
        SUBMISSION + "  -o { smtpd_milters = inet:h:1 }\n",
        "submission/inet does not name",
    ),
    "an override by a variable": (
        "mua_milters = inet:localhost:8891\n",
        SUBMISSION + "  -o smtpd_milters=$mua_milters\n",
        "smtpd_milters in master.cf, submission/inet does not name",
    ),
    "a variable overridden": (
        f"mine = {US}\nsmtpd_milters = $mine\n",
        SUBMISSION + "  -o mine=inet:localhost:8891\n",
        "smtpd_milters in master.cf, submission/inet does not name",
    ),
    "none under stress": (
        f"smtpd_milters = ${{stress?{{}}:{{{US}}}}}\n",
        "",
        "smtpd_milters in master.cf, smtp/inet under stress does not name",
    ),
    "a signer before us": (f"smtpd_milters = inet:localhost:8891 {US}\n", "", "before ours: inet:localhost:8891 (Open"),
    "no_milters": (
        "",
        "smtps inet n - y - - /usr/sbin/smtpd -v -o receive_override_options=no_address_mappings,no_milters\n",
        "master.cf, smtps/inet: receive_override_options has no_milters",
    ),
    "milter maps": ("smtpd_milter_maps = cidr:/etc/postfix/milters\n", "", "smtpd_milter_maps is set"),
    "a proxy filter": (
        "",
        "smtpd pass - - y - - smtpd -o smtpd_proxy_filter=127.0.0.1:10024\n",
        "smtpd/pass: smtpd_proxy_filter is set",
    ),
    "our own accept": (
        "smtpd_milters = { unix:undisclosed/milter.sock, default_action=accept }\n",
        "",
        "default_action=accept: while it does not answer, mail goes out unchecked",
    ),
    "a general accept": (
        "smtpd_milters = unix:undisclosed/milter.sock\nmilter_default_action = accept\n",
        "",
        "milter_default_action is accept for smtp/inet",
    ),
    "an old protocol": ("milter_protocol = 2\n", "", "our milter needs 6"),
    "logins not told": ("milter_mail_macros = i\nsmtpd_sasl_auth_enable = yes\n", "", "lacks {auth_authen}"),
    "a wider network": ("mynetworks = 127.0.0.0/8, 10.0.0.0/8\n", "", "scope.networks does not have them: 10.0.0.0/8"),
    "a service's network": (
        "",
        SUBMISSION + "  -o mynetworks=10.0.0.0/8\n",
        "mynetworks in master.cf, submission/inet lets these relay",
    ),
    "a cleanup of pickup's own": (
        "",
        "quiet unix n - y - 0 cleanup -o non_smtpd_milters=\n"
        "pickup2 unix n - y 60 1 pickup -o cleanup_service_name=quiet\n",
        "non_smtpd_milters in master.cf, quiet/unix does not name",
    ),
}


@pytest.mark.parametrize("case", BYPASSES)
def test_each_way_to_bypass_the_milter_is_found_in_real_files(case: str) -> None:
    """Overrides in each of master.cf's spellings, variables and conditions, as postconf(1) reads them."""
    main_cf, master_cf, expected = BYPASSES[case]
    with host(main_cf, master_cf) as made:
        (problem,) = made.problems()
        assert expected in problem


def test_networks_that_postfix_derives_are_checked_too() -> None:
    """If mynetworks is not set, Postfix uses the networks of its interfaces, by mynetworks_style."""
    with host() as made:
        main_cf = made.config_dir / "main.cf"
        derived = main_cf.read_text().replace(MYNETWORKS, "inet_interfaces = 127.0.0.1\nmynetworks_style = host\n")
        main_cf.write_text(derived)
        age(made.config_dir)
        assert made.problems() == []
        (problem,) = made.problems(made.policy(scope={"networks": ["127.0.0.2/32"]}))
        assert "does not have them: 127.0.0.1/32" in problem


def test_a_filter_that_returns_mail_is_a_note() -> None:
    """The listener behind content_filter may leave the milter out."""
    back = "127.0.0.1:10025 inet n - y - - smtpd\n  -o content_filter=\n  -o receive_override_options=no_milters\n"
    with host("content_filter = scan:[127.0.0.1]:10024\n", back) as made:
        assert made.problems() == []
        notes = [finding.text for finding in made.status() if finding.level is Level.NOTE]
        assert any("127.0.0.1:10025/inet takes mail back from content_filter" in note for note in notes)


def test_after_monitor_mode_attach_must_be_run_again() -> None:
    """After attach in monitor mode and a change to enforce, a dead milter would let mail pass."""
    with host() as made:
        attach(made.policy("monitor"), made.config_dir)
        assert made.problems(made.policy("monitor")) == []
        assert len([text for text in made.problems() if "default_action=accept" in text]) == 2
        attach(made.policy(), made.config_dir)
        assert made.problems() == []


# -- the command ---------------------------------------------------------------------------------------------------

POLICY = """\
[organisation]
name = "Exampleshire County Council"
internal_domains = ["council.test"]

[[rules]]
name = "too many in sight"
more_than_addresses = 10
action = "reject"
"""


@pytest.mark.parametrize("width", [80, 132])
def test_findings_fit_the_terminal_and_are_lines_in_a_pipe(tmp_path: Path, width: int) -> None:
    """On a terminal a remedy has a line of its own; in a pipe each line begins with the level of its finding."""
    policy = tmp_path / "config.toml"
    policy.write_text(POLICY)
    with directory() as config_dir:
        arguments = ("postfix", "status", "--config", str(policy), "--config-dir", str(config_dir))
        terminal, pipe = on_terminal(width, *arguments), into_pipe(*arguments)
    assert (terminal.status, pipe.status) == (1, 1)
    assert max(map(len, terminal.out.splitlines())) <= width
    assert "         -> run: undisclosed postfix attach" in terminal.out
    assert {line.partition(":")[0] for line in pipe.out.splitlines()} == {"note", "problem"}


# -- the socket ----------------------------------------------------------------------------------------------------


def test_a_missing_closed_or_forbidden_socket_is_a_problem() -> None:
    """The same socket in five states, checked by root, for whom permissions do not count."""
    with host() as made:
        made.socket.chmod(0o600)
        assert f"postfix may not write to {made.socket} (mode 0600" in "".join(made.problems())
        made.socket.chmod(0o660)
        made.socket.parent.chmod(0o2700)
        assert f"postfix may not enter {made.socket.parent} (mode 2700" in "".join(made.problems())
        made.socket.parent.chmod(0o2750)
        assert made.problems() == []
        made.listener.close()
        assert f"nothing answers at {made.socket}" in "".join(made.problems())
        made.socket.unlink()
        assert f"there is no socket at {made.socket}" in "".join(made.problems())
        made.socket.touch()
        assert f"{made.socket} is not a socket" in "".join(made.problems())


@pytest.mark.parametrize(("chroot", "reached"), [("y", False), ("n", True), ("-", True)])
def test_a_socket_outside_the_queue_directory_is_out_of_a_chroots_reach(chroot: str, reached: bool) -> None:
    """A service that is not chrooted reaches it; `-` means not, from compatibility level 1 on."""
    base = DEBIAN_MASTER_CF.replace(" y ", f" {chroot} ")
    with host(base=base) as made, socket.socket(socket.AF_UNIX) as outside:
        path = made.config_dir.parent / "m.sock"
        outside.bind(str(path))
        outside.listen()
        path.chmod(0o666)
        policy = wanting(socket=f"unix:{path}")
        plan = attach(policy, made.config_dir)
        problems = made.problems(policy)
        assert (problems == []) == reached
        assert [finding.text for finding in plan.findings] == problems
        if not reached:
            assert f"(chrooted in {made.queue_dir}): there is no socket at {made.queue_dir}{path}" in problems[0]


def test_before_compatibility_level_1_a_dash_is_a_chroot() -> None:
    """master(5): the default of the chroot column has changed."""
    base = DEBIAN_MASTER_CF.replace(" y ", " - ")
    with host("compatibility_level = 0\n", base=base) as made:
        policy = wanting(socket=f"unix:{made.config_dir.parent}/m.sock")
        attach(policy, made.config_dir)
        assert f"chrooted in {made.queue_dir}" in "".join(made.problems(policy))


def test_an_inet_socket_is_tried() -> None:
    """The only check of an inet socket is whether a program listens."""
    with host() as made, socket.socket(socket.AF_INET) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        policy = wanting(socket=f"inet:{port}@127.0.0.1")
        attach(policy, made.config_dir)
        assert made.problems(policy) == []
        listener.close()
        assert f"nothing answers at inet:127.0.0.1:{port}" in "".join(made.problems(policy))


# -- a running Postfix ---------------------------------------------------------------------------------------------

LETTER = b"From: clerk@council.test\r\nTo: parent@family.test\r\nSubject: Hello\r\n\r\nHello\r\n"
ENVELOPE = ("clerk@council.test", ["parent@family.test"])


@pytest.fixture
def unattached(postfix: PrivatePostfix) -> Iterator[PrivatePostfix]:
    """The running Postfix, and our settings taken out of it afterwards."""
    yield postfix
    detach(wanting(), postfix.config_dir)


@pytest.mark.parametrize("where", ["unix:{}/undisclosed/nobody.sock", "inet:9@127.0.0.1"])
def test_a_running_postfix_applies_the_default_action(unattached: PrivatePostfix, where: str) -> None:
    """Without a milter: in enforce mode mail is refused for now, by SMTP and sendmail(1); in monitor mode it passes."""
    postfix, said = unattached, where.format(unattached.queue_dir)
    before = (postfix.config_dir / "main.cf").read_bytes()

    attach(wanting("enforce", said), postfix.config_dir)
    assert postfix.run("postfix", "check").stderr == ""
    postfix.reload()
    sent = client.send(postfix.port, LETTER, sender=ENVELOPE[0], to=ENVELOPE[1])
    assert (sent.final.code, sent.final.lines) == (451, ("4.7.1 Service unavailable - try again later",))
    refused = len(postfix.log_lines("cleanup.*milter-reject: CONNECT"))
    postfix.sendmail(["-f", *ENVELOPE[1], *ENVELOPE[1]], LETTER)
    until(lambda: len(postfix.log_lines("cleanup.*milter-reject: CONNECT")) > refused, what="cleanup")
    until(lambda: [entry["queue_name"] for entry in postfix.queue()] == ["maildrop"], what="the message in maildrop")

    attach(wanting("monitor", said), postfix.config_dir)
    postfix.reload()
    assert client.send(postfix.port, LETTER, sender=ENVELOPE[0], to=ENVELOPE[1]).accepted
    postfix.wait_until_idle()  # the one from maildrop as well

    assert not [line for line in postfix.log_lines("fatal") if "undisclosed" in line or "milter" in line]
    detach(wanting("monitor", said), postfix.config_dir)
    assert before == (postfix.config_dir / "main.cf").read_bytes()


# -- held mail


def test_the_mail_log_is_found_by_a_line_that_is_written_into_it() -> None:
    """Readable for the steward's groups: ok. For root alone, or nowhere: a note with the remedy."""
    with host() as made:
        log = made.config_dir / "mail.log"
        assert f"the steward can read the mail log: {log}." in texts(made.status(), Level.OK)
        log.chmod(0o600)
        [note] = [finding for finding in made.status() if finding.level is Level.NOTE]
        assert f"the steward cannot read the mail log: {log} has mode 0600 and group root" in note.text
        assert note.remedy.startswith(f"chgrp adm {log}")
    with host("maillog_file = /dev/stdout\nmaillog_file_prefixes = /dev\n") as made:
        [note] = [finding for finding in made.status() if finding.level is Level.NOTE]
        assert "the mail log cannot be read: " in note.text


def test_other_holds_a_missing_signer_and_monitor_mode_are_told() -> None:
    """A scanner's recipe is a problem: its program would send what our milter holds."""
    with host(f"smtpd_milters = {US}\nundisclosed_release_milters =\n") as made:
        assert any("no milter behind ours makes DKIM signatures" in note for note in texts(made.status(), Level.NOTE))
        (made.config_dir / "scan").write_text("/^Received:/ HOLD\n")
        with (made.config_dir / "main.cf").open("a") as file:
            file.write("header_checks = regexp:$config_directory/scan\n")
        age(made.config_dir)
        assert any("puts every message on hold" in problem for problem in made.problems())
        assert any('mode = "monitor"' in note for note in texts(made.status(made.policy("monitor")), Level.NOTE))
