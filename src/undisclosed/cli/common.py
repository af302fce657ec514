"""Code shared by the commands: options, the choice of incidents, help, and how a command ends with an error.

Slow imports come when a command runs: `undisclosed --help` must answer at once.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, Self

import typer
from typer.core import TyperCommand, TyperGroup

from undisclosed.cli.output import printable

if TYPE_CHECKING:
    from undisclosed.incidents.records import State
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
SenderOption = Annotated[
    str | None,
    typer.Option(help="Only with this envelope sender; a glob such as *@schools.example will do.", metavar="ADDRESS"),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        help="Only from this time on: a date, a date and time (of this host's time zone, unless +01:00 or the like is"
        " added), today, yesterday, or an age such as 7d or 12h.",
        metavar="TIME",
    ),
]
ReferenceArgument = Annotated[
    str, typer.Argument(help="The reference, or enough of its beginning to be unique.", metavar="REF")
]

_DAYS_AGO: Final = {"today": 0, "yesterday": 1}
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


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
    typer.echo(f"undisclosed: {message}", err=True)
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


@dataclass(frozen=True, slots=True)
class Filter:
    """A selection of incidents. `since` is inclusive, `before` is not; None means any."""

    sender: str | None = None
    rule: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    states: tuple[State, ...] | None = None
    limit: int | None = None

    @classmethod
    def from_options(
        cls,
        *,
        sender: str | None,
        rule: str | None,
        since: str | None,
        older_than: str | None = None,
        states: Sequence[str] = (),
        limit: int = 0,
    ) -> Self:
        """The filter that was typed. Exits with status 2 and a correct example."""
        now = datetime.now(UTC)
        try:
            return cls(
                sender=sender,
                rule=rule,
                since=None if since is None else parse_time(since, now),
                before=None if older_than is None else parse_time(older_than, now),
                states=tuple(map(parse_state, states)) or None,
                limit=limit or None,
            )
        except ValueError as error:
            fail(error)

    @property
    def is_empty(self) -> bool:
        """Whether every incident is meant."""
        return self == Filter()


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


def parse_time(text: str, now: datetime) -> datetime:
    """A date, a date and time (local unless it has an offset), `today`, `yesterday` or an age. Raises ValueError."""
    if (days := _DAYS_AGO.get(text.strip().casefold())) is not None:
        day = now.astimezone().date() - timedelta(days=days)
        return datetime(day.year, day.month, day.day).astimezone(UTC)
    if match := re.fullmatch(r"([0-9]{1,6}) ?([mhdw])", text.strip()):
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except ValueError:
        raise ValueError(f'{text!r} is not a time: write "today", "2026-03-01", "2026-03-01 14:30" or "7d"') from None


def parse_state(text: str) -> State:
    """A state as people type it: with dashes or blanks, in any case. Raises ValueError."""
    from undisclosed.incidents.records import State

    try:
        return State(text.strip().lower().replace("-", " ").replace("_", " "))
    except ValueError:
        known = ", ".join(state.value.replace(" ", "-") for state in State)
        raise ValueError(f"{text!r} is not a state: write one of {known}") from None


def local_time(moment: datetime | None) -> str:
    """A time as this host's clock shows it, to the minute; "-" where there is none."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")
