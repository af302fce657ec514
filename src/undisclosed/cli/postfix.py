"""`postfix attach | detach | status`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from undisclosed.cli.common import DEFAULT_CONFIG, ConfigOption, fail, told
from undisclosed.config.load import load

app = typer.Typer(no_args_is_help=True, help="Attach the milter to Postfix, detach it, see what is in place.")

ConfigDirOption = Annotated[
    Path | None,
    typer.Option(
        "--config-dir", help="Postfix's configuration directory, instead of postfix.config_dir.", metavar="DIR"
    ),
]


@contextmanager
def _postfix_told() -> Iterator[None]:
    from undisclosed.postfix import PostfixError

    try:
        yield
    except PostfixError as error:
        fail(error)


DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the difference, and change nothing.")]


@app.command()
def attach(
    config_file: ConfigOption = DEFAULT_CONFIG, config_dir: ConfigDirOption = None, dry_run: DryRunOption = False
) -> None:
    """Put the milter first in Postfix's lists of milters, for SMTP and for sendmail(1)."""
    from undisclosed import postfix

    with told(), _postfix_told():
        policy = load(config_file)
        typer.echo(str(postfix.attach(policy, config_dir or policy.postfix.config_dir, dry_run)))


@app.command()
def detach(
    config_file: ConfigOption = DEFAULT_CONFIG, config_dir: ConfigDirOption = None, dry_run: DryRunOption = False
) -> None:
    """Take back what attach added and nobody has changed since."""
    from undisclosed import postfix

    with told(), _postfix_told():
        policy = load(config_file)
        typer.echo(str(postfix.detach(policy, config_dir or policy.postfix.config_dir, dry_run)))


@app.command()
def status(config_file: ConfigOption = DEFAULT_CONFIG, config_dir: ConfigDirOption = None) -> None:
    """Say what is in place and what is not. Exit status 1 if mail can pass the milter by."""
    from undisclosed import postfix
    from undisclosed.postfix import Level

    with told(), _postfix_told():
        policy = load(config_file)
        findings = postfix.status(policy, config_dir or policy.postfix.config_dir)
    for finding in findings:
        typer.echo(str(finding))
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)
