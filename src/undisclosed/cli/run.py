"""`run`, `steward`, `check-config`, `explain`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from ipaddress import ip_address
from typing import Annotated

import typer

from undisclosed.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, fail, told
from undisclosed.config.errors import ConfigError
from undisclosed.config.key_file import read_key
from undisclosed.config.load import load


def run(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the milter in the foreground, as a service manager wants it. SIGHUP reloads, SIGTERM ends."""
    from undisclosed import log
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
        with told():
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
    """Load and validate the configuration and the words of notices, and print what it means in words."""
    from undisclosed import notices
    from undisclosed.policy import summary

    with told():
        policy = load(config_file)
        notices.load(policy, config_file)
    typer.echo(summary.describe(policy))


def explain_messages(
    files: Annotated[list[str], typer.Argument(help="Saved messages; - is standard input.", metavar="FILE…")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    sender: Annotated[
        str | None, typer.Option(help="The envelope sender; <> is the null sender. Else Return-Path, else From.")
    ] = None,
    rcpt: Annotated[
        list[str] | None, typer.Option(help="An envelope recipient, any number of times. Else To, Cc and Bcc.")
    ] = None,
    client: Annotated[str | None, typer.Option(help="The client's address. Else this host.", metavar="IP")] = None,
    authenticated: Annotated[
        str | None, typer.Option(help="The login name of an authenticated client.", metavar="LOGIN")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would happen to a message, and why. Exit status 1 if any would be stopped."""
    from undisclosed.cli import explain
    from undisclosed.explain import message_file

    with told():
        policy = load(config_file)
    try:
        key = read_key(policy, create=False)
    except ConfigError:
        key = None  # whoever asks need not be the milter's user; without the key there is no reference to show
    if client is not None and not _is_address(client):
        fail(f"--client {client}: not an address; write one such as 192.0.2.1 or 2001:db8::1")
    envelope = message_file.Envelope(
        sender=_bare(sender) if sender is not None else None,
        recipients=tuple(map(_bare, rcpt)) if rcpt else None,
        client=client,
        login=authenticated,
    )
    status = explain.run(
        policy, key, files, envelope, as_json=as_json, stdin=sys.stdin.buffer, out=sys.stdout, err=sys.stderr
    )
    raise typer.Exit(status)


def _bare(address: str) -> str:
    return address.removeprefix("<").removesuffix(">")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def steward(
    config_file: ConfigOption = DEFAULT_CONFIG,
    user: Annotated[
        str, typer.Option(help="Whose rights it keeps when root starts it: those of the milter's user.")
    ] = "undisclosed",
) -> None:
    """See to held mail and notices in the foreground. A small part stays root; SIGHUP reloads, SIGTERM ends."""
    from undisclosed import log, notices
    from undisclosed.incidents.records import JournalError
    from undisclosed.journal.gateway import gateway_name
    from undisclosed.steward import process
    from undisclosed.steward.hold_queue import HoldQueueError
    from undisclosed.steward.rounds import Place

    def reload() -> process.Settings:
        policy = load(config_file)
        place = Place(policy, read_key(policy, create=True), gateway_name(policy))
        return process.Settings(place, notices.load(policy, config_file))

    with told():
        log.configure(reload().place.policy.log.format)
        try:
            process.run(reload, user, log.get())
        except (JournalError, HoldQueueError, process.NoSuchUserError) as error:
            fail(error)
