"""Code shared by the commands: help, options of all, the journal, and how a command ends with an error.

Slow imports come when a command runs: `undisclosed --help` must answer at once.
"""

from __future__ import annotations

import os
import select
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from undisclosed.cli.output import Output, printable

if TYPE_CHECKING:
    from undisclosed.journal.journal import Journal

DEFAULT_CONFIG = Path("/etc/undisclosed/config.toml")

CLOSED_PIPE: Final = 141
"""Exit status after a closed pipe: 128 + SIGPIPE, the value that shells report."""

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", envvar="UNDISCLOSED_CONFIG", help="The configuration file.", metavar="FILE", readable=False
    ),  # readable=False: config/ says more about a file that cannot be read than typer does
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


class Command(TyperCommand):
    """A command whose help names an argument as people do: `REF`, and not `{REF}` or `REF <str>`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments. The error about one too many names the option that a file was probably meant for."""
        ctx.allow_extra_args = True
        extra = super().parse_args(ctx, args)
        if extra:
            takes_file = any(param.name == "config_file" for param in self.get_params(ctx))
            hint = "; name a configuration by --config FILE" if takes_file else ""
            ctx.fail(f"This command takes no {printable(' '.join(extra))}{hint}.")
        return extra

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The options and arguments of the usage line."""
        return ["[OPTIONS]", *(name for name, _ in self._arguments(ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options with their help."""
        if arguments := self._arguments(ctx):
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        options = [param.get_help_record(ctx) for param in self.get_params(ctx) if param.param_type_name == "option"]
        with formatter.section("Options"):
            formatter.write_dl([record for record in options if record])

    def _arguments(self, ctx: Any) -> list[tuple[str, str]]:
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return [(str(argument.metavar), str(getattr(argument, "help", ""))) for argument in arguments]


class Group(TyperGroup):
    """Commands that end quietly when their output is closed, as by `| head -1`; `help COMMAND` is `COMMAND --help`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the name of the command."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        if args and args[0].partition("=")[0] == "--config":
            ctx.fail("--config follows the command: undisclosed check-config --config FILE")
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the command line, and write help and version where they are asked for."""
        try:
            return super().make_context(*args, **options)
        except BrokenPipeError as error:
            _end_on_closed_output(error)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. A closed pipe is neither an error of the command (2) nor the answer no (1)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            _end_on_closed_output(error)


def _end_on_closed_output(error: BrokenPipeError) -> NoReturn:
    """End quietly if standard output or error broke; a service has other pipes, whose errors typer would hide."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # no file behind it
            poll.register(stream.fileno(), 0)
    if poll.poll(0):  # POLLERR: the reading end is closed
        raise typer.Exit(CLOSED_PIPE) from None
    raise RuntimeError("the other end of a pipe or socket was closed") from error


def group(**options: Any) -> typer.Typer:
    """A group of commands; its help is plain text, and fits 80 columns."""
    return typer.Typer(
        cls=Group,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        **options,
    )


def fail(message: object, status: int = 2) -> NoReturn:
    """Write the error to standard error, and exit."""
    Output(sys.stdout, sys.stderr).error(f"undisclosed: {message}")
    raise typer.Exit(status)


@contextmanager
def exit_on_config_error() -> Iterator[None]:
    """Exit with status 2 and the error's own words when the configuration cannot be used.

    A file that the user may not read is never to be given to that user: the milter could not read it any more.
    """
    from undisclosed.config.errors import ConfigError, NotPermittedError

    try:
        yield
    except NotPermittedError as error:
        problem = error.problems[0]
        fail(f"{problem.file} {problem.problem}\n  {as_root()}" if os.geteuid() else error)
    except ConfigError as error:
        fail(error)


def as_root() -> str:
    """The advice to run the same command as root, with what was typed."""
    return f"run the command as root: sudo undisclosed {shlex.join(sys.argv[1:])}"


@contextmanager
def opened_journal(config_file: Path) -> Iterator[Journal]:
    """The journal that the configuration names. Exits with status 2 when it cannot be used."""
    from undisclosed.config.key_file import read_key
    from undisclosed.config.load import load
    from undisclosed.incidents.records import JournalError
    from undisclosed.journal.journal import Journal

    with exit_on_config_error():
        policy = load(config_file)
        journal = Journal(policy.journal, read_key(policy, create=False))
    try:
        yield journal
    except JournalError as error:
        fail(error)
    finally:
        journal.close()


def parse_limit(text: str) -> int:
    """A number of incidents."""
    return _parse_number(text, 0, "write a whole number, such as 100, or 0 for all")


def parse_pid(text: str) -> int:
    """A process id other than that of init."""
    return _parse_number(text, 2, "write the process id of the service")


def _parse_number(text: str, minimum: int, remedy: str) -> int:
    """A whole number. typer's own check of numbers answers in pydantic's words."""
    number = str(text)  # typer hands over a default as it is
    if not (number.isascii() and number.isdecimal() and len(number) < 10 and int(number) >= minimum):
        raise typer.BadParameter(remedy)
    return int(number)
