"""The programs that are compared: each as a child process, with a configuration, a directory and a socket of its own.

Nothing of the host's is used: no service, no file below /etc, no port but free ones of 127.0.0.1.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.comparison.letters import LIMIT
from lab import processes, toml
from lab.milter import Milter, upgrade_journal
from lab.postfix import INTERNAL_DOMAINS
from lab.waiting import until

HERE = Path(__file__).parent
STARTS_WITHIN = 60.0
"""Seconds: rspamd compiles its expressions at its first start."""
STOPS_WITHIN = 15.0
MIMEDEFANG_WORKERS = 2
"""The number of its Perl processes that wait for mail, as in Debian's service; up to ten are started as mail comes."""


class Running(NamedTuple):
    """A running contestant: its entry in `smtpd_milters` of Postfix, and the ids of its processes of now."""

    milter: str
    pids: Callable[[], list[int]]


Start = Callable[[Path], AbstractContextManager[Running]]
"""Starts a contestant below this directory, and ends it."""


class Socket(NamedTuple):
    """The endpoint of a milter, as Postfix and as libmilter write it."""

    postfix: str
    libmilter: str


def _socket(place: Path, kind: str) -> Socket:
    if kind == "unix":
        return Socket(f"unix:{place}/milter.sock", f"unix:{place}/milter.sock")
    port = processes.reserve_port()
    return Socket(f"inet:127.0.0.1:{port}", f"inet:{port}@127.0.0.1")


def _place(parent: Path, name: str, user: str) -> Path:
    """A directory for one contestant, who runs as this user and in Postfix's group, which has to reach its socket."""
    place = parent / name
    place.mkdir()
    shutil.chown(place, user, "postfix")
    place.chmod(0o770)
    return place


@contextmanager
def _child(command: Sequence[str], *, user: str, log: Path, waits_for: str) -> Iterator[Callable[[], list[int]]]:
    """A program without root's rights, from when it listens at `waits_for`; yields what tells its processes."""
    with log.open("wb") as stream:
        child = processes.start(
            ["sh", "-c", 'umask 007; exec "$@"', "sh", *command],
            user=user,
            group="postfix",
            environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "COMPARISON_LIMIT": str(LIMIT)},
            output=stream,
        )
    try:
        until(lambda: child.poll() is not None or _listens(waits_for), within=STARTS_WITHIN, what=f"{command[0]}")
        if child.poll() is not None:
            raise RuntimeError(f"{command[0]} ended at once:\n{log.read_text(errors='replace')}")
        yield lambda: processes.session(child.pid)
    finally:
        processes.end(child, within=STOPS_WITHIN)


def _listens(where: str) -> bool:
    kind, _, place = where.partition(":")
    try:
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(place)
        else:
            host, _, port = place.partition(":")
            socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True


@contextmanager
def nobody(_parent: Path) -> Iterator[Running]:
    """No milter at all."""
    yield Running("", list)


def null(kind: str) -> Start:
    """The program that does nothing, compiled here, on a socket of this kind."""

    @contextmanager
    def start(parent: Path) -> Iterator[Running]:
        place = _place(parent, f"null-{kind}", "nobody")
        program, where = place / "null", _socket(place, kind)
        compiler = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(HERE / "null.c")]
        subprocess.run([*compiler, "-lmilter", "-lpthread"], check=True)
        command = [str(program), where.libmilter]
        with _child(command, user="nobody", log=place / "log", waits_for=where.postfix) as pids:
            yield Running(where.postfix, pids)

    return start


@contextmanager
def rspamd(parent: Path) -> Iterator[Running]:
    """rspamd's proxy worker in milter mode, scanning by itself, with one rule and nothing else."""
    place = _place(parent, "rspamd", "_rspamd")
    # The checkout may be where its user cannot read.
    for name in ("rspamd.conf", "rspamd.lua"):
        shutil.copy(HERE / name, place / name)
    where = f"unix:{place}/rspamd.sock"
    command = ["rspamd", "--no-fork", f"--config={place}/rspamd.conf", f"--var=DIR={place}"]
    with _child(command, user="_rspamd", log=place / "output", waits_for=where) as pids:
        yield Running(where, pids)


@contextmanager
def mimedefang(parent: Path) -> Iterator[Running]:
    """MIMEDefang as Debian's services start it: a multiplexor with 2 to 10 Perl workers, and the milter before them."""
    place = _place(parent, "mimedefang", "defang")
    shutil.copy(HERE / "mimedefang-filter", place / "filter")
    multiplexor, where = f"{place}/multiplexor.sock", f"unix:{place}/milter.sock"
    workers = ["mimedefang-multiplexor", "-D", "-E", "-l", "-m", str(MIMEDEFANG_WORKERS), "-x", "10", "-y", "0",
               "-b", "600", "-z", str(place), "-F", f"{place}/filter", "-s", multiplexor]  # fmt: skip
    front = ["mimedefang", "-D", "-G", "-X", "-R", "-1",
             "-m", multiplexor, "-z", str(place), "-p", f"{place}/milter.sock"]  # fmt: skip
    with (
        _child(workers, user="defang", log=place / "workers.log", waits_for=f"unix:{multiplexor}") as behind,
        _child(front, user="defang", log=place / "front.log", waits_for=where) as before,
    ):
        until(lambda: len(behind()) > MIMEDEFANG_WORKERS, within=STARTS_WITHIN, what="MIMEDefang's workers")
        yield Running(where, lambda: before() + behind())


def ours(kind: str) -> Start:
    """This project's milter, by its defaults: two workers, a line in the log a message, a journal."""

    @contextmanager
    def start(parent: Path) -> Iterator[Running]:
        place = _place(parent, f"ours-{kind}", "root")
        where, config = _socket(place, kind), place / "config.toml"
        config.write_text(toml.dumps({
            "organisation": {"name": "The council", "internal_domains": list(INTERNAL_DOMAINS)},
            "milter": {"socket": where.libmilter, "socket_group": "postfix"},
            "journal": {"url": f"sqlite:///{place}/journal.db", "key_file": str(place / "key")},
            "rules": [{"name": "limit", "more_than_addresses": LIMIT, "action": "reject"}],
        }))  # fmt: skip
        upgrade_journal(config)
        with Milter(config, directory=place) as milter:
            yield Running(where.postfix, lambda: processes.session(milter.pid))

    return start


CONTESTANTS: Mapping[str, Start] = {
    "no milter": nobody,
    "null, unix": null("unix"),
    "null, inet": null("inet"),
    "rspamd": rspamd,
    "MIMEDefang": mimedefang,
    "undisclosed, unix": ours("unix"),
    "undisclosed, inet": ours("inet"),
}

JUDGES = ("rspamd", "MIMEDefang", "undisclosed, unix", "undisclosed, inet")
"""The contestants that have the rule."""
