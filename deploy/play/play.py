"""Runs the demonstration: both breaches under each action, a release, then a gateway to try by hand."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from lab import milter, toml
from lab.gateway import LIMIT, Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import PAUSE
from play import breaches, held, people, show, trial
from play.breaches import Breach

ACTIONS = ("warn", "rewrite", "quarantine", "reject")
RUNNING = Path("/run/undisclosed-quickstart") / str(Path(__file__).parents[2]).replace("/", "_")
"""A file `PID DIRECTORY` for each running laboratory of this checkout, locked by it. `deploy/quickstart --stop` reads
them; those of another checkout are left alone."""

HELD_SENDER = "school.admissions@council.test"
"""The sender whose mail is held in the laboratory that stays up; that of others is rejected."""


class Stop(BaseException):
    """The laboratory is to end. Not an Exception, so that no handler takes it for a failure."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Ignore further signals: a second Ctrl-C would interrupt the cleanup.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise Stop


@contextmanager
def recorded(directory: Path) -> Iterator[None]:
    """Keep a record for `--stop` while the laboratory is up, and remove what killed laboratories left."""
    path = RUNNING / str(os.getpid())
    with ExitStack() as stack:
        with _one_at_a_time():
            RUNNING.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in RUNNING.iterdir():
                _clear_away(left)
            record = stack.enter_context(path.open("w"))
            fcntl.flock(record, fcntl.LOCK_EX)
            record.write(f"{os.getpid()} {directory}\n")
            record.flush()
        try:
            yield
        finally:
            with _one_at_a_time(), suppress(OSError):  # a directory is not empty: another laboratory is up
                path.unlink(missing_ok=True)
                RUNNING.rmdir()
                RUNNING.parent.rmdir()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Lock the records: a laboratory that ends could remove the directory of one that starts.

    The lock is on a directory that always exists, and leaves no file behind.
    """
    directory = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _clear_away(path: Path) -> None:
    """Remove what a laboratory left that no longer holds its lock. Only root can write the record, so it is trusted."""
    with path.open() as record:
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _, _, directory = record.read().strip().partition(" ")
        if Path(directory).name.startswith("undisclosed-lab-"):
            shutil.rmtree(directory, ignore_errors=True)
        path.unlink(missing_ok=True)


def policy(gateway: Gateway, breach: Breach, action: str) -> toml.Document:
    """The configuration for a breach: its organisation, and one rule."""
    return gateway.policy(
        action,
        organisation={
            "name": breach.organisation,
            "internal_domains": [breach.domain],
            "partner_domains": [],
            "help": "the service desk, extension 1234",
        },
        counting={"personal_mail_add": list(people.PERSONAL_MAIL)},
    )


def play(console: Console, gateway: Gateway) -> list[str]:
    """Replay both breaches and show them; returns the broken promises."""
    told = (breaches.schools(), breaches.families())
    postfix, sink = gateway.postfix, gateway.sink
    without = [trial.run(breach, None, postfix, sink) for breach in told]
    gateway.start()
    problems: list[str] = []
    for breach, before in zip(told, without, strict=True):
        trials = []
        for action in ACTIONS:
            gateway.configure(policy(gateway, breach, action))
            gateway.milter.reload()
            trials.append(trial.run(breach, action, postfix, sink))
        show.breach(console, breach, before)
        show.actions(console, trials, LIMIT)
        problems += [
            f"{breach.title}, {result.action or 'without the milter'}: {problem}"
            for result in (before, *trials)
            for problem in result.broken_promises()
        ]
    return problems


def held_journal(gateway: Gateway) -> toml.Table:
    """A separate journal for the held message: the first one has the same messages from the replays."""
    return {**gateway.journal, "url": f"sqlite:///{gateway.state}/held.db"}


def play_held(console: Console, gateway: Gateway, steward: Steward) -> list[str]:
    """Start the steward, and show one held message, its notice and its release; returns the broken promises."""
    told = breaches.schools()
    gateway.configure({**policy(gateway, told, "quarantine"), "journal": held_journal(gateway)})
    milter.upgrade_journal(gateway.config)
    gateway.milter.reload()
    steward.start()
    story = held.play(gateway, told.letters[0], console.width - 4)
    show.held(console, story)
    return [f"A held message: {problem}" for problem in story.broken_promises()]


HOW_TO = """\
[bold]It stays up: send a message of your own.[/] More than {limit} strangers in To or Cc, and it is refused:

  swaks --server 127.0.0.1:{port} --from clerk@council.test \\
    --to "$(echo parent{{1..12}}@school.example | tr ' ' ,)"

