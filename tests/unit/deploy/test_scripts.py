"""The scripts of deploy/: what a person is shown, and that nothing of the host's is touched or left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import processes
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.waiting import until
from support.paths import PROJECT

DEPLOY = PROJECT / "deploy"
QUICKSTART = DEPLOY / "quickstart"
RUNNING = Path("/run/undisclosed-quickstart") / str(PROJECT).replace("/", "_")
PLAY_TIMEOUT = 300.0
"""Seconds for a whole play: a deadline for a busy machine, twenty times what it takes."""


def bash(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run lines of bash after sourcing deploy/common.sh."""
    return subprocess.run(
        ["/bin/bash", "-c", f". {DEPLOY}/common.sh\n{script}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=PLAY_TIMEOUT,
    )


def executable(path: Path, text: str) -> Path:
    """Write a script that can be run."""
    path.write_text(text)
    path.chmod(0o755)
    return path


class Play:
    """A quickstart that runs in the background, its output in a file."""

    def __init__(self, output: Path, *arguments: str) -> None:
        self._output = output
        with output.open("wb") as stream:
            self.process = subprocess.Popen(
                [str(QUICKSTART), *arguments], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    @property
    def text(self) -> str:
        """The output so far, without an incomplete last character."""
        return self._output.read_bytes().decode(errors="ignore")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match of an expression in what it prints, waited for. Fails at once if it ends without."""

        def found() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            match = re.search(pattern, self.text)
            if match is None and ended:
                pytest.fail(f"ended with {self.process.returncode} and without {pattern!r}:\n{self.text}")
            return match

        match = until(found, within=PLAY_TIMEOUT, what=f"{pattern!r} from the quickstart")
        assert match is not None
        return match

    def directory(self) -> Path:
        """The directory of its Postfix, from the record that it leaves for `--stop`."""
        record = until(
            lambda: (RUNNING / str(self.process.pid)).is_file() and (RUNNING / str(self.process.pid)).read_text(),
            within=PLAY_TIMEOUT,
            what="the quickstart's record",
        )
        assert isinstance(record, str)
        return Path(record.split()[1])


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Play]]:
    """Start plays, each with these arguments of the quickstart; they end with the test at the latest."""
    started: list[Play] = []

    def start(*arguments: str) -> Play:
        started.append(Play(tmp_path / f"output{len(started)}", *arguments))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.process.terminate()
        program.process.wait(PLAY_TIMEOUT)


def descendants(pid: int) -> set[int]:
    """Every running process that the process has started, directly or not."""
    found: set[int] = set()
    edge = {pid}
    everybody = list(processes.running())
    while edge:
        edge = {process.pid for process in everybody if process.parent in edge} - found
        found |= edge
    return found


# -- the play


def test_quickstart_shows_both_breaches_under_each_action() -> None:
    """One run ends with status 0 and shows the visible addresses without and with the milter, and the refusal."""
    done = subprocess.run(
        [str(QUICKSTART), "--once"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PLAY_TIMEOUT
    )
    text = re.sub(r"\s+", " ", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 messages from school.admissions@council.test, 866 people's addresses in To" in text
    assert "Each of 866 people could read the addresses of 75 to 94 others" in text
    assert "1 message from home.education@city.test, 500 people's addresses in Cc" in text
    assert "Each of 500 people could read the addresses of 499 others" in text
    rows = re.findall(r"(warn|rewrite|quarantine|reject) (\d+) (\d+) ((?:\d+ to )?\d+)? ?(250|550)", text)
    assert rows == [
        ("warn", "10", "0", "76 to 95", "250"),
        ("rewrite", "10", "0", "0", "250"),
        ("quarantine", "0", "10", "", "250"),
        ("reject", "0", "0", "", "550"),
        ("warn", "1", "0", "500", "250"),
        ("rewrite", "1", "0", "0", "250"),
        ("quarantine", "0", "1", "", "250"),
        ("reject", "0", "0", "", "550"),
    ]
    assert "550 5.7.0 Everyone would have seen 95 outside addresses" in text
    assert "550 5.7.0 Everyone would have seen 500 outside addresses" in text
    assert "\x1b" not in done.stdout, "colours where there is no terminal"

    held = text.partition("One of them is held, and then released")[2]
    [reference] = re.findall(r"Subject: Not sent: “.+” is on hold \((\S+)\)", held)
    assert "the steward running: 0 messages out." in held
    row = rf"{reference} .+ held .+ 95 96 school.admissions@council.test many"
    assert re.search(rf"undisclosed held list reference .+ {row}", held)
    assert f"undisclosed held release {reference} --as bcc {reference} was released as bcc to 96 recipients" in held
    assert "what 96 recipients received, once each; addresses of strangers in sight: 0" in held


def test_quickstart_lets_held_mail_be_released_by_hand(play: Callable[..., Play]) -> None:
    """Mail of the sender that it names is held; the commands that it prints list and release it as printed."""
    up = play()
    up.wait_for("To stop: Ctrl-C")
    port = up.wait_for(r"port (\d+), no encryption")[1]
    sender = up.wait_for(r"From (\S+) it is held instead")[1]
    config = up.wait_for(r"export UNDISCLOSED_CONFIG=(\S+)")[1]
    program = up.wait_for(r"(/\S+) held list")[1]
    to = ",".join(f"parent{number}@school.example" for number in range(12))
    subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{port}", "--from", sender, "--to", to],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    reference = up.wait_for(r"notice_sent: (\S+), held")[1]

    def held(*arguments: str) -> str:
        return subprocess.run(
            [program, "held", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "UNDISCLOSED_CONFIG": config},
            timeout=PLAY_TIMEOUT,
        ).stdout

    assert reference in held("list")
    assert held("release", reference, "--as", "split") == f"{reference} was released as split to 12 recipients\n"
    assert held("list") == "nothing is held\n"


def test_quickstart_stays_up_for_messages_of_ones_own(play: Callable[..., Play]) -> None:
    """The swaks command that it prints works as printed and is refused; the message is shown; --stop ends it all."""
    up = play()
    command = up.wait_for(r"(?s)\n  (swaks --server [^\n]+ \\\n[^\n]+)\n")[1]
    up.wait_for("To stop: Ctrl-C")
    directory = up.directory()
    members = descendants(up.process.pid)
    sent = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "<** 550 5.7.0 Everyone would have seen 12 outside addresses" in sent.stdout
    up.wait_for(r"rejected: 12 outside addresses, from <clerk@council\.test>")

    stopped = subprocess.run([str(QUICKSTART), "--stop"], capture_output=True, text=True, timeout=PLAY_TIMEOUT)
    assert f"Stopped the laboratory with process id {up.process.pid}." in stopped.stdout
    assert up.process.wait(PLAY_TIMEOUT) == 0
    assert not directory.exists()
    assert members
    assert not members & {process.pid for process in processes.running()}
    assert not (RUNNING / str(up.process.pid)).exists()


def test_two_plays_do_not_meet(play: Callable[..., Play]) -> None:
    """A second quickstart beside the first has its own ports and directory; Ctrl-C to one leaves the other working."""
    first, second = play(), play()
    ports = [program.wait_for(r"outgoing server 127\.0\.0\.1, port (\d+)")[1] for program in (first, second)]
    assert ports[0] != ports[1]
    assert first.directory() != second.directory()
    left = first.directory()
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(PLAY_TIMEOUT) == 0
    assert not left.exists()
    sent = subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{ports[1]}", "--from", "clerk@council.test", "--to", "a@out.example"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert sent.returncode == 0, sent.stdout


@pytest.mark.parametrize("moment", ["Postfix listens on", "Without the milter"])
def test_a_play_that_is_interrupted_leaves_nothing(play: Callable[..., Play], moment: str) -> None:
    """SIGTERM in the middle ends it with another status than success, and no process and no file of it is left."""
    interrupted = play("--once")
    interrupted.wait_for(moment)
    directory = interrupted.directory()
    members = descendants(interrupted.process.pid)
    interrupted.process.terminate()
    assert interrupted.process.wait(PLAY_TIMEOUT) == 130
    assert not directory.exists()
    assert members
    assert not members & {process.pid for process in processes.running()}


def test_what_a_killed_play_left_is_cleared_away(play: Callable[..., Play]) -> None:
    """After SIGKILL its Postfix and milter end by themselves, and the next play removes its directory."""
    killed = play()
    killed.wait_for("To stop: Ctrl-C")
    directory = killed.directory()
    members = descendants(killed.process.pid)
    killed.process.kill()
    killed.process.wait(PLAY_TIMEOUT)
    until(
        lambda: not members & {process.pid for process in processes.running()},
        what="the killed play's processes to end",
    )
    assert directory.exists()
    play("--once").wait_for("Postfix listens on")
    assert not directory.exists()


# -- the questions and messages of the scripts


def test_help_is_for_everybody() -> None:
    """--help says what each option does and touches nothing; an unknown option is a usage error."""
    shown = subprocess.run([str(QUICKSTART), "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    for option in ("--once", "--yes", "--stop", "--help"):
        assert option in shown.stdout
    refused = subprocess.run([str(QUICKSTART), "--frobnicate"], capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")


def test_without_root_it_says_so(tmp_path: Path) -> None:
    """A user without rights gets the advice to use sudo, and nothing is started."""
    there = Path("/tmp") / f"undisclosed-deploy-{os.getpid()}"  # tmp_path lies where only root may look
    shutil.copytree(DEPLOY, there / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        asked = subprocess.run(
            ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", there / "deploy/quickstart", "--once"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    finally:
        shutil.rmtree(there)
    assert asked.returncode == 1
    assert "needs root" in asked.stderr
    assert "sudo" in asked.stderr
    assert asked.stdout == ""


def test_on_another_system_it_names_the_packages() -> None:
    """Without apt it stops before any change, and names the missing packages."""
    told = bash("require_debian", PATH="/nonexistent")
    assert told.returncode == 1
    for package in ("postfix", "libmilter-dev", "python3-venv", "swaks"):
        assert package in told.stderr


@pytest.mark.parametrize(
    ("assume_yes", "status"), [("", 1), ("1", 0)], ids=["asked, with nobody to answer", "told to go on"]
)
def test_another_mail_server_is_not_removed_unasked(tmp_path: Path, assume_yes: str, status: int) -> None:
    """If Exim is installed, it reports the change that Debian would make, and goes on only with a confirmation."""
    installed = r"exim4-daemon-light\tinstalled\tmail-transport-agent\npostfix\tnot-installed\tmail-transport-agent\n"
    executable(tmp_path / "dpkg-query", f"#!/bin/sh\nprintf '{installed}'\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    told = bash(f"assume_yes={assume_yes}\nask_about_other_mail_server\necho went on", PATH=path)
    assert told.returncode == status, told.stderr
    assert "another mail server: exim4-daemon-light" in told.stdout
    assert ("went on" in told.stdout) is bool(assume_yes)
    assert ("nothing was changed" in told.stderr) is not bool(assume_yes)


def test_a_host_without_mail_server_is_not_asked(tmp_path: Path) -> None:
    """Postfix alone is no other mail server."""
    executable(tmp_path / "dpkg-query", "#!/bin/sh\nprintf 'postfix\\tinstalled\\tmail-transport-agent\\n'\n")
    told = bash("ask_about_other_mail_server\necho went on", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (told.returncode, told.stdout) == (0, "went on\n")


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 104\n"], ids=["no policy before", "a policy before"])
def test_services_are_forbidden_to_start_only_while_packages_are_installed(tmp_path: Path, before: str | None) -> None:
    """During the installation Postfix may not start and others do as before; afterwards the host's rules are back."""
    policy = tmp_path / "policy-rc.d"
    if before is not None:
        executable(policy, before)
    names = f"policy={policy}\npolicy_before={policy}.before-undisclosed\n"
    asked = bash(
        f"{names} forbid_postfix_service\n"
        "for service in postfix postfix@- ssh; do status=0; $policy $service start || status=$?; echo $status; done\n"
        "exit 7"
    )
    assert asked.returncode == 7, asked.stderr
    assert asked.stdout.split() == ["101", "101", "104" if before else "0"]
    assert [path.name for path in tmp_path.iterdir()] == (["policy-rc.d"] if before else [])
    if before:
        assert policy.read_text() == before
        assert stat.S_IMODE(policy.stat().st_mode) == 0o755


def test_rules_of_the_host_survive_a_run_that_was_killed(tmp_path: Path) -> None:
    """The next run restores the files that a run killed during an installation has left changed."""
    policy = executable(tmp_path / "policy-rc.d", "#!/bin/sh\nexit 104\n")
    names = f"policy={policy}\npolicy_before={policy}.before-undisclosed\n"
    bash(f"{names} forbid_postfix_service\nkill -KILL $$")
    assert "exit 101" in policy.read_text()
    bash(f"{names} forbid_postfix_service")
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert [path.name for path in tmp_path.iterdir()] == ["policy-rc.d"]


def test_a_step_that_fails_names_its_log() -> None:
    """The last lines of the failed command are shown, with the path of its whole output."""
    failed = bash("step 'A step' bash -c 'echo what went wrong; exit 3'\necho went on")
    assert failed.returncode == 1
    assert "A step: failed with status 3" in failed.stderr
    assert "what went wrong" in failed.stderr
    [log] = map(Path, re.findall(r"/tmp/undisclosed-install\.\w+", failed.stderr))
    assert "what went wrong" in log.read_text()
    log.unlink()
    assert "went on" not in failed.stdout


def test_ci_runs_the_test_command() -> None:
    """.ci/run is deploy/test and nothing else."""
    ci = PROJECT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    lines = [line for line in ci.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ['exec "$(dirname "${BASH_SOURCE[0]}")/../deploy/test" "$@"']


# -- the Postfix lines


def test_the_postfix_lines_are_what_attach_writes() -> None:
    """deploy/postfix/main-lines.cf and master-lines.cf are the settings of `undisclosed postfix attach`."""
    with Sink() as sink, PrivatePostfix(outside=sink.port) as postfix:
        gateway = Gateway(postfix, sink)
        before = postfix.run("postconf", "-n").stdout.splitlines()
        gateway.attach()
        attached = set(postfix.run("postconf", "-n").stdout.splitlines()) - set(before)
        services = postfix.run("postconf", "-M").stdout
        postfix.restore()
        with (postfix.config_dir / "main.cf").open("a") as main_cf:
            main_cf.write((DEPLOY / "postfix/main-lines.cf").read_text())
        with (postfix.config_dir / "master.cf").open("a") as master_cf:
            master_cf.write((DEPLOY / "postfix/master-lines.cf").read_text())
        assert services == postfix.run("postconf", "-M").stdout
        copied = set(postfix.run("postconf", "-n").stdout.splitlines()) - set(before)
    private = f"unix:{postfix.queue_dir}/undisclosed/milter.sock"  # not in a chroot: the path is not relative there
    assert {line.replace(private, "unix:undisclosed/milter.sock") for line in attached} == copied
