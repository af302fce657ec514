"""`undisclosed incidents list | show`: the incidents of the journal, as tables, JSON or CSV."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import typer

from undisclosed.cli.common import (
    DEFAULT_CONFIG,
    Command,
    ConfigOption,
    JsonOption,
    group,
    opened_journal,
    parse_limit,
)
from undisclosed.cli.output import Column, Fact, Output, Table, csv_cell
from undisclosed.cli.selection import NO_RULE, Filter, ReferenceArgument, Which, find, spread
from undisclosed.cli.times import local_time, near_time, utc_time

if TYPE_CHECKING:
    from undisclosed.incidents.records import Event, Incident, QueueCopy
    from undisclosed.incidents.shown import Shown
    from undisclosed.journal.journal import Journal

app = group(help="Incidents: the messages on which a rule acted.")

CSV_COLUMNS: Final = (
    "reference", "at_utc", "state", "action", "rule", "sender", "count", "organisations", "named", "recipients",
    "shown", "shown_words", "ended_at_utc", "ended_by", "message_id", "subject",
)  # fmt: skip
"""Named in docs/held-mail.md; `shown` is the number of recipients who saw the list."""

Form = Literal["table", "json", "csv"]


@app.command("list", cls=Command)
@spread
def list_incidents(
    which: Which,
    config_file: ConfigOption = DEFAULT_CONFIG,
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
    with their names. "shown" is the number of recipients who saw the list. Times are those of this host's time zone; in
    JSON and CSV they are UTC.
    """
    selection = Filter.of(which, states=state or [], limit=limit)
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
    output = Output(sys.stdout, sys.stderr, as_json, sys.stdin)
    with opened_journal(config_file) as journal:
        show_one(journal, find(journal, reference, output), output)


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
        for line in json_lines(journal, found):
            output.line(line)
    elif form == "csv":
        lines = csv.writer(output.out)
        lines.writerow(CSV_COLUMNS)
        for incident, end in _with_ends(journal, found):
            lines.writerow([csv_cell(text) for text in _csv_row(incident, end)])
    elif not found:
        output.line(f"no incidents{selection.hint}")
    else:
        output.table(_incident_table(_with_ends(journal, found)))
        if len(found) == selection.limit:
            output.error(f"The newest {len(found)} are shown; --limit 0 shows all.")


def show_one(journal: Journal, incident: Incident, output: Output) -> None:
    """Write one incident with its copies and events. Raises JournalError."""
    events = journal.incidents.events(incident.id)
    [(_, end)] = _with_ends(journal, [incident])
    if output.json:
        output.line(_json_line(incident, end, events))
        return
    output.facts(_facts(incident, end))
    output.line("")
    output.line("Copies", "bold")
    output.table(_copy_table(incident, {each.id: each.name or each.id for each in journal.gateways.all().values()}))
    output.line("")
    output.line("Events", "bold")
    output.table(_event_table(incident, events))


# -- the end of an incident --------------------------------------------------------------------------------------------


class End(NamedTuple):
    """The columns on who saw the list of an incident, and on the end of its hold: time and person."""

    shown: Shown
    event: Event | None

    @property
    def at(self) -> datetime | None:
        """The time at which the last copy was released, deleted or lost."""
        return self.event.at if self.event else None

    @property
    def by(self) -> str:
        """The person, or the steward, who did it; `hand` past the steward; empty while it is held, or if not known."""
        return _BY_HAND.get(self.event.what, self.event.actor) if self.event else ""


_BY_HAND: Final = {"released by hand": "hand", "deleted by hand": "hand", "gone": ""}
"""Ends that the steward only recorded."""


def _with_ends(journal: Journal, incidents: Sequence[Incident]) -> Iterator[tuple[Incident, End]]:
    from undisclosed.incidents.shown import shown

    copies = [copy.id for incident in incidents for copy in incident.copies]
    parts, endings = journal.incidents.accepted_parts(copies), journal.incidents.endings(copies)
    for incident in incidents:
        ended = [endings[copy.id] for copy in incident.copies if copy.id in endings]
        is_open = any(copy.is_open for copy in incident.copies)
        event = None if is_open else max(ended, key=lambda event: event.at, default=None)
        yield incident, End(shown(incident.copies, parts), event)


def state_of(copy: QueueCopy) -> str:
    """The state for people: a copy that leaves by itself is `delayed`."""
    return "delayed" if copy.state.value == "held" and copy.leaves is not None else copy.state.value


def end_of(copy: QueueCopy, now: datetime) -> str:
    """The time at which the steward releases a copy by itself, or until which a person can decide; empty if neither."""
    if copy.leaves is not None:
        return f"{'leaves' if copy.leaves > now else 'due since'} {near_time(copy.leaves, now)}"
    return "" if copy.until is None else f"until {copy.until.astimezone():%Y-%m-%d}"


# -- forms -------------------------------------------------------------------------------------------------------------


def json_lines(journal: Journal, incidents: Sequence[Incident]) -> Iterator[str]:
    """One line of JSON for each incident, in ASCII."""
    for incident, end in _with_ends(journal, incidents):
        yield _json_line(incident, end)