From [bold]{held_sender}[/] it is held instead, and waits for you:

  export UNDISCLOSED_CONFIG={config}
  {program} held list
  {program} held release REFERENCE --as bcc     # or split; or: held delete REFERENCE

With a mail client: outgoing server 127.0.0.1, port {port}, no encryption, no password, you@council.test.
The policy is {config}
(for example action = "rewrite"); after a change: kill -HUP {pid} {steward_pid}
Each message is shown here as the milter logs it, and each step of the steward.
To stop: Ctrl-C, or deploy/quickstart --stop
"""


def stay_up(console: Console, gateway: Gateway, steward: Steward) -> None:
    """Show the events of milter and steward until a signal comes, or one of them or Postfix ends."""
    document = policy(gateway, breaches.schools(), "reject")
    held_back: toml.Table = {
        "name": "waits for an administrator",
        "senders": [HELD_SENDER],
        "more_than_addresses": LIMIT,
        "action": "quarantine",
    }
    refused: toml.Table = {"name": "many strangers", "more_than_addresses": LIMIT, "action": "reject"}
    gateway.configure({**document, "journal": held_journal(gateway), "rules": [held_back, refused]})
    services = (gateway.milter, steward)
    for service in services:
        service.reload()
    console.print()
    how_to = HOW_TO.format(
        limit=LIMIT,
        port=gateway.postfix.port,
        config=gateway.config,
        pid=gateway.milter.pid,
        steward_pid=steward.pid,
        held_sender=HELD_SENDER,
        program=milter.console_script(),
    )
    console.print(how_to, soft_wrap=True)
    told = [len(service.log()) for service in services]
    while all(service.is_running for service in services) and gateway.postfix.is_running:
        for number, service in enumerate(services):
            events = service.log()
            for event in events[told[number] :]:
                console.print(_line(event), markup=False)
            told[number] = len(events)
        time.sleep(20 * PAUSE)
    raise RuntimeError("the milter, the steward or Postfix has ended by itself")


def _line(event: dict[str, Any]) -> str:
    if event["event"] == "message":
        return "  {outcome}: {count} outside addresses, from <{sender}>, {reason}".format_map(event)
    more = [str(event[key]) for key in ("reference", "kind", "verb", "state", "reason") if event.get(key)]
    return f"  {event['event']}: {', '.join(more)}"


def main() -> int:
    """Run the laboratory; the exit status is 0 if all promises were kept."""
    parser = argparse.ArgumentParser(prog="deploy/quickstart")
    parser.add_argument("--once", action="store_true", help="end after the play")
    once = parser.parse_args().once
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    console = show.terminal()
    try:
        with ExitStack() as stack:
            return laboratory(console, stack, once)
    except Stop:
        console.print("\nStopped; nothing is left of it.")
        return 130 if once else 0
    except (RuntimeError, OSError) as error:  # a TimeoutError is an OSError
        console.print(Text(f"\nThe laboratory failed, and nothing is left of it.\n{error}", style="red"))
        return 1


def laboratory(console: Console, stack: ExitStack, once: bool) -> int:
    """Start the laboratory, run the demonstration, and stay up unless `once`."""
    sink = stack.enter_context(Sink())
    postfix = PrivatePostfix(outside=sink.port)
    stack.callback(postfix.remove)
    stack.enter_context(recorded(postfix.directory))
    stack.enter_context(postfix)
    user = milter.unprivileged_user()
    gateway = Gateway(postfix, sink, user=user)
    stack.callback(gateway.stop)
    console.print(
        "[bold]Undisclosed[/] plays two breaches that happened, through a Postfix of its own on this machine."
    )
    console.print(
        f"Postfix listens on 127.0.0.1:{postfix.port}; a sink on 127.0.0.1:{sink.port} gets all mail to the outside;"
        f" the milter runs as {user[0] if user else 'root'}, the steward as root."
    )
    if user is None:
        console.print(
            f"(As root, since no other user may read {Path(__file__).parents[2]}. In production it never does.)"
        )
    # As root: only root may name another configuration directory than the host's to sendmail(1).
    steward = Steward(gateway.config, directory=gateway.state)
    stack.callback(steward.stop)
    problems = play(console, gateway) + play_held(console, gateway, steward)
    show.conclusion(console, problems)
    if problems:
        show.log(console, [*gateway.milter.log(), *steward.log()])
    if not once:
        stay_up(console, gateway, steward)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
