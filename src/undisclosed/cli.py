"""The commands. The only place that exits: 0 done, 1 the answer is no, 2 usage or configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from undisclosed import config

if TYPE_CHECKING:
    from undisclosed.held_command import Filter, Wish
    from undisclosed.journal import Journal

DEFAULT_CONFIG = Path("/etc/undisclosed/config.toml")

app = typer.Typer(
    name="undisclosed",
    help="A milter for Postfix that keeps recipients' addresses out of each other's sight.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
postfix_app = typer.Typer(no_args_is_help=True, help="Attach the milter to Postfix, detach it, see what is in place.")
app.add_typer(postfix_app, name="postfix")
journal_app = typer.Typer(no_args_is_help=True, help="The database in which incidents are recorded.")
app.add_typer(journal_app, name="journal")
incidents_app = typer.Typer(no_args_is_help=True, help="What rules have acted on.")
app.add_typer(incidents_app, name="incidents")

held_app = typer.Typer(no_args_is_help=True, help="Held mail: see it, release it, delete it.")
app.add_typer(held_app, name="held")

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", envvar="UNDISCLOSED_CONFIG", help="The configuration file.", metavar="FILE", readable=False
    ),  # readable=False: what is wrong with the file, config.py says better than the command line's library
]
ConfigDirOption = Annotated[
    Path | None,
    typer.Option(
        "--config-dir", help="Postfix's configuration directory, instead of postfix.config_dir.", metavar="DIR"
    ),
]


def main() -> None:
    """Run the command line."""
    app()


def _fail(message: object, status: int = 2) -> NoReturn:
    typer.echo(f"undisclosed: {message}", err=True)
    raise typer.Exit(status)


@contextmanager
def _told() -> Iterator[None]:
    """Tell what is wrong with the configuration in its own words, and end with status 2."""
    try:
        yield
    except config.ConfigError as error:
        _fail(error)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"undisclosed {version('undisclosed')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the milter in the foreground, as a service manager wants it. SIGHUP reloads, SIGTERM ends."""
    from undisclosed import describe, log
    from undisclosed.journal import UnusableError
    from undisclosed.listener import ListenError
    from undisclosed.session import Settings
    from undisclosed.workers import Supervisor, journal_usable

    def load(create: bool = False) -> Settings:
        policy = config.load(config_file)
        settings = Settings(policy, config.key(policy, create=create))
        journal_usable(settings)
        return settings

    try:
        with _told():
            settings = load(create=True)
    except UnusableError as error:
        _fail(error)
    policy = settings.policy
    log.configure(policy.log.format)
    logger = log.get()
    logger.info(
        "starting",
        version=version("undisclosed"),
        config=str(config_file),
        mode=policy.mode.value,
        rules=[f"{rule.name}: {rule.action.value}" for rule in policy.rules],
    )
    for warning in describe.warnings(policy):
        logger.warning("note", text=warning)
    if os.geteuid() == 0:
        logger.warning("note", text="running as root, which the milter does not need: give it a user of its own")
    try:
        Supervisor(settings, load, logger).run()
    except ListenError as error:
        logger.error("cannot_listen", reason=str(error))
        _fail(error)


