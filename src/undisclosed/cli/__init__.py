"""The commands: they read options, call the other rooms, and write what a person or a program reads.

The only room that exits: 0 done, 1 the answer is no, 2 usage or configuration. May import every room; none imports it.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from undisclosed.cli import explain, held, incidents, journal, postfix, run
from undisclosed.cli.common import CLOSED_PIPE, DEFAULT_CONFIG, Command, group

__all__ = ["DEFAULT_CONFIG", "app", "main"]

app = group(name="undisclosed", help="A milter for Postfix that keeps recipients' addresses out of each other's sight.")
app.command(cls=Command)(run.run)
app.command("check-config", cls=Command)(run.check_config)
app.command("explain", cls=Command)(explain.explain_messages)
app.add_typer(postfix.app, name="postfix")
app.add_typer(journal.app, name="journal")
app.add_typer(incidents.app, name="incidents")
app.command(cls=Command)(run.steward)
app.command(hidden=True, cls=Command)(run.reload)
app.add_typer(held.app, name="held")


def main() -> None:
    """Run the command line. A closed standard output or error ends it quietly, also where it closes at the very end."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # the interpreter flushes once more as it ends
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        sys.exit(CLOSED_PIPE)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"undisclosed {version('undisclosed')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
