"""`held list | show | release | delete`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from undisclosed.cli import records
from undisclosed.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    SenderOption,
    SinceOption,
    fail,
    opened_journal,
)

if TYPE_CHECKING:
    from undisclosed.cli.held_commands import Filter, Wish

app = typer.Typer(no_args_is_help=True, help="Held mail: see it, release it, delete it.")

RuleOption = Annotated[str | None, typer.Option(help="That this rule holds.")]
OlderOption = Annotated[str | None, typer.Option("--older-than", help="Older than this.")]
ReferencesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="References, or enough of the beginning of each. Without any, all that the options name."),
]
ReasonOption = Annotated[str, typer.Option(help="Why: it is recorded.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the steward has done it.")]


@app.command("list")
def list_held(
    config_file: ConfigOption = DEFAULT_CONFIG,
    sender: SenderOption = None,
    rule: RuleOption = None,
    since: SinceOption = None,
    older_than: OlderOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is held, the newest first."""
    from undisclosed.cli import held_commands

    wanted = _held_filter(sender, rule, since, older_than)
    with opened_journal(config_file) as journal:
        held_commands.show_list(journal, wanted, as_json, sys.stdout)


@app.command("show")
def show_held(
    reference: Annotated[str, typer.Argument(help="Its reference, or enough of the beginning.", metavar="REF")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show one held message: what it was, where each copy is, and who did what. Exit status 1 if there is none."""
    records.show_incident(reference, config_file, as_json)


@app.command("release")
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
    from undisclosed.cli.held_commands import Wish, user

    wanted = _held_filter(sender, rule, since, older_than)
    _ask_steward(config_file, references, wanted, Wish("release", way, reason, user()), wait=wait, as_json=as_json)


@app.command("delete")
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
    from undisclosed.cli.held_commands import Wish, user

    wanted = _held_filter(sender, rule, since, older_than)
    _ask_steward(config_file, references, wanted, Wish("delete", None, reason, user()), wait=wait, as_json=as_json)


def _held_filter(sender: str | None, rule: str | None, since: str | None, older_than: str | None) -> Filter:
    from datetime import UTC, datetime

    from undisclosed.cli.held_commands import Filter
    from undisclosed.cli.incidents_commands import moment

    now = datetime.now(UTC)
    try:
        times = [None if text is None else moment(text, now) for text in (since, older_than)]
    except ValueError as error:
        fail(error)
    return Filter(sender, rule, *times)


def _ask_steward(
    config_file: Path, references: list[str] | None, wanted: Filter, wish: Wish, *, wait: bool, as_json: bool
) -> None:
    from undisclosed.cli import held_commands
    from undisclosed.incidents.records import AmbiguousError, NotFoundError

    if bool(references) is not wanted.is_empty:
        fail("name references, or say by options which held mail is meant, and not both")
    with opened_journal(config_file) as journal:
        try:
            meant = held_commands.named(journal, references) if references else held_commands.held(journal, wanted)
        except NotFoundError as error:
            fail(error, 1)
        except AmbiguousError as error:
            fail(error)
        granted = held_commands.ask(journal, meant, wish, wait=wait, with_json=as_json, out=sys.stdout, err=sys.stderr)
    if not granted:
        raise typer.Exit(1)
