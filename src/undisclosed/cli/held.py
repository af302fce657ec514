"""`undisclosed held list | show | release | delete`.

A release or deletion is requested in the journal; the steward of the host that holds the mail carries it out, and the
command waits for its answer.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast, get_args

import typer

from undisclosed.cli import incidents
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
)
from undisclosed.cli.output import Column, Output, Table, printable, progress

if TYPE_CHECKING:
    from undisclosed.incidents.records import Incident, ReleaseMode, Request, Verb
    from undisclosed.journal.journal import Journal

ANSWER_TIMEOUT: Final = 60.0
"""Seconds without any answer after which the command stops waiting: a steward is probably not running."""

POLL_INTERVAL: Final = 0.2

app = group(help="Held mail: list it, release it, delete it.")

RuleOption = Annotated[str | None, typer.Option(help="Only mail that this rule holds.", metavar="NAME")]
OlderOption = Annotated[
    str | None, typer.Option("--older-than", help="Only mail older than this: as for --since.", metavar="TIME")
]
ReferencesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="References, or enough of the beginning of each to be unique. Without any: all held mail that the"
        " options select.",
        metavar="[REF]...",
    ),
]
ReasonOption = Annotated[str, typer.Option(help="Why; it is recorded.", metavar="TEXT")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the steward has answered.")]


def _parse_mode(text: str) -> str:
    """A release mode. typer's own check of a choice answers in pydantic's words."""
    from undisclosed.incidents.records import ReleaseMode

    if text not in get_args(ReleaseMode):
        raise typer.BadParameter(f"write one of {', '.join(get_args(ReleaseMode))}")
    return text


@app.command("list", cls=Command)
def list_held(
    config_file: ConfigOption = DEFAULT_CONFIG,
    sender: SenderOption = None,
    rule: RuleOption = None,
    since: SinceOption = None,
    older_than: OlderOption = None,
    as_json: JsonOption = False,
) -> None:
    """List held mail, the newest first.

    On a terminal the table fits its width. Elsewhere each message is one line of tab-separated columns, below a line
    with their names.
    """
    selection = Filter.from_options(sender=sender, rule=rule, since=since, older_than=older_than)
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
def release_held(
    mode: Annotated[
        str,
        typer.Option(
            "--as",
            parser=_parse_mode,
            help="bcc: with the external recipients hidden; split: a separate message to each external recipient;"
            " unchanged: as it is.",
            metavar="bcc|split|unchanged",
        ),
    ],
    references: ReferencesArgument = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
    reason: ReasonOption = "",
    sender: SenderOption = None,
    rule: RuleOption = None,
    since: SinceOption = None,
    older_than: OlderOption = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Deliver held mail.

    Exit status 1 unless all of it was delivered.
    """
    selection = Filter.from_options(sender=sender, rule=rule, since=since, older_than=older_than)
    _request(
        config_file, references, selection, Order("release", cast("ReleaseMode", mode), reason, user(), wait), as_json
    )


