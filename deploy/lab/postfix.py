"""A private Postfix with its own configuration, queue, data, log and port, beside the host's own mail system.

It needs root, as Postfix's master does, and Debian's `postfix` package, configured or not. With "No configuration"
there is no /etc/postfix/main.cf; then only root may name another configuration directory to sendmail(1) and
postdrop(1), because other users need `alternate_config_directories` in that file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from lab import processes
from lab.waiting import DEADLINE, until

INTERNAL_DOMAINS = ("council.test", "city.test")
"""The domains of the two councils whose breaches are replayed; mail to them reaches the sink too."""

AUTHENTICATED_NETWORK = "203.0.113.0/24"
"""Clients outside the local networks for which Postfix relays, as for people who have logged in.

`XCLIENT ADDR=203.0.113.9 LOGIN=clerk` makes a session one of them. A client with any other address outside 127.0.0.0/8
may send to the internal domains only."""

COMMANDS = Path("/usr/sbin")
DAEMONS = Path("/usr/lib/postfix/sbin")
SIGNAL_AGAIN = 2.0
"""Seconds after which the reload signal is sent to master again."""

STARTED = "postfix/master.*: daemon started"
"""The log line of master(8) once it listens."""

# pickup(8) and qmgr(8) look for mail every two seconds: a reload can lose the trigger that a message sends them, and
# Postfix's own wake-up times (60 and 300 s, master(5)) are longer than a test waits.
MASTER_CF = """\
# service type  private unpriv  chroot  wakeup  maxproc command
127.0.0.1:{port} inet n - {chroot} - - smtpd
pickup     unix  n  -  {chroot}  2     1  pickup
cleanup    unix  n  -  {chroot}  -     0  cleanup
qmgr       unix  n  -  n         2     1  qmgr
rewrite    unix  -  -  {chroot}  -     -  trivial-rewrite
bounce     unix  -  -  {chroot}  -     0  bounce
defer      unix  -  -  {chroot}  -     0  bounce
trace      unix  -  -  {chroot}  -     0  bounce
verify     unix  -  -  {chroot}  -     1  verify
flush      unix  n  -  {chroot}  1000? 0  flush
proxymap   unix  -  -  n         -     -  proxymap
smtp       unix  -  -  {chroot}  -     -  smtp
relay      unix  -  -  {chroot}  -     -  smtp
showq      unix  n  -  {chroot}  -     -  showq
error      unix  -  -  {chroot}  -     -  error
retry      unix  -  -  {chroot}  -     -  error
discard    unix  -  -  {chroot}  -     -  discard
local      unix  -  n  n         -     -  local
anvil      unix  -  -  {chroot}  -     1  anvil
scache     unix  -  -  {chroot}  -     1  scache
postlog    unix-dgram n - n      -     1  postlogd
"""


def main_cf(base: Path, outside: int) -> dict[str, str]:
    """The settings of a Postfix below `base` that relays everything to port `outside` of 127.0.0.1."""
    return {
        "compatibility_level": "3.6",
        "queue_directory": f"{base}/queue",
        "data_directory": f"{base}/data",
        "maillog_file": f"{base}/mail.log",
        "maillog_file_prefixes": str(base),
        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "myhostname": "mx.council.test",
        "myorigin": INTERNAL_DOMAINS[0],
        "mydestination": "",
        "local_recipient_maps": "",
        "alias_maps": "",
        "alias_database": "",
        "mynetworks": "127.0.0.0/8",
        "relay_domains": ", ".join(INTERNAL_DOMAINS),
        "relayhost": f"[127.0.0.1]:{outside}",
        "smtpd_relay_restrictions": "permit_mynetworks, "
        f"check_client_access cidr:{{{{{AUTHENTICATED_NETWORK} permit}}}}, reject_unauth_destination",
        "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
        # No DNS: queries would leave the machine, and answers come late.
        "smtpd_peername_lookup": "no",
        "smtp_dns_support_level": "disabled",
        "smtp_tls_security_level": "none",
        "smtpd_tls_security_level": "none",
        # One transaction a message at the sink, internal recipients included, and no limit on recipients that a test
        # reaches.
        "relay_transport": "smtp",
        "default_destination_recipient_limit": "20000",
        "smtpd_recipient_limit": "20000",
        # Tests provoke many errors in a row, which must neither slow the session down nor end it; after 100 rejected
        # messages Postfix would delay each reply by a second.
        "in_flow_delay": "0",
        "smtpd_error_sleep_time": "0",
        "smtpd_soft_error_limit": "100000",
        "smtpd_hard_error_limit": "100000",
        "smtpd_junk_command_limit": "100000",
        "smtpd_client_connection_count_limit": "0",
        # Retry soon if the sink refuses a message.
        "queue_run_delay": "2s",
        "minimal_backoff_time": "2s",
        "maximal_backoff_time": "4s",
        "notify_classes": "",
    }


class CommandError(RuntimeError):
    """A Postfix command ended with a status other than 0; the text has its output, or the log."""


class PrivatePostfix:
    """One instance of Postfix in a temporary directory. A context manager; it ends with the process that started it.

    `outside` is the port of the sink. `chroot` runs smtpd, cleanup and others in the queue directory, as Debian does.
    `settings` replace those of `main_cf()`.

    Attributes: `directory` (all of it is below), `config_dir`, `queue_dir`, `maillog`, `port` (of smtpd).
    """

    def __init__(self, *, outside: int, chroot: bool = False, settings: Mapping[str, str] | None = None) -> None:
        # Postfix's processes and an unprivileged milter must be able to enter it; the queue below has its own modes.
        # Not TMPDIR: only root may enter it with libpam-tmpdir, and it may be too long for a socket's path.
        self.directory = Path(tempfile.mkdtemp(prefix="undisclosed-lab-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.config_dir = self.directory / "postfix"
        self.queue_dir = self.directory / "queue"
        self.maillog = self.directory / "mail.log"
        self.port = processes.reserve_port()
        self._chroot = "y" if chroot else "n"
        self._main_cf = main_cf(self.directory, outside) | dict(settings or {})
        self._guard: subprocess.Popen[bytes] | None = None
        self._starts_before = 0
        self._lay_out()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.remove()

    # -- starting and stopping

    def _lay_out(self) -> None:
        self.config_dir.mkdir()
        self.queue_dir.mkdir()
        (self.directory / "data").mkdir()
        shutil.chown(self.directory / "data", "postfix")

    def start(self) -> None:
        """Start, and wait until it listens. Raises RuntimeError with the log if it does not."""
        self._write_files()
        self.run("postfix", "check")
        self._run_master()
        if not self.is_running:
            raise RuntimeError("Postfix did not start:\n" + "\n".join(self.log_lines()))

    def restart(self) -> None:
        """Stop, and start again with the same files, on the same port. Raises RuntimeError with the log."""
        self.stop()
        self._run_master()
        if not self.is_running:
            raise RuntimeError("Postfix did not start again:\n" + "\n".join(self.log_lines()))

    def _run_master(self) -> None:
        """Run master(8) as `postfix start` does after its checks, and wait until it listens or has ended.

        As a child of this process, which can wait for it and with which it ends. -d: stay in the foreground.
        """
        self._age_main_cf()
        self._starts_before = len(self.log_lines(STARTED))
        self._guard = processes.start_guarded(
            [str(DAEMONS / "master"), "-c", str(self.config_dir), "-d"], environment=self._environment()
        )
        try:
            until(self._is_up, what="Postfix to start")
        except TimeoutError:
            self.stop()

    def _is_up(self) -> bool:
        """Whether master listens, or has ended."""
        return not self.is_running or len(self.log_lines(STARTED)) > self._starts_before

    def stop(self) -> None:
        """End master by its id, and wait until none of its processes is left. Does nothing if it does not run."""
        guard, self._guard = self._guard, None
        if guard is not None:
            processes.end(guard, within=DEADLINE, leader=next(iter(processes.children(guard.pid)), None))

    def remove(self) -> None:
        """Delete the directory with everything in it."""
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def is_running(self) -> bool:
        """Whether it was started and master has not ended."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def master_pid(self) -> int:
        """The process id of master(8). Raises RuntimeError if it does not run."""
        masters = processes.children(self._guard.pid) if self._guard is not None else []
        if not masters:
            raise RuntimeError("this Postfix is not running")
        return masters[0]

    # -- settings

    def set(self, **settings: str) -> None:
        """Set parameters of main.cf, and reload."""
        self.run("postconf", "-e", *(f"{name}={value}" for name, value in settings.items()))
        self.reload()

    def get(self, name: str) -> str:
        """The current value of a parameter."""
        return self.run("postconf", "-h", name).stdout.strip()

    def _files(self) -> dict[str, str]:
        """main.cf and master.cf as they are at the start."""
        return {
            "main.cf": "".join(f"{name} = {value}\n" for name, value in self._main_cf.items()),
            "master.cf": MASTER_CF.format(port=self.port, chroot=self._chroot),
        }

    def _write_files(self) -> None:
        for name, text in self._files().items():
            (self.config_dir / name).write_text(text)
        self._age_main_cf()

    def _age_main_cf(self) -> None:
        """Make main.cf look ten seconds old.

        Postfix assumes that a file changed within the last second is still being written, and waits (dict_load_file): a
        second and a half at each start and reload.
        """
        main_cf = self.config_dir / "main.cf"
        then = main_cf.stat().st_mtime - 10
        os.utime(main_cf, (then, then))

    def restore(self) -> None:
        """Restore the configuration of the start; reload if main.cf or master.cf differed."""
        for path in self.config_dir.iterdir():
            if path.name not in self._files():
                path.unlink()
        if any((self.config_dir / name).read_text() != text for name, text in self._files().items()):
            self._write_files()
            self.reload()

    def reload(self) -> None:
        """Reload the files, and wait until no process uses the old ones.

        A process in the middle of an SMTP session finishes it first: close yours before. Raises TimeoutError.
        """
        self._age_main_cf()
        before = set(processes.children(self.master_pid))
        said = len(self.log_lines("reload -- version"))
        for _ in range(int(DEADLINE / SIGNAL_AGAIN)):
            # Repeated, because master loses a signal that arrives while it records another (master.c).
            os.kill(self.master_pid, signal.SIGHUP)
            with contextlib.suppress(TimeoutError):
                until(lambda: len(self.log_lines("reload -- version")) > said, within=SIGNAL_AGAIN, what="a reload")
                break
        else:
            raise TimeoutError(f"Postfix did not reload within {DEADLINE:g} s")
        until(
            lambda: not before & set(processes.children(self.master_pid)),
            what="the processes from before the reload to end",
        )

    # -- commands

    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{COMMANDS}:/usr/bin:/bin", "LC_ALL": "C", "MAIL_CONFIG": str(self.config_dir)}

    def run(self, command: str, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of Postfix's commands on this instance, and return its output. Raises CommandError."""
        option = "-C" if command == "sendmail" else "-c"
        done = subprocess.run(
            [str(COMMANDS / command), option, str(self.config_dir), *arguments],
            input=stdin if stdin is not None else b"",
            env=self._environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        text, errors = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
        if done.returncode:
            raise CommandError(f"{command} {' '.join(arguments)}: {errors.strip() or self.log_lines()[-5:]}")
        return subprocess.CompletedProcess(done.args, done.returncode, text, errors)

    def sendmail(self, arguments: Sequence[str], message: bytes) -> None:
        """Submit a message through sendmail(1), as a script on the host does. Raises CommandError."""
        self.run("sendmail", *arguments, stdin=message)

    def postsuper(self, *arguments: str) -> None:
        """Run postsuper(1), for instance `-H QUEUE_ID` to release or `-d ALL` to delete."""
        self.run("postsuper", *arguments)

    def postcat(self, queue_id: str) -> str:
        """Header and body of a queued message; bytes that are not UTF-8 become lone surrogates."""
        return self.run("postcat", "-hbq", queue_id).stdout

    def envelope(self, queue_id: str) -> str:
        """The envelope records of a queued message, as `postcat -e` prints them."""
        return self.run("postcat", "-eq", queue_id).stdout

    # -- queue and log

    def queue(self, name: str | None = None) -> list[dict[str, Any]]:
        """The queued messages as `postqueue -j` gives them, of one queue (`hold`, `deferred`, ...) or of all."""
        entries = [json.loads(line) for line in self.run("postqueue", "-j").stdout.splitlines()]
        return [entry for entry in entries if name in (None, entry["queue_name"])]

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Deliver nothing as long as the block lasts: each message is deferred at once, and stays so until the end."""
        usual = {name: self._main_cf[name] for name in ("minimal_backoff_time", "maximal_backoff_time")}
        self.set(defer_transports="smtp", **dict.fromkeys(usual, "1h"))
        try:
            yield
        finally:
            self.set(defer_transports="", **usual)
            self.run("postqueue", "-f")

    def deferred(self) -> str:
        """The queue id of the one deferred message, once it is the only one that is not on hold."""

        def only() -> list[dict[str, Any]]:
            others = [entry for entry in self.queue() if entry["queue_name"] != "hold"]
            return others if [entry["queue_name"] for entry in others] == ["deferred"] else []

        return str(until(only, what="one deferred message, and no other under way")[0]["queue_id"])

    def wait_until_idle(self, *, within: float = DEADLINE) -> None:
        """Wait until every message is delivered, bounced or held.

        No more messages reach the sink after that. Raises TimeoutError.
        """
        until(self._is_idle, within=within, what="Postfix's queue to become empty")

    def _is_idle(self) -> bool:
        # In the order in which messages move, so that none is missed; deferred ones go back to active.
        queues = ("deferred", "maildrop", "incoming", "active", "deferred")
        return not any(path.is_file() for name in queues for path in (self.queue_dir / name).rglob("*"))

    def empty(self) -> None:
        """Delete every queued message, held ones included."""
        self.postsuper("-d", "ALL")

    def log_lines(self, pattern: str = "") -> list[str]:
        """The lines of the mail log that match the regular expression anywhere."""
        try:
            text = self.maillog.read_text(errors="surrogateescape")
        except FileNotFoundError:
            return []
        complete = text.rpartition("\n")[0]  # the last line may be incomplete
        return [line for line in complete.splitlines() if re.search(pattern, line)]

    def wait_for_log(self, pattern: str, *, within: float = DEADLINE) -> str:
        """Wait for a line of the log that matches the regular expression, and return the first. Raises TimeoutError."""
        return until(lambda: self.log_lines(pattern), within=within, what=f"{pattern!r} in the mail log")[0]
