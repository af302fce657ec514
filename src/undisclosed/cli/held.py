"""`undisclosed held list | show | release | delete | keep | withdraw`."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, cast, get_args

import typer

from undisclosed.cli import decisions, incidents
from undisclosed.cli.common import DEFAULT_CONFIG, Command, ConfigOption, JsonOption, fail, group, opened_journal
from undisclosed.cli.decisions import Order
from undisclosed.cli.output import Column, Output, Table, printable
from undisclosed.cli.selection import (
    NO_RULE,
    Filter,
    ReferenceArgument,
    ReferencesArgument,
    RequiredReferences,
    WhichHeld,
    find_all,
    held,
    spread,
)
from undisclosed.cli.times import local_time

if TYPE_CHECKING:
    from undisclosed.incidents.records import Incident, ReleaseMode
    from undisclosed.journal.journal import Journal

app = group(help="Held mail: list it, release it, delete it, keep it.")

FAR: Final = datetime.max.replace(tzinfo=UTC)
"""The end of a copy that does not end by itself."""

WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the steward has answered.")]


def _parse_mode(text: str) -> str:
    """A release mode. typer's own check of a choice answers in pydantic's words."""
    from undisclosed.incidents.records import ReleaseMode

    if text not in get_args(ReleaseMode):
        raise typer.BadParameter(f"write one of {', '.join(get_args(ReleaseMode))}")
    return text


@dataclass(frozen=True)
class How:
    """The options of a decision."""

    config_file: ConfigOption = DEFAULT_CONFIG
    reason: Annotated[str, typer.Option(help="Why; it is recorded.", metavar="TEXT")] = ""
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Needed where there is no terminal.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen to which messages.")] = False
    as_json: JsonOption = False


@app.command("list", cls=Command)
@spread
def list_held(which: WhichHeld, config_file: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List held mail, the newest first.

    On a terminal the table fits its width. Elsewhere each message is one line of tab-separated columns, below a line
    with their names. Times are those of this host's time zone; in JSON they are UTC.
    """
    selection = Filter.of(which)
    with opened_journal(config_file) as journal:
        show_list(journal, selection, Output(sys.stdout, sys.stderr, as_json))


@app.command("show", cls=Command)
def show_held(
    reference: ReferenceArgument, config_file: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Show one held message, its copies, and who did what.

    Exit status 1 if there is no message with that reference.
    """
    incidents.show(reference, config_file, as_json)


@app.command("release", cls=Command)
@spread
def release_held(
    mode: Annotated[
        str,
        typer.Option(
            "--as",
            parser=_parse_mode,
            help="bcc: with the external recipients hidden; split: a separate message to each external recipient;"
            " unchanged: as it is, for everyone who gets it to read; needs --reason.",
            metavar="bcc|split|unchanged",
        ),
    ],
    which: WhichHeld,
    how: How,
    references: ReferencesArgument = None,
    wait: WaitOption = True,
) -> None:
    """Deliver held mail.

    Asks before more than one message is released, or one is unchanged. Exit status 1 unless all of it was delivered.
    """
    if mode == "unchanged" and not how.reason.strip():
        fail("--as unchanged needs --reason: everyone who gets the message can read its list of addresses")
    order = Order("release", cast("ReleaseMode", mode), how.reason, user(), how.yes, how.dry_run, wait)
    _decide(references, which, how, order)


@app.command("delete", cls=Command)
@spread
def delete_held(which: WhichHeld, how: How, references: ReferencesArgument = None, wait: WaitOption = True) -> None:
    """Delete held mail.

    Asks before. Exit status 1 unless all of it was deleted.
    """
    _decide(references, which, how, Order("delete", None, how.reason, user(), how.yes, how.dry_run, wait))


@app.command("keep", cls=Command)
@spread
def keep_held(which: WhichHeld, how: How, references: ReferencesArgument = None) -> None:
    """Keep delayed or split mail on hold until someone decides.

    Asks before more than one message is kept. Exit status 1 if the release of any has begun.
    """
    _decide(references, which, how, Order("keep", None, how.reason, user(), how.yes, how.dry_run))


@app.command("withdraw", cls=Command)
@spread
def withdraw_request(references: RequiredReferences, how: How) -> None:
    """Take back a request that is not carried out yet.

    The message stays on hold until someone decides. Exit status 1 if there was nothing to take back.
    """
    _decide(references, WhichHeld(), how, Order("withdraw", None, how.reason, user(), how.yes, how.dry_run))


def _decide(references: list[str] | None, which: WhichHeld, how: How, order: Order) -> None:
    selection = Filter.of(which)
    if bool(references) is not selection.is_empty:
        fail("give references, or select by options such as --sender, and not both")
    output = Output(sys.stdout, sys.stderr, how.as_json, sys.stdin)
    with opened_journal(how.config_file) as journal:
        selected = find_all(journal, references, output) if references else held(journal, selection)
        if not selected:
            fail(f"nothing that is held matches{selection.hint}", 1)
        done = decisions.decide(journal, selected, order, output)
    if not done:
        raise typer.Exit(1)


def user() -> str:
    """The Unix user who runs the command; under sudo(8) the one who called it."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    caller = os.environ.get("SUDO_USER", "")
    return f"{printable(caller)[:64]} (as root)" if uid == 0 and caller else name


def show_list(journal: Journal, selection: Filter, output: Output) -> None:
    """Write the list of held mail, and before it which stewards are away. Raises JournalError."""
    found = held(journal, selection)
    decisions.write_unseen_stewards(journal, found, output, everywhere=True)
    if output.json:
        for line in incidents.json_lines(journal, found):
            output.line(line)
    elif found:
        output.table(_table(found))
    else:
        output.line("nothing is held" if selection.is_empty else f"nothing that is held matches{selection.hint}")


def _table(found: Iterable[Incident]) -> Table:
    columns = (
        Column("reference"),
        Column("held since"),
        Column("state"),
        Column("ends"),
        Column("visible", right=True),
        Column("rcpts", right=True),
        Column("sender"),
        Column("rule", "cut"),
        Column("subject", "cut"),
    )
    now = datetime.now(UTC)
    rows = []
    for incident in found:
        copies = [copy for copy in incident.copies if copy.is_open]
        soonest = min(copies, key=lambda copy: copy.leaves or copy.until or FAR)
        row = (
            incident.reference,
            local_time(incident.at),
            incidents.state_of(soonest),
            incidents.end_of(soonest, now),
            str(incident.count),
            str(sum(copy.recipients for copy in copies if copy.repeat_of is None)),
            incident.sender or "<>",
            incident.leading.rule or NO_RULE,
            incident.subject or "",
        )
        rows.append(row)
    return Table(columns, rows, head=6)
