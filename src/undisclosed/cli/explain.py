"""`undisclosed explain`: saved messages in, verdicts out, as tables or as JSON.

Not imported while a message passes; rich is imported only where a table or a progress bar is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

from undisclosed.cli.output import visible
from undisclosed.explain import explanation, message_file
from undisclosed.explain.explanation import Explained
from undisclosed.policy import Action, Mode, Policy

if TYPE_CHECKING:
    from rich.table import Table

DONE: Final = 0
STOPPED: Final = 1
FAILED: Final = 2

MOST_ADDRESSES: Final = 20
"""Addresses that a table names; --json names all."""

MOST_TEXT: Final = 500
"""Characters of a header field that a table shows of a rewrite."""

PLAIN_WIDTH: Final = 130
"""Characters of a table's line where the output is no terminal: a reply line (100) is not broken."""


def run(
    policy: Policy,
    key: bytes | None,
    files: Sequence[str],
    envelope: message_file.Envelope,
    *,
    as_json: bool,
    stdin: BinaryIO,
    out: TextIO,
    err: TextIO,
) -> int:
    """Explain each file, one after the other, and return the exit status.

    0: none would be stopped; 1: at least one would be (rejected or quarantined; in monitor mode too, since the policy
    is what is asked about); 2: at least one could not be read, whatever became of the others.
    """
    for stream in (out, err):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to stop halfway
    show = _json_lines(out) if as_json else _tables(out)
    status = DONE
    with _progress(files, out, err) as counted:
        for file in counted:
            try:
                message = message_file.read(file, message_file.content(file, stdin), envelope)
            except message_file.SavedMessageError as error:
                err.write(f"undisclosed: {visible(str(error))}\n")
                status = FAILED
                continue
            explained = explanation.verdict(policy, key, message)
            show(explained)
            if explained.would_be_stopped:
                status = max(status, STOPPED)
    return status


def _json_lines(out: TextIO) -> Callable[[Explained], None]:
    def show(explained: Explained) -> None:
        out.write(explanation.as_json(explained) + "\n")

    return show


def _tables(out: TextIO) -> Callable[[Explained], None]:
    from rich.console import Console

    width = None if out.isatty() else PLAIN_WIDTH
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)

    def show(explained: Explained) -> None:
        console.print(_table(explained))

    return show


@contextmanager
def _progress(files: Sequence[str], out: TextIO, err: TextIO) -> Iterator[Iterable[str]]:
    """The files, with a bar on a terminal's standard error, where the verdicts themselves go elsewhere."""
    if len(files) < 2 or not err.isatty() or out.isatty():
        yield files
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=err), transient=True) as progress:
        yield progress.track(files)


_EFFECTS: Final = {
    Action.ACCEPT: ("green", "delivered as it is"),
    Action.WARN: ("yellow", "delivered as it is"),
    Action.REWRITE: ("yellow", "delivered with the addresses hidden, as shown below"),
    Action.SPLIT: ("yellow", "delivered to each recipient alone"),
    Action.DELAY: ("yellow", "held for a while, then delivered with the addresses hidden"),
    Action.QUARANTINE: ("red", "held in Postfix's hold queue until somebody decides"),
    Action.REJECT: ("red", "refused, with the reply below"),
}
"""What each action means, and its colour."""

_MONITORED: Final = "only recorded: in monitor mode it is delivered unchanged"


def _table(explained: Explained) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    colour, effect = _EFFECTS[Action(explained.action)]
    if explained.mode == Mode.MONITOR and explained.action != Action.ACCEPT:
        effect = _MONITORED
    table = Table(title=Text(visible(explained.file)), title_justify="left", box=box.ROUNDED, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("action", Text(explained.action, style=f"bold {colour}") + Text(f" - {effect}", style=""))
    for label, lines in _rows(explained):
        if lines:
            table.add_row(label, Text("\n".join(map(visible, lines))))
    return table


def _rows(explained: Explained) -> Iterator[tuple[str, Sequence[str]]]:
    """What stands below the action: each label with its lines; none where it does not apply."""
    yield "from", [f"{explained.sender or '<>'}, to {_number(explained.recipients, 'recipient')}"]
    if explained.rule is not None:
        yield "rule", [explained.rule]
    yield "because", [explained.reason] + ([f"not rewritten: {explained.obstacle}"] if explained.obstacle else [])
    if explained.scope == "outgoing":
        yield "in sight", [_in_sight(explained)]
    yield "in fields", [", ".join(f"{name.title()} {count}" for name, count in explained.per_field.items())]
    yield "reference", [explained.reference] if explained.reference else []
    yield "reply", (explained.reply or "").splitlines()
    yield "header now", [_short(field) for field in explained.before]
    yield "header then", [_short(field) for field in explained.after]
    rest = explained.count - MOST_ADDRESSES
    named = ", ".join(explained.visible_external[:MOST_ADDRESSES])
    yield "outside", [f"{named} and {rest} more" if rest > 0 else named] if named else []
    yield "note", explained.remarks


def _in_sight(explained: Explained) -> str:
    text = f"{_number(explained.count, 'outside address', 'outside addresses')}"
    if explained.count:
        text += f" of {_number(explained.organisations, 'organisation')}"
    return f"{text}; not counted: {explained.partner} of partners, {explained.internal} internal"


def _number(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _short(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}... ({len(text)} characters)"
