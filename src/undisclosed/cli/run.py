"""`run`, `steward`, `check-config`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from undisclosed.cli.common import DEFAULT_CONFIG, ConfigOption, exit_on_config_error, fail
from undisclosed.cli.output import Output


def run(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the milter in the foreground, for a service manager.

    SIGHUP reloads the configuration, SIGTERM ends it.
    """
    from importlib.metadata import version

    from undisclosed import log
    from undisclosed.config.key_file import read_key
    from undisclosed.config.load import load
    from undisclosed.incidents.records import UnusableError
    from undisclosed.milter.listener import ListenError
    from undisclosed.milter.session import Snapshot
    from undisclosed.milter.supervisor import Supervisor
    from undisclosed.milter.worker import check_journal
    from undisclosed.policy import lint

    def reload(create: bool = False) -> Snapshot:
        policy = load(config_file)
        snapshot = Snapshot(policy, read_key(policy, create=create))
        check_journal(snapshot)
        return snapshot

    try:
        with exit_on_config_error():
            snapshot = reload(create=True)
    except UnusableError as error:
        fail(error)
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
        Supervisor(snapshot, reload, logger).run()
    except ListenError as error:
        logger.error("listen_failed", reason=str(error))
        fail(error)


def check_config(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Check the configuration, and explain it in words.

    The templates of notices are checked too. On a terminal the text fits its width; elsewhere each sentence is one
    line.
    """
    from undisclosed import notices
    from undisclosed.config.load import load
    from undisclosed.policy import summary

    with exit_on_config_error():
        policy = load(config_file)
        notices.load(policy, config_file)
    output = Output(sys.stdout, sys.stderr)
    output.line(summary.describe(policy, output.width))


def steward(
    config_file: ConfigOption = DEFAULT_CONFIG,
    user: Annotated[
        str, typer.Option(help="The user whose rights it keeps when root starts it: the milter's.", metavar="NAME")
    ] = "undisclosed",
) -> None:
    """Look after held mail and notices, in the foreground.

    A small part keeps running as root. SIGHUP reloads the configuration, SIGTERM ends it.
    """
    from undisclosed import log, notices
    from undisclosed.config.key_file import read_key
    from undisclosed.config.load import load
    from undisclosed.incidents.records import JournalError
    from undisclosed.journal.gateway import gateway_name
    from undisclosed.steward import process
    from undisclosed.steward.hold_queue import HoldQueueError
    from undisclosed.steward.rounds import Place

    def reload() -> process.Settings:
        policy = load(config_file)
        place = Place(policy, read_key(policy, create=True), gateway_name(policy))
        return process.Settings(place, notices.load(policy, config_file))

    with exit_on_config_error():
        log.configure(reload().place.policy.log.format)
        try:
            process.run(reload, user, log.get())
        except (JournalError, HoldQueueError, process.NoSuchUserError) as error:
            fail(error)
