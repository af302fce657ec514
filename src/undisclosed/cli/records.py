"""`journal upgrade`, `incidents list | show`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from undisclosed.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    SenderOption,
    SinceOption,
    fail,
    opened_journal,
)

journal_app = typer.Typer(no_args_is_help=True, help="The database in which incidents are recorded.")
app = typer.Typer(no_args_is_help=True, help="What rules have acted on.")


@journal_app.command("upgrade")
def upgrade_journal(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Make the journal's tables, or bring them to this version. Does nothing where they are."""
    with opened_journal(config_file, create_key=True) as journal:
        journal.upgrade()
        journal.check()
    typer.echo("the journal is ready")


@app.command("list")
def list_incidents(
    config_file: ConfigOption = DEFAULT_CONFIG,
    sender: SenderOption = None,
    rule: Annotated[str | None, typer.Option(help="That this rule acted on.")] = None,
    since: SinceOption = None,
    state: Annotated[list[str] | None, typer.Option(help="In this state; any number of times.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many, the newest first; 0 for all.")] = 100,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For a spreadsheet.")] = False,
) -> None:
    """List incidents, the newest first."""
    from undisclosed.cli import incidents_commands

    try:
        wanted = incidents_commands.Filter.read(sender=sender, rule=rule, since=since, states=state or [], limit=limit)
    except ValueError as error:
        fail(error)
    form: Literal["table", "json", "csv"] = "json" if as_json else "csv" if as_csv else "table"
    with opened_journal(config_file) as journal:
        incidents_commands.show_list(journal, wanted, form, sys.stdout)


@app.command("show")
def show_incident(
    reference: Annotated[str, typer.Argument(help="Its reference, or enough of the beginning.", metavar="REF")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show one incident: what it was, what became of each copy, and who did what. Exit status 1 if there is none."""
    from undisclosed.cli import incidents_commands
    from undisclosed.incidents.records import AmbiguousError, NotFoundError

    with opened_journal(config_file) as journal:
        try:
            incidents_commands.show_one(journal, reference, as_json, sys.stdout)
        except NotFoundError as error:
            fail(error, 1)
        except AmbiguousError as error:
            fail(error)