@app.command("check-config")
def check_config(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Load and validate the configuration and the words of notices, and print what it means in words."""
    from undisclosed import describe, notices

    with _told():
        policy = config.load(config_file)
        notices.load(policy, config_file)
    typer.echo(describe.describe(policy))


@app.command("explain")
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Say what would happen to a message, and why. Exit status 1 if any would be stopped."""
    from undisclosed import explain_command, saved

    with _told():
        policy = config.load(config_file)
    try:
        key = config.key(policy, create=False)
    except config.ConfigError:
        key = None  # whoever asks need not be the milter's user; without the key there is no reference to show
    if client is not None and not _is_address(client):
        _fail(f"--client {client}: not an address; write one such as 192.0.2.1 or 2001:db8::1")
    envelope = saved.Envelope(
        sender=_bare(sender) if sender is not None else None,
        recipients=tuple(map(_bare, rcpt)) if rcpt else None,
        client=client,
        login=authenticated,
    )
    status = explain_command.run(
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


@contextmanager
def _postfix_told() -> Iterator[None]:
    from undisclosed.postfix import PostfixError

    try:
        yield
    except PostfixError as error:
        _fail(error)


DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the difference, and change nothing.")]


@postfix_app.command()
def attach(
    config_file: ConfigOption = DEFAULT_CONFIG, config_dir: ConfigDirOption = None, dry_run: DryRunOption = False
) -> None:
    """Put the milter first in Postfix's lists of milters, for SMTP and for sendmail(1)."""
    from undisclosed import postfix

    with _told(), _postfix_told():
        policy = config.load(config_file)
        typer.echo(str(postfix.attach(policy, config_dir or policy.postfix.config_dir, dry_run)))


@postfix_app.command()
def detach(
    config_file: ConfigOption = DEFAULT_CONFIG, config_dir: ConfigDirOption = None, dry_run: DryRunOption = False
) -> None:
    """Take back what attach added and nobody has changed since."""
    from undisclosed import postfix

    with _told(), _postfix_told():
        policy = config.load(config_file)
        typer.echo(str(postfix.detach(policy, config_dir or policy.postfix.config_dir, dry_run)))


@postfix_app.command()
def status(config_file: ConfigOption = DEFAULT_CONFIG, config_dir: ConfigDirOption = None) -> None:
    """Say what is in place and what is not. Exit status 1 if mail can pass the milter by."""
    from undisclosed import postfix
    from undisclosed.postfix import Level

    with _told(), _postfix_told():
        policy = config.load(config_file)
        findings = postfix.status(policy, config_dir or policy.postfix.config_dir)
    for finding in findings:
        typer.echo(str(finding))
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)


@contextmanager
def _journal(config_file: Path, *, create_key: bool = False) -> Iterator[Journal]:
    """The journal that the configuration names; what is wrong with it is told, and ends with status 2."""
    from undisclosed.journal import Journal, JournalError

    with _told():
        policy = config.load(config_file)
        journal = Journal(policy.journal, config.key(policy, create=create_key))
    try:
        yield journal
    except JournalError as error:
        _fail(error)
    finally:
        journal.close()


@journal_app.command("upgrade")
def upgrade_journal(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Make the journal's tables, or bring them to this version. Does nothing where they are."""
    with _journal(config_file, create_key=True) as journal:
        journal.upgrade()
        journal.check()
    typer.echo("the journal is ready")


JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@incidents_app.command("list")
def list_incidents(
    config_file: ConfigOption = DEFAULT_CONFIG,
    sender: Annotated[
        str | None, typer.Option(help="Of this envelope sender, or of all that a glob such as *@schools.example names.")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="That this rule acted on.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Not older than this: a date, a date and time, or an age such as 7d or 12h.")
    ] = None,
    state: Annotated[list[str] | None, typer.Option(help="In this state; any number of times.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many, the newest first; 0 for all.")] = 100,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For a spreadsheet.")] = False,
) -> None:
    """List incidents, the newest first."""
    from undisclosed import incidents_command

    try:
        wanted = incidents_command.Filter.read(sender=sender, rule=rule, since=since, states=state or [], limit=limit)
    except ValueError as error:
        _fail(error)
    form: Literal["table", "json", "csv"] = "json" if as_json else "csv" if as_csv else "table"
    with _journal(config_file) as journal:
        incidents_command.show_list(journal, wanted, form, sys.stdout)


@incidents_app.command("show")
def show_incident(
    reference: Annotated[str, typer.Argument(help="Its reference, or enough of the beginning.", metavar="REF")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show one incident: what it was, what became of each copy, and who did what. Exit status 1 if there is none."""
    from undisclosed import incidents_command
    from undisclosed.journal import AmbiguousError, NotFoundError

    with _journal(config_file) as journal:
        try:
            incidents_command.show_one(journal, reference, as_json, sys.stdout)
        except NotFoundError as error:
            _fail(error, 1)
        except AmbiguousError as error:
            _fail(error)


@app.command()
def steward(
    config_file: ConfigOption = DEFAULT_CONFIG,
    user: Annotated[
        str, typer.Option(help="Whose rights it keeps when root starts it: those of the milter's user.")
    ] = "undisclosed",
) -> None:
    """See to held mail and notices in the foreground. A small part stays root; SIGHUP reloads, SIGTERM ends."""
    from undisclosed import host, log, notices
    from undisclosed.holdqueue import HoldQueueError
    from undisclosed.records import JournalError
    from undisclosed.steward import process
    from undisclosed.steward.loop import Place

    def load() -> process.Settings:
        policy = config.load(config_file)
        place = Place(policy, config.key(policy, create=True), host.gateway(policy))
        return process.Settings(place, notices.load(policy, config_file))

    with _told():
        log.configure(load().place.policy.log.format)
        try:
            process.run(load, user, log.get())
        except (JournalError, HoldQueueError, process.NoSuchUserError) as error:
            _fail(error)


SenderOption = Annotated[
    str | None, typer.Option(help="Of this envelope sender, or of all that a glob such as *@schools.example names.")
]
RuleOption = Annotated[str | None, typer.Option(help="That this rule holds.")]
SinceOption = Annotated[
    str | None, typer.Option(help="Not older than this: a date, a date and time, or an age such as 7d or 12h.")
]
OlderOption = Annotated[str | None, typer.Option("--older-than", help="Older than this.")]
ReferencesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="References, or enough of the beginning of each. Without any, all that the options name."),
]
ReasonOption = Annotated[str, typer.Option(help="Why: it is recorded.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the steward has done it.")]


@held_app.command("list")
def list_held(
    config_file: ConfigOption = DEFAULT_CONFIG,
    sender: SenderOption = None,
    rule: RuleOption = None,
    since: SinceOption = None,
    older_than: OlderOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is held, the newest first."""
    from undisclosed import held_command

    wanted = _held_filter(sender, rule, since, older_than)
    with _journal(config_file) as journal:
        held_command.show_list(journal, wanted, as_json, sys.stdout)


@held_app.command("show")
def show_held(
    reference: Annotated[str, typer.Argument(help="Its reference, or enough of the beginning.", metavar="REF")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show one held message: what it was, where each copy is, and who did what. Exit status 1 if there is none."""
    show_incident(reference, config_file, as_json)


@held_app.command("release")
def release_held(
    way: Annotated[
        Literal["bcc", "split", "unchanged"],
        typer.Option(
            "--as",
            help="bcc: the recipients hidden; split: a copy of their own for each outside; unchanged: as it is.",
        ),
    ],
    references: ReferencesArgument = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
    reason: ReasonOption = "",
    sender: SenderOption = None,
    rule: RuleOption = None,
    since: SinceOption = None,
    older_than: OlderOption = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Have held mail delivered. Exit status 1 unless all of it was."""
    from undisclosed.held_command import Wish, user

    wanted = _held_filter(sender, rule, since, older_than)
    _ask_steward(config_file, references, wanted, Wish("release", way, reason, user()), wait=wait, as_json=as_json)


@held_app.command("delete")
def delete_held(
    references: ReferencesArgument = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
    reason: ReasonOption = "",
    sender: SenderOption = None,
    rule: RuleOption = None,
    since: SinceOption = None,
    older_than: OlderOption = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Have held mail deleted. Exit status 1 unless all of it was."""
    from undisclosed.held_command import Wish, user

    wanted = _held_filter(sender, rule, since, older_than)
    _ask_steward(config_file, references, wanted, Wish("delete", None, reason, user()), wait=wait, as_json=as_json)


def _held_filter(sender: str | None, rule: str | None, since: str | None, older_than: str | None) -> Filter:
    from datetime import UTC, datetime

    from undisclosed.held_command import Filter
    from undisclosed.incidents_command import moment

    now = datetime.now(UTC)
    try:
        times = [None if text is None else moment(text, now) for text in (since, older_than)]
    except ValueError as error:
        _fail(error)
    return Filter(sender, rule, *times)


def _ask_steward(
    config_file: Path, references: list[str] | None, wanted: Filter, wish: Wish, *, wait: bool, as_json: bool
) -> None:
    from undisclosed import held_command
    from undisclosed.journal import AmbiguousError, NotFoundError

    if bool(references) is not wanted.is_empty:
        _fail("name references, or say by options which held mail is meant, and not both")
    with _journal(config_file) as journal:
        try:
            meant = held_command.named(journal, references) if references else held_command.held(journal, wanted)
        except NotFoundError as error:
            _fail(error, 1)
        except AmbiguousError as error:
            _fail(error)
        granted = held_command.ask(journal, meant, wish, wait=wait, with_json=as_json, out=sys.stdout, err=sys.stderr)
    if not granted:
        raise typer.Exit(1)
