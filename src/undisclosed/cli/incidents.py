"""`undisclosed incidents list | show`: the incidents of the journal, as tables, JSON or CSV."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from undisclosed.cli.common import (
    DEFAULT_CONFIG,
    Command,
    ConfigOption,
    Filter,
    JsonOption,
    ReferenceArgument,
    SenderOption,
    SinceOption,
    fail,
    group,
    local_time,
    opened_journal,
    parse_limit,
)
from undisclosed.cli.output import Column, Fact, Output, Table, csv_cell

if TYPE_CHECKING:
    from undisclosed.incidents.records import Event, Incident
    from undisclosed.journal.journal import Journal

app = group(help="Incidents: the messages on which a rule acted.")

CSV_COLUMNS: Final = (
    "reference", "at", "state", "action", "rule", "sender", "count", "organisations", "recipients", "subject",
)  # fmt: skip

Form = Literal["table", "json", "csv"]


@app.command("list", cls=Command)
def list_incidents(
    config_file: ConfigOption = DEFAULT_CONFIG,
    sender: SenderOption = None,
    rule: Annotated[str | None, typer.Option(help="Only those on which this rule acted.", metavar="NAME")] = None,
    since: SinceOption = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only in this state; may be given several times.", metavar="STATE")
    ] = None,
    limit: Annotated[
        int, typer.Option(parser=parse_limit, help="At most so many, the newest first; 0: all.", metavar="NUMBER")
    ] = 100,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for a spreadsheet.")] = False,
) -> None:
    """List incidents, the newest first.

    On a terminal the table fits its width. Elsewhere each incident is one line of tab-separated columns, below a line
    with their names.
    """
    selection = Filter.from_options(sender=sender, rule=rule, since=since, states=state or [], limit=limit)
    form: Form = "json" if as_json else "csv" if as_csv else "table"
    with opened_journal(config_file) as journal:
        show_list(journal, selection, form, Output(sys.stdout, sys.stderr, as_json))


@app.command("show", cls=Command)
def show_incident(
    reference: ReferenceArgument, config_file: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Show one incident, its copies, and who did what.

    Exit status 1 if there is no incident with that reference.
    """
    show(reference, config_file, as_json)


def show(reference: str, config_file: Path, as_json: bool) -> None:
    """Print the incident, for `incidents show` and `held show`."""
    from undisclosed.incidents.records import AmbiguousError, NotFoundError

    with opened_journal(config_file) as journal:
        try:
            show_one(journal, reference, Output(sys.stdout, sys.stderr, as_json))
        except NotFoundError as error:
            fail(error, 1)
        except AmbiguousError as error:
            fail(error)


def show_list(journal: Journal, selection: Filter, form: Form, output: Output) -> None:
    """Write the selected incidents, the newest first. Raises JournalError."""
    found = journal.incidents.search(
        sender=selection.sender,
        rule=selection.rule,
        since=selection.since,
        states=selection.states,
        limit=selection.limit,
    )
    if form == "json":
        for incident in found:
            output.line(json_line(incident))
    elif form == "csv":
        lines = csv.writer(output.out)
        lines.writerow(CSV_COLUMNS)
        lines.writerows([csv_cell(text) for text in _csv_row(incident)] for incident in found)
    elif not found:
        output.line("no incidents")
    else:
        output.table(_incident_table(found))
        if len(found) == selection.limit:
            output.err.write(f"The newest {len(found)} are shown; --limit 0 shows all.\n")


def show_one(journal: Journal, reference: str, output: Output) -> None:
    """Write one incident with its copies and events. Raises NotFoundError, AmbiguousError, JournalError."""
    incident = journal.incidents.find(reference)
    events = journal.incidents.events(incident.id)
    if output.json:
        output.line(json_line(incident, events))
        return
    output.facts(_facts(incident))
    output.line("")
    output.line("Copies", "bold")
    output.table(_copy_table(incident))
    output.line("")
    output.line("Events", "bold")
    output.table(_event_table(incident, events))


def json_line(incident: Incident, events: Iterable[Event] | None = None) -> str:
    """One line of JSON, in ASCII."""
    leading = incident.leading
    content = dataclasses.asdict(incident) | {
        "state": incident.state.value,
        "rule": leading.rule,
        "action": leading.action.value,
        "reason": leading.reason,
        "obstacle": leading.obstacle,
        "adopted": incident.adopted,
    }
    if events is not None:
        content["events"] = [dataclasses.asdict(event) for event in events]
    return json.dumps(content, default=_json_value)


def _json_value(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _csv_row(incident: Incident) -> list[str]:
    return [
        incident.reference,
        local_time(incident.at),
        incident.state.value,
        incident.leading.action.value,
        incident.leading.rule,
        incident.sender or "<>",
        str(incident.count),
        str(incident.organisations),
        str(incident.recipients),
        incident.subject or "",
    ]


def _incident_table(incidents: Iterable[Incident]) -> Table:
    columns = (
        Column("reference"),
        Column("when"),
        Column("state"),
        Column("action"),
        Column("visible", right=True),
        Column("orgs", right=True),
        Column("rcpts", right=True),
        Column("sender"),
        Column("rule", "cut"),
        Column("subject", "cut"),
    )
    rows = []
    for incident in incidents:
        reference, when, state, action, rule, sender, count, organisations, recipients, subject = _csv_row(incident)
        rows.append((reference, when, state, action, count, organisations, recipients, sender, rule, subject))
    return Table(columns, rows, head=7)


def _facts(incident: Incident) -> Iterator[Fact]:
    leading = incident.leading
    per_field = ", ".join(f"{name} {count}" for name, count in incident.per_field.items())
    visible = (
        f"{incident.count} external addresses of {incident.organisations} organisations,"
        f" {incident.named} with a person's name"
    )
    yield Fact("reference", [incident.reference])
    yield Fact("when", [local_time(incident.at)])
    yield Fact("state", [incident.state.value])
    yield Fact("sender", [incident.sender or "<>"])
    yield Fact("subject", [incident.subject or "(not recorded)"])
    yield Fact("Message-ID", [incident.message_id or "(none)"])
    yield Fact("rule", [f"{leading.rule or '(none)'}: {leading.action.value}"])
    yield Fact("reason", [leading.reason] if leading.reason else [])
    yield Fact("not rewritten", [leading.obstacle] if leading.obstacle else [])
    yield Fact("visible", [f"{visible} ({per_field})" if per_field else visible])
    if incident.automatic:
        yield Fact("notices", [f"none: the message is automatic ({incident.automatic})"])


def _copy_table(incident: Incident) -> Table:
    columns = (
        Column("queue id"),
        Column("state"),
        Column("arrived"),
        Column("until"),
        Column("rcpts", right=True),
        Column("gateway"),
        Column("client"),
    )
    rows = [
        (
            copy.queue_id,
            copy.state.value,
            local_time(copy.arrived),
            local_time(copy.until),
            str(copy.recipients),
            copy.gateway,
            copy.client or "unknown",
        )
        for copy in incident.copies
    ]
    return Table(columns, rows, head=5)


def _event_table(incident: Incident, events: Iterable[Event]) -> Table:
    columns = (Column("when"), Column("queue id"), Column("who"), Column("what"), Column("why", "wrap"))
    queue_ids = {copy.id: copy.queue_id for copy in incident.copies}
    rows = [
        (local_time(event.at), queue_ids.get(event.copy_id or 0, "-"), event.actor, event.what, event.why)
        for event in events
    ]
    return Table(columns, rows, head=4)
