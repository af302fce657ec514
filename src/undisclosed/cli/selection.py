"""The choice of incidents: the options that every list and decision shares, and references as people type them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, get_type_hints

import typer

from undisclosed.cli.common import fail
from undisclosed.cli.output import Output, printable
from undisclosed.cli.times import local_time, parse_time

if TYPE_CHECKING:
    from undisclosed.incidents.records import Incident, State
    from undisclosed.journal.journal import Journal

MAX_MEANT: Final = 9
"""Incidents with one reference, or one beginning, that are listed where a command asks which is meant."""

NO_RULE: Final = "(none)"
"""The rule of mail that was found on hold, and that no rule holds."""

ReferenceArgument = Annotated[
    str,
    typer.Argument(
        help="The reference, or enough of its beginning to be unique. With @ and a time, as in K7QF-3M2D@14:02, where"
        " several have it.",
        metavar="REF",
    ),
]
ReferencesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="References, or enough of the beginning of each to be unique; K7QF-3M2D@14:02 where several have one."
        " Without any: all held mail that the options select.",
        metavar="[REF]...",
    ),
]
RequiredReferences = Annotated[
    list[str],
    typer.Argument(help="References, or enough of the beginning of each to be unique.", metavar="REF..."),
]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command with one option for each field of its parameters that are dataclasses, as typer wants them."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            types = get_type_hints(hints[name], include_extras=True)
            for field in fields(groups[name]):
                option = inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
                )
                parameters.append(option)
        else:
            kept = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
            parameters.append(kept)

    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True)
class Which:
    """The options that select incidents."""

    sender: Annotated[
        str | None,
        typer.Option(
            help="Only with this envelope sender; a glob such as *@schools.example will do; <> is the null sender.",
            metavar="ADDRESS",
        ),
    ] = None
    rule: Annotated[
        str | None,
        typer.Option(
            help="Only those on which this rule acted; (none): found on hold, and no rule holds them.", metavar="NAME"
        ),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(
            help="Only from this time on: a date, or a date and time, of this host's time zone unless +01:00 or the"
            " like is added; today, yesterday; or an age such as 7d or 12h.",
            metavar="TIME",
        ),
    ] = None


@dataclass(frozen=True)
class WhichHeld(Which):
    """The options that select held mail."""

    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Only mail older than this: as for --since.", metavar="TIME")
    ] = None


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
    def of(cls, which: Which, *, states: Sequence[str] = (), limit: int = 0) -> Self:
        """The filter that was typed. Exits with status 2 and a correct example."""
        now = datetime.now(UTC)
        older_than = which.older_than if isinstance(which, WhichHeld) else None
        try:
            return cls(
                sender=_given("--sender", which.sender, "<>"),
                rule=_given("--rule", which.rule, NO_RULE),
                since=None if which.since is None else parse_time(which.since, now),
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

    @property
    def hint(self) -> str:
        """A hint for a selection that matches nothing, to follow a sentence; empty if there is none."""
        if not self.sender or "@" in self.sender or "*" in self.sender:
            return ""
        return f"; --sender takes a whole address, or a glob such as {printable(self.sender)}@*"


def _given(option: str, text: str | None, empty: str) -> str | None:
    """The text of an option, or the empty one that `empty` stands for. Raises ValueError for an empty one.

    In a script it is a variable that is not set: `held delete --sender "$SENDER" --yes` would delete all bounces.
    """
    if text is not None and not text.strip():
        raise ValueError(f'{option} is empty; {option} "{empty}" selects messages without one')
    return "" if text == empty else text


def parse_state(text: str) -> State:
    """A state as people type it: with dashes or blanks, in any case. Raises ValueError."""
    from undisclosed.incidents.records import State

    known = {state.value.casefold().replace(" ", "-"): state for state in State}
    try:
        return known[text.strip().casefold().replace(" ", "-").replace("_", "-")]
    except KeyError:
        raise ValueError(f"{text!r} is not a state: write one of {', '.join(known)}") from None


def held(journal: Journal, selection: Filter) -> list[Incident]:
    """The incidents with a held copy, the newest first. Raises JournalError."""
    from undisclosed.incidents.records import OPEN

    found = journal.incidents.search(sender=selection.sender, rule=selection.rule, since=selection.since, states=OPEN)
    return [incident for incident in found if selection.before is None or incident.at < selection.before]


def find_all(journal: Journal, references: Sequence[str], output: Output) -> list[Incident]:
    """The incidents with these references, each once. Exits as `find` does; raises JournalError."""
    return list({incident.id: incident for incident in (find(journal, text, output) for text in references)}.values())


def find(journal: Journal, text: str, output: Output) -> Incident:
    """The incident with this reference, or the beginning of one, and after an @ (a part of) its time.

    Asks which is meant if there are several and there is a terminal. Exits with status 1 if there is none, and names
    the nearest held ones; with status 2 if there are several. Raises JournalError.
    """
    reference, _, when = text.partition("@")
    found = journal.incidents.matching(reference)
    if not found:
        fail(f"no incident has the reference {printable(text)}, or one that begins so{_nearest(journal, reference)}", 1)
    meant = [incident for incident in found if when.replace("T", " ") in local_time(incident.at, "seconds")]
    return meant[0] if len(meant) == 1 else _asked_which(text, meant or found, output)


def _nearest(journal: Journal, reference: str) -> str:
    from undisclosed.incidents.heard import nearest

    by_reference = {incident.reference: incident for incident in held(journal, Filter())}
    near = [by_reference[each] for each in nearest(reference, by_reference)]
    return "".join(f"\n  held, and like it: {_described(incident)}" for incident in near)


def _asked_which(text: str, found: Sequence[Incident], output: Output) -> Incident:
    shown = found[:MAX_MEANT]
    lines = [f"  {number}  {_described(incident)}" for number, incident in enumerate(shown, 1)]
    more = [f"     and {len(found) - len(shown)} more"] if len(found) > len(shown) else []
    what = f"several incidents have the reference {printable(text)}, or one that begins so:"
    listed = "\n".join([what, *lines, *more])
    if not output.may_ask:
        example = f"{shown[0].reference}@{shown[0].at.astimezone():%Y-%m-%dT%H:%M:%S}"
        fail(f"{listed}\n  write more of the reference, or its time after an @: {example}")
    output.error(f"undisclosed: {listed}")
    answer = output.ask(f"Which one (1 to {len(shown)})? ")
    if answer not in map(str, range(1, len(shown) + 1)):
        fail("none was chosen, and nothing was done", 1)
    return shown[int(answer) - 1]


def _described(incident: Incident) -> str:
    subject = f"  {printable(incident.subject)[:40]}" if incident.subject else ""
    when = local_time(incident.at, "seconds")
    return f"{incident.reference}  {when}  {incident.state}  {printable(incident.sender) or '<>'}{subject}"
