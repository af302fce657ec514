"""`undisclosed incidents`: what the journal knows, as a table, JSON or CSV. What senders wrote is made harmless."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TextIO

from undisclosed.cli.output import cell, visible
from undisclosed.incidents.records import Event, Incident, State
from undisclosed.journal.journal import Journal

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_WIDTH: Final = 160
"""Characters of a table's line where the output is no terminal."""

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

COLUMNS: Final = (
    "reference", "at", "state", "action", "rule", "sender", "count", "organisations", "recipients", "subject",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filter:
    """Which incidents are wanted."""

    sender: str | None = None
    rule: str | None = None
    since: datetime | None = None
    states: tuple[State, ...] | None = None
    limit: int | None = None

    @classmethod
    def read(
        cls, *, sender: str | None, rule: str | None, since: str | None, states: Sequence[str], limit: int
    ) -> Self:
        """From what was typed. Raises ValueError with what is wrong and what could be written."""
        return cls(
            sender=sender,
            rule=rule,
            since=None if since is None else moment(since, datetime.now(UTC)),
            states=tuple(map(_state, states)) or None,
            limit=limit or None,
        )


def moment(text: str, now: datetime) -> datetime:
    """A date, a date and time (local where no offset is said) or an age before `now`. Raises ValueError."""
    if match := re.fullmatch(r"([0-9]{1,6}) ?([mhdw])", text.strip()):
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except ValueError:
        raise ValueError(f'{text!r} is no time: write "2026-03-01", "2026-03-01 14:30", "12h" or "7d"') from None


def _state(text: str) -> State:
    wanted = text.strip().lower().replace("-", " ").replace("_", " ")
    try:
        return State(wanted)
    except ValueError:
        known = ", ".join(state.value.replace(" ", "-") for state in State)
        raise ValueError(f"{text!r} is no state: write one of {known}") from None


def show_list(journal: Journal, wanted: Filter, form: Literal["table", "json", "csv"], out: TextIO) -> None:
    """Write the incidents that are wanted, the newest first. Raises JournalError."""
    _forgive(out)
    found = journal.incidents(
        sender=wanted.sender, rule=wanted.rule, since=wanted.since, states=wanted.states, limit=wanted.limit
    )
    if form == "json":
        for one in found:
            out.write(as_json(one) + "\n")
    elif form == "csv":
        lines = csv.writer(out)
        lines.writerow(COLUMNS)
        lines.writerows([cell(text) for text in _row(one)] for one in found)
    elif not found:
        out.write("no incidents\n")
    else:
        _print(out, [_list(found)])
        if len(found) == wanted.limit:
            out.write(f"The newest {len(found)}; --limit shows more.\n")


def show_one(journal: Journal, reference: str, with_json: bool, out: TextIO) -> None:
    """Write one incident with its copies and events. Raises NotFoundError, AmbiguousError, JournalError."""
    _forgive(out)
    incident = journal.find(reference)
    events = journal.events(incident.id)
    if with_json:
        out.write(as_json(incident, events) + "\n")
    else:
        _print(out, [_facts(incident), _copies(incident), _events(events)])


def as_json(incident: Incident, events: Iterable[Event] | None = None) -> str:
    """One line of JSON, in ASCII."""
    content = dataclasses.asdict(incident) | {"state": incident.state.value}
    if events is not None:
        content["events"] = [dataclasses.asdict(event) for event in events]
    return json.dumps(content, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _row(incident: Incident) -> list[str]:
    return [
        incident.reference,
        when(incident.at),
        incident.state.value,
        incident.action.value,
        incident.rule,
        incident.sender or "<>",
        str(incident.count),
        str(incident.organisations),
        str(sum(copy.recipients for copy in incident.copies)),
        incident.subject or "",
    ]


def when(moment: datetime | None) -> str:
    """A moment as this host's clock shows it, to the minute; "-" where there is none."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _list(found: Sequence[Incident]) -> Table:
    table = _table("reference", "when", "state", "action", "rule", "sender", "#addresses", "#orgs", "#rcpts", "subject")
    for one in found:
        table.add_row(*map(_text, _row(one)))
    return table


def _facts(incident: Incident) -> Table:
    from rich.table import Table

    per_field = ", ".join(f"{name} {count}" for name, count in incident.per_field.items())
    facts = {
        "reference": incident.reference,
        "when": when(incident.at),
        "state": incident.state.value,
        "sender": incident.sender or "<>",
        "subject": incident.subject or "(not recorded)",
        "Message-ID": incident.message_id or "(none)",
        "rule": f"{incident.rule or '(none)'}: {incident.action.value}",
        "why": incident.reason,
        "not rewritten": incident.obstacle or "",
        "visible": f"{incident.count} external addresses of {incident.organisations} organisations,"
        f" {incident.named} with a person's name" + (f" ({per_field})" if per_field else ""),
        "notices": "none: it is automatic or of a list" if incident.automatic else "",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value:
            table.add_row(_text(name), _text(value))
    return table


def _copies(incident: Incident) -> Table:
    table = _table("gateway", "queue id", "arrived", "#recipients", "client", "state", "until", title="Copies")
    for copy in incident.copies:
        cells = (copy.gateway, copy.queue_id, when(copy.arrived), str(copy.recipients), copy.client or "unknown")
        table.add_row(*map(_text, (*cells, copy.state.value, when(copy.until))))
    return table


def _events(events: Sequence[Event]) -> Table:
    table = _table("when", "who", "what", "why", title="Events")
    for event in events:
        table.add_row(*map(_text, (when(event.at), event.actor, event.what, event.why)))
    return table


def _table(*names: str, title: str | None = None) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in names:
        number = name.startswith("#")
        table.add_column(name.removeprefix("#"), justify="right" if number else "left", overflow="fold")
    return table


def _text(text: str) -> Any:
    from rich.text import Text

    return Text(visible(text))


def _print(out: TextIO, tables: Iterable[Table]) -> None:
    from rich.console import Console

    width = None if out.isatty() else PLAIN_WIDTH
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    for table in tables:
        console.print(table)


def _forgive(out: TextIO) -> None:
    if isinstance(out, TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to stop halfway