def _json_line(incident: Incident, end: End, events: Iterable[Event] | None = None) -> str:
    content = dataclasses.asdict(incident) | {
        "state": incident.state.value,
        "rule": incident.leading.rule,
        "action": incident.leading.action.value,
        "shown": end.shown.recipients,
        "shown_words": end.shown.words,
        "ended_at": end.at,
        "ended_by": end.by or None,
    }
    if events is not None:
        content["events"] = [dataclasses.asdict(event) for event in events]
    return json.dumps(content, default=_json_value)


def _json_value(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


def _csv_row(incident: Incident, end: End) -> list[str]:
    return [
        incident.reference,
        utc_time(incident.at),
        incident.state.value,
        incident.leading.action.value,
        incident.leading.rule,
        incident.sender or "<>",
        str(incident.count),
        str(incident.organisations),
        str(incident.named),
        str(incident.recipients),
        str(end.shown.recipients),
        end.shown.words,
        utc_time(end.at),
        end.by,
        incident.message_id or "",
        incident.subject or "",
    ]


def _incident_table(incidents: Iterable[tuple[Incident, End]]) -> Table:
    columns = (
        Column("reference"),
        Column("when"),
        Column("state"),
        Column("visible", right=True),
        Column("rcpts", right=True),
        Column("shown", right=True),
        Column("action"),
        Column("sender"),
        Column("rule", "cut"),
        Column("subject", "cut"),
    )
    rows = [
        (
            incident.reference,
            local_time(incident.at),
            state_of(incident.leading),
            str(incident.count),
            str(incident.recipients),
            str(end.shown.recipients),
            incident.leading.action.value,
            incident.sender or "<>",
            incident.leading.rule or NO_RULE,
            incident.subject or "",
        )
        for incident, end in incidents
    ]
    return Table(columns, rows, head=6)


def _facts(incident: Incident, end: End) -> Iterator[Fact]:
    leading = incident.leading
    per_field = ", ".join(f"{name} {count}" for name, count in incident.per_field.items())
    visible = (
        f"{incident.count} external addresses of {incident.organisations} organisations,"
        f" {incident.named} with a person's name"
    )
    held = [copy for copy in incident.copies if copy.is_open]
    yield Fact("reference", [incident.reference])
    yield Fact("when", [local_time(incident.at, "seconds")])
    yield Fact("state", [state_of(leading)])
    yield Fact("seen", [end.shown.words])
    yield Fact("leaves", [local_time(leading.leaves, "seconds")] if held and leading.leaves else [])
    yield Fact("until", [local_time(leading.until)] if held and leading.until and not leading.leaves else [])
    yield Fact("waits for a person", sorted({copy.waits for copy in held if copy.waits}))
    yield Fact("ended", [local_time(end.at, "seconds") + (f" by {end.by}" if end.by else "")] if end.event else [])
    yield Fact("sender", [incident.sender or "<>"])
    yield Fact("subject", [incident.subject or "(not recorded)"])
    yield Fact("Message-ID", [incident.message_id or "(none)"])
    yield Fact("rule", [f"{leading.rule or '(none)'}: {leading.action.value}"])
    yield Fact("reason", [leading.reason] if leading.reason else [])
    yield Fact("not hidden", [leading.obstacle] if leading.obstacle else [])
    yield Fact("visible", [f"{visible} ({per_field})" if per_field else visible])
    if incident.automatic:
        yield Fact("notices", [f"to the administrator: the message is automatic ({incident.automatic})"])


def _copy_table(incident: Incident, names: Mapping[str, str]) -> Table:
    columns = (
        Column("queue id"),
        Column("state"),
        Column("arrived"),
        Column("rcpts", right=True),
        Column("ends"),
        Column("gateway"),
        Column("client"),
        Column("rule", "cut"),
        Column("repeats"),
    )
    now, arrived = datetime.now(UTC), {copy.id: copy.arrived for copy in incident.copies}
    rows = []
    for copy in incident.copies:
        first = arrived.get(copy.repeat_of or 0)
        row = (
            copy.queue_id,
            state_of(copy),
            local_time(copy.arrived),
            str(copy.recipients),
            end_of(copy, now) if copy.is_open else "",
            names.get(copy.gateway, copy.gateway),
            copy.client or "unknown",
            copy.rule or NO_RULE,
            f"repeat of {near_time(first, copy.arrived)}" if first else "",
        )
        rows.append(row)
    return Table(columns, rows, head=4)


def _event_table(incident: Incident, events: Iterable[Event]) -> Table:
    columns = (Column("when"), Column("queue id"), Column("who"), Column("what"), Column("why", "wrap"))
    queue_ids = {copy.id: copy.queue_id for copy in incident.copies}
    rows = [
        (local_time(event.at, "seconds"), queue_ids.get(event.copy_id or 0, "-"), event.actor, _deed(event), event.why)
        for event in events
    ]
    return Table(columns, rows, head=3)


def _deed(event: Event) -> str:
    """The act of an event; of a notice also its kind and its addressee."""
    kind, addressee = event.detail.get("kind"), event.detail.get("to")
    return event.what + (f": {kind}" if kind else "") + (f", to the {addressee}" if addressee else "")
