"""What the commands share: options, and the one way to end with an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from undisclosed.config.errors import ConfigError
from undisclosed.config.key_file import read_key
from undisclosed.config.load import load

if TYPE_CHECKING:
    from undisclosed.journal.journal import Journal

DEFAULT_CONFIG = Path("/etc/undisclosed/config.toml")

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", envvar="UNDISCLOSED_CONFIG", help="The configuration file.", metavar="FILE", readable=False
    ),  # readable=False: what is wrong with the file, config.py says better than the command line's library
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
SenderOption = Annotated[
    str | None, typer.Option(help="Of this envelope sender, or of all that a glob such as *@schools.example names.")
]
SinceOption = Annotated[
    str | None, typer.Option(help="Not older than this: a date, a date and time, or an age such as 7d or 12h.")
]


def fail(message: object, status: int = 2) -> NoReturn:
    """Say what is wrong on standard error, and exit."""
    typer.echo(f"undisclosed: {message}", err=True)
    raise typer.Exit(status)


@contextmanager
def told() -> Iterator[None]:
    """Tell what is wrong with the configuration in its own words, and end with status 2."""
    try:
        yield
    except ConfigError as error:
        fail(error)


@contextmanager
def opened_journal(config_file: Path, *, create_key: bool = False) -> Iterator[Journal]:
    """The journal that the configuration names; what is wrong with it is told, and ends with status 2."""
    from undisclosed.incidents.records import JournalError
    from undisclosed.journal.journal import Journal

    with told():
        policy = load(config_file)
        journal = Journal(policy.journal, read_key(policy, create=create_key))
    try:
        yield journal
    except JournalError as error:
        fail(error)
    finally:
        journal.close()