@app.command("delete", cls=Command)
def delete_held(
    references: ReferencesArgument = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
    reason: ReasonOption = "",
    sender: SenderOption = None,
    rule: RuleOption = None,
    since: SinceOption = None,
    older_than: OlderOption = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Delete held mail.

    Exit status 1 unless all of it was deleted.
    """
    selection = Filter.from_options(sender=sender, rule=rule, since=since, older_than=older_than)
    _request(config_file, references, selection, Order("delete", None, reason, user(), wait), as_json)


def _request(config_file: Path, references: list[str] | None, selection: Filter, order: Order, as_json: bool) -> None:
    from undisclosed.incidents.records import AmbiguousError, NotFoundError

    if bool(references) is not selection.is_empty:
        fail("give either references, or options that select held mail, and not both")
    with opened_journal(config_file) as journal:
        try:
            selected = find_all(journal, references) if references else held(journal, selection)
        except NotFoundError as error:
            fail(error, 1)
        except AmbiguousError as error:
            fail(error)
        done = request_and_wait(journal, selected, order, Output(sys.stdout, sys.stderr, as_json))
    if not done:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Order:
    """A release or deletion to request, and whether to wait for the answer."""

    verb: Verb
    mode: ReleaseMode | None
    reason: str
    actor: str
    wait: bool = True


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """The steward's answer to the requests about one incident. The fields are the keys of the JSON."""

    reference: str
    verb: str
    release_mode: str | None
    answer: str
    """`done`, `refused`, `failed`, or `waiting` where there is no answer yet."""
    why: str


def user() -> str:
    """The Unix user who runs the command; under sudo(8) the one who called it."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    caller = os.environ.get("SUDO_USER", "")
    return f"{printable(caller)[:64]} (as root)" if uid == 0 and caller else name


def held(journal: Journal, selection: Filter) -> list[Incident]:
    """The incidents with a held copy, the newest first. Raises JournalError."""
    from undisclosed.incidents.records import OPEN

    found = journal.incidents.search(sender=selection.sender, rule=selection.rule, since=selection.since, states=OPEN)
    return [incident for incident in found if selection.before is None or incident.at < selection.before]


def find_all(journal: Journal, references: Sequence[str]) -> list[Incident]:
    """The incidents with these references, each once. Raises NotFoundError, AmbiguousError, JournalError."""
    return list({incident.id: incident for incident in map(journal.incidents.find, references)}.values())


def show_list(journal: Journal, selection: Filter, output: Output) -> None:
    """Write the list of held mail. Raises JournalError."""
    found = held(journal, selection)
    if output.json:
        for incident in found:
            output.line(incidents.json_line(incident))
    elif found:
        output.table(_table(found))
    else:
        output.line("nothing is held")


def _table(found: Iterable[Incident]) -> Table:
    from undisclosed.incidents.records import OPEN

    columns = (
        Column("reference"),
        Column("held since"),
        Column("until"),
        Column("state"),
        Column("visible", right=True),
        Column("rcpts", right=True),
        Column("sender"),
        Column("rule", "cut"),
        Column("subject", "cut"),
    )
    rows = []
    for incident in found:
        untils = [copy.until for copy in incident.copies if copy.until is not None]
        row = (
            incident.reference,
            local_time(incident.at),
            local_time(min(untils, default=None)),
            incident.state.value,
            str(incident.count),
            str(sum(copy.recipients for copy in incident.copies if copy.state in OPEN)),
            incident.sender or "<>",
            incident.leading.rule or "(none)",
            incident.subject or "",
        )
        rows.append(row)
    return Table(columns, rows, head=6)


def request_and_wait(journal: Journal, selected: Sequence[Incident], order: Order, output: Output) -> bool:
    """Request the order for the open copies of each incident, and write each answer. Returns whether all were done.

    Raises JournalError.
    """
    pending: list[_Pending] = []
    all_done = True

    def write(answer: RequestAnswer) -> None:
        output.line(_line_of_json(answer) if output.json else _sentence(answer))

    with progress(len(selected) if order.wait else 0, output.err) as advance:
        for incident in selected:
            copy_ids = {copy.id for copy in incident.copies if copy.is_open}
            requests = journal.held.ask(
                copy_ids, verb=order.verb, mode=order.mode, actor=order.actor, reason=order.reason
            )
            if why := _why_not_asked(incident, copy_ids, requests):
                all_done = False
                write(RequestAnswer(incident.reference, order.verb, order.mode, "refused", why))
                advance()
                continue
            pending.append(_Pending(incident, {request.id for request in requests}))
            if not order.wait:
                write(
                    RequestAnswer(incident.reference, order.verb, order.mode, "waiting", "the steward has been asked")
                )
        for answer in _answers(journal, order, pending) if order.wait else ():
            all_done = all_done and answer.answer == "done"
            write(answer)
            advance()
    return all_done


def _why_not_asked(incident: Incident, copy_ids: Collection[int], requests: Collection[Request]) -> str | None:
    """The reason why nothing was requested for an incident; None if something was."""
    if not copy_ids:
        return f"no copy of it is held: {incident.state}"
    return None if requests else "another request for it has no answer yet, or it is not held any more"


@dataclass(slots=True)
class _Pending:
    """The requests about one incident, and the answers so far."""

    incident: Incident
    left: set[int]
    answers: list[Request] = field(default_factory=list)

    def answer(self, order: Order) -> RequestAnswer:
        """One answer of all: the first one that says no, else that of the last copy."""
        chosen = next((request for request in self.answers if request.state != "done"), self.answers[-1])
        return RequestAnswer(self.incident.reference, order.verb, order.mode, chosen.state, chosen.answer or "")


def _answers(journal: Journal, order: Order, pending: list[_Pending]) -> Iterator[RequestAnswer]:
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while pending and time.monotonic() < deadline:
        answered = {request.id: request for request in journal.held.answered(set().union(*(p.left for p in pending)))}
        for one in list(pending):
            done = one.left & answered.keys()
            one.answers += [answered[request_id] for request_id in sorted(done)]
            one.left -= done
            if done:
                deadline = time.monotonic() + ANSWER_TIMEOUT
            if not one.left:
                pending.remove(one)
                yield one.answer(order)
        if pending:
            time.sleep(POLL_INTERVAL)
    for one in pending:
        hosts = ", ".join(sorted(_hosts(journal, one.incident)))
        why = f"no answer yet; check that `undisclosed steward` runs on {hosts}, which will carry out the request"
        yield RequestAnswer(one.incident.reference, order.verb, order.mode, "waiting", why)


def _hosts(journal: Journal, incident: Incident) -> set[str]:
    """The names of the hosts that hold copies of an incident."""
    known = journal.gateways.all()
    ids = {copy.gateway for copy in incident.copies if copy.is_open}
    return {known[gateway].name if gateway in known else gateway for gateway in ids}


def _line_of_json(answer: RequestAnswer) -> str:
    return json.dumps({name: getattr(answer, name) for name in RequestAnswer.__slots__})


def _sentence(answer: RequestAnswer) -> str:
    past = {"release": f"released as {answer.release_mode}", "delete": "deleted"}[answer.verb]
    if answer.answer == "done":
        return f"{answer.reference}: {past}"
    return f"{answer.reference}: not {past} ({answer.answer}): {printable(answer.why)}"
