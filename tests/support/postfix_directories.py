"""main.cf files of many forms, and a directory for one of them, for tests with the real postconf(1)."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.factories import policy
from undisclosed import postfix
from undisclosed.policy import Policy
from undisclosed.postfix import Plan
from undisclosed.postfix.milter_lists import milters

DEBIAN_MASTER_CF = """\
# service type  private unpriv  chroot  wakeup  maxproc command + args
smtp      inet  n       -       y       -       -       smtpd
pickup    unix  n       -       y       60      1       pickup
cleanup   unix  n       -       y       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       y       -       -       trivial-rewrite
smtp      unix  -       -       y       -       -       smtp
"""

RECORD = "undisclosed-attach.json"
LISTS = ("smtpd_milters", "non_smtpd_milters")
US = (
    "{ unix:undisclosed/milter.sock, default_action=tempfail, "
    "connect_timeout=10s, command_timeout=30s, content_timeout=60s }"
)
"""Our milter as attach writes it where it enforces and its socket is at the usual place."""

MAIN_CF = {
    "empty": b"",
    "comments only": b"# nothing here yet\n\n# really\n",
    "a blank first line": b"\n\nmyhostname = mx.council.test\n",
    "debian": (
        b"# See /usr/share/postfix/main.cf.dist for a commented, more complete version\n\n"
        b"smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)\nbiff = no\n\n"
        b"# appending .domain is the MUA's job.\nappend_dot_mydomain = no\nreadme_directory = no\n\n"
        b"compatibility_level = 3.6\n\nmynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128\n"
    ),
    "no final line end": b"myhostname = mx.council.test\nmydestination =",
    "a comment without line end": b"myhostname = mx.council.test\n# the end",
    "CRLF": b"# from another system\r\nmyhostname = mx.council.test\r\nsmtpd_milters = inet:localhost:8891\r\n",
    "one milter": b"smtpd_milters = inet:localhost:8891\nnon_smtpd_milters = inet:localhost:8891\n",
    "no blanks": b"smtpd_milters=inet:localhost:8891\nnon_smtpd_milters=$smtpd_milters\n",
    "groups": b"smtpd_milters = { inet:localhost:8891, default_action=accept }, { unix:rspamd/m.sock }\n",
    "commas and blanks": b"smtpd_milters =   inet:localhost:8891,unix:a/b\tunix:c/d  ,\n",
    "continued": (
        b"smtpd_milters =\n    inet:localhost:8891,\n\tunix:rspamd/milter.sock\n"
        b"non_smtpd_milters = $smtpd_milters\n  unix:only/local.sock\n"
    ),
    "comments within": (
        b"# before\nsmtpd_milters = inet:localhost:8891\n# within, at the margin\n\n   # within, indented\n"
        b"    unix:a/b\n# after\nmyhostname = mx.council.test\n"
    ),
    "given twice": b"smtpd_milters = unix:a/b\nmyhostname = mx.council.test\nsmtpd_milters = inet:localhost:8891\n",
    "given empty": b"smtpd_milters =\nnon_smtpd_milters = \nenable_long_queue_ids =\n  no\n",
    "variables": b"signers = inet:localhost:8891\nsmtpd_milters = $signers\nnon_smtpd_milters = $smtpd_milters\n",
    "the other list among others": (
        b"smtpd_milters = inet:localhost:8891\nnon_smtpd_milters = unix:a/b, $smtpd_milters\n"
    ),
    "a condition": b"smtpd_milters = ${stress?{inet:localhost:1}:{inet:localhost:8891 unix:a/b}}\n",
    "long ids on": b"enable_long_queue_ids = YES\nmyhostname = mx.council.test\n",
    "long ids off": b"enable_long_queue_ids = no\nmyhostname = mx.council.test\n",
    "bytes that are no UTF-8": b"# Gr\xfc\xdfe, \xff\nmail_name = Post\xe9\nsmtpd_milters = inet:localhost:8891\n",
    "form feed and trailing blanks": b"\x0c\nmyhostname = mx.council.test   \n\t\n   \n# \x85 \n",
    "unknown parameters": b"my_own = 1\nsmtpd_milters = inet:localhost:8891\nmy_other = $my_own $config_directory\n",
}
"""main.cf as administrators, packages and other systems leave it."""


SIGNING = b"# mine\nsmtpd_milters = inet:localhost:8891\nmyhostname = mx.council.test\n"
"""A small one that has a signer."""


@contextmanager
def directory(main_cf: bytes = b"", master_cf: str = DEBIAN_MASTER_CF) -> Iterator[Path]:
    """A configuration directory that every user may read, with a queue directory beside it."""
    with tempfile.TemporaryDirectory(prefix="undisclosed-attach-") as name:
        Path(name).chmod(0o755)
        path = Path(name, "postfix")
        path.mkdir(mode=0o755)
        (path / "main.cf").write_bytes(main_cf)
        (path / "master.cf").write_text(master_cf)
        age(path)
        yield path


def age(config_dir: Path) -> None:
    """Let main.cf look old: Postfix waits a second or more over one that is as new as that (dict_load_file)."""
    if (config_dir / "main.cf").exists():
        os.utime(config_dir / "main.cf", (1e9, 1e9))


def attach(policy: Policy, config_dir: Path, dry_run: bool = False) -> Plan:
    """undisclosed.postfix.attach, and no waiting afterwards."""
    plan = postfix.attach(policy, config_dir, dry_run)
    age(config_dir)
    return plan


def detach(policy: Policy, config_dir: Path, dry_run: bool = False, *, anyway: bool = False) -> Plan:
    """undisclosed.postfix.detach, and no waiting afterwards."""
    plan = postfix.detach(policy, config_dir, dry_run, anyway=anyway)
    age(config_dir)
    return plan


def postconf(config_dir: Path, *arguments: str) -> str:
    """The output of postconf(1) for a directory, without its warnings."""
    command = ["/usr/sbin/postconf", "-c", str(config_dir), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", errors="surrogateescape")
    age(config_dir)
    return done.stdout.rstrip("\n")


def settings_but_ours(config_dir: Path) -> list[str]:
    """Every setting of main.cf but those that attach is there to change."""
    ours = ("smtpd_milters =", "non_smtpd_milters =", "enable_long_queue_ids =", "config_directory =", "undisclosed_")
    return [line for line in postconf(config_dir, "-n").split("\n") if not line.startswith(ours)]


def wanting(mode: str = "enforce", socket: str = "", **sections: object) -> Policy:
    """A policy of one mode, its milter at Debian's usual place or at another socket."""
    milter = {"milter": {"socket": socket}} if socket else {}
    return policy(mode=mode, **milter, **sections)


def fingerprint(path: Path) -> tuple[int, int, int, int, int, int]:
    """The identity of a file: it differs after a replacement by an equal file."""
    facts = path.lstat()
    return facts.st_ino, facts.st_mtime_ns, facts.st_mode, facts.st_uid, facts.st_gid, facts.st_size


def names_in(config_dir: Path) -> list[str]:
    """The files of a directory."""
    return sorted(path.name for path in config_dir.iterdir())


def assert_attached(config_dir: Path, action: str = "tempfail") -> None:
    """Our milter is first in both lists, only once, with its action; and long queue ids are on."""
    for name in LISTS:
        found = milters(postconf(config_dir, "-xh", name))
        assert found[0].endpoint == "unix:undisclosed/milter.sock"
        assert found[0].attribute("default_action") == action
        assert [milter.endpoint for milter in found].count(found[0].endpoint) == 1
    assert postconf(config_dir, "-h", "enable_long_queue_ids").casefold() == "yes"
