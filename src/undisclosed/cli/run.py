"""The services, `run` and `steward`, their `reload`, and `check-config`.

Exit status of a service: 2 for an error that only an administrator can correct (configuration, journal version or key,
missing user or group), 1 for one that may pass (socket, journal, Postfix, root half). The units start a service again
after 1 and not after 2 (RestartPreventExitStatus=2).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, NoReturn

import typer

from undisclosed.cli.common import DEFAULT_CONFIG, ConfigOption, exit_on_config_error, fail, parse_pid
from undisclosed.cli.output import Output, printable
from undisclosed.service import sd_notify
from undisclosed.service.reload import NoReloadResultError, ReloadResultFile, request


def run(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the milter in the foreground, for a service manager.

    SIGHUP reloads the configuration, SIGTERM ends it.
    """
    from importlib.metadata import version

    from undisclosed import log
    from undisclosed.config.gateway_file import read_gateway
    from undisclosed.config.key_file import read_key
    from undisclosed.config.load import load
    from undisclosed.incidents.records import UnusableError
    from undisclosed.milter.listener import ListenError, NoSuchGroupError
    from undisclosed.milter.session import Snapshot
    from undisclosed.milter.supervisor import Supervisor
    from undisclosed.milter.worker import check_journal
    from undisclosed.policy import lint

    def load_snapshot(create: bool) -> Snapshot:
        policy = load(config_file)
        snapshot = Snapshot(policy, read_key(policy, create), read_gateway(policy, create))
        check_journal(snapshot)
        return snapshot

    with _service_errors(permanent=(UnusableError, NoSuchGroupError), transient=(ListenError,)):
        snapshot = load_snapshot(create=True)
        policy = snapshot.policy
        log.configure(policy.log.format)
        logger = log.get()
        logger.info(
            "milter_starting",
            version=version("undisclosed"),
            config=str(config_file),
            mode=policy.mode.value,
            rules=[f"{rule.name}: {rule.action.value}" for rule in policy.rules],
        )
        for warning in lint.warnings(policy):
            logger.warning("config_warning", reason=warning)
        if os.geteuid() == 0:
            logger.warning("running_as_root", reason="the milter needs no rights of root: give it a user of its own")
        try:
            Supervisor(snapshot, partial(load_snapshot, create=False), logger).run()
        except ListenError as error:
            logger.error("listen_failed", reason=str(error))
            raise


def steward(
    config_file: ConfigOption = DEFAULT_CONFIG,
    user: Annotated[
        str, typer.Option(help="The user whose rights it keeps when root starts it: the milter's.", metavar="NAME")
    ] = "undisclosed",
) -> None:
    """Handle held mail and send notices, in the foreground.

    A small part keeps running as root. SIGHUP reloads the configuration, SIGTERM ends it.
    """
    from undisclosed import log, notices
    from undisclosed.config.gateway_file import read_gateway
    from undisclosed.config.key_file import read_key
    from undisclosed.config.load import load
    from undisclosed.incidents.records import JournalError, UnusableError
    from undisclosed.journal.gateway import gateway_name
    from undisclosed.steward import process
    from undisclosed.steward.context import Context
    from undisclosed.steward.hold_queue import HoldQueueError

    def load_settings(create: bool) -> process.StewardSettings:
        policy = load(config_file)
        context = Context(policy, read_key(policy, create), read_gateway(policy, create), gateway_name(policy))
        return process.StewardSettings(context, notices.load(policy, config_file))

    with _service_errors(permanent=(UnusableError, process.NoSuchUserError), transient=(JournalError, HoldQueueError)):
        if os.geteuid() == 0:
            process.service_account(user)  # before a key is made, which would be root's
        settings = load_settings(create=True)
        log.configure(settings.context.policy.log.format)
        process.run(settings, partial(load_settings, create=False), user, log.get())


@contextmanager
def _service_errors(
    *, permanent: tuple[type[Exception], ...], transient: tuple[type[Exception], ...]
) -> Iterator[None]:
    """End a service that cannot start, or go on, with the exit status that its unit acts on."""
    from undisclosed.config.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        _end_service(error, 2)
    except permanent as error:
        _end_service(error, 2)
    except transient as error:
        _end_service(error, 1)


def _end_service(error: Exception, status: int) -> NoReturn:
    """Print the error, and last its reason in one line: `systemctl status` shows that line and the status text."""
    lines = [line.strip() for line in str(error).splitlines() if not re.match(r" +\d+ \| ", line)]  # no quoted lines
    reason = "; ".join(lines)
    sd_notify.send("", status=f"not running: {reason}")
    if len(lines) > 1:
        typer.echo(f"undisclosed: {error}", err=True)
    fail(f"not running (exit status {status}): {reason}", status)


def reload(
    pid: Annotated[
        int,
        typer.Argument(parser=parse_pid, help="The main process of the service: $MAINPID in its unit.", metavar="PID"),
    ],
) -> None:
    """Have a service read its configuration again, and print the result.

    ExecReload of both units runs this.
    """
    try:
        result = request(pid, ReloadResultFile.of_this_service())
    except NoReloadResultError as error:
        fail(error, 1)
    if result.refused:
        reason = "\n".join(map(printable, result.refused.splitlines()))
        fail(f"the new configuration is refused, the old one stays in force:\n{reason}", 1)
    typer.echo("The new configuration is in force.")
    if result.restart:
        typer.echo(f"Not before a restart: {', '.join(map(printable, result.restart))}")


def check_config(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Check the configuration, and explain it in words.

    The templates of notices are checked too, and each SMTP reply is shown as staff will read it. On a terminal the text
    fits its width; elsewhere each sentence is one line.
    """
    from undisclosed import notices
    from undisclosed.config.load import load
    from undisclosed.decision.reply_preview import replies
    from undisclosed.policy import summary

    with exit_on_config_error():
        policy = load(config_file)
        notices.load(policy, config_file)
    output = Output(sys.stdout, sys.stderr)
    output.line(f"{summary.describe(policy, output.width)}\n\n{replies(policy, output.width)}")
