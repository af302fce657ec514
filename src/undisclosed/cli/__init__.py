"""The commands. The only place that exits: 0 done, 1 the answer is no, 2 usage or configuration."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from undisclosed.cli import held, postfix, records, run
from undisclosed.cli.common import DEFAULT_CONFIG

__all__ = ["DEFAULT_CONFIG", "app", "main"]

app = typer.Typer(
    name="undisclosed",
    help="A milter for Postfix that keeps recipients' addresses out of each other's sight.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run.run)
app.command("check-config")(run.check_config)
app.command("explain")(run.explain_messages)
app.add_typer(postfix.app, name="postfix")
app.add_typer(records.journal_app, name="journal")
app.add_typer(records.app, name="incidents")
app.command()(run.steward)
app.add_typer(held.app, name="held")


def main() -> None:
    """Run the command line."""
    app()


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
