"""`undisclosed held`: what is held, and wishes about it, which the steward grants: written down here, and awaited."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, TextIO

from undisclosed.cli.incidents_commands import as_json, when
from undisclosed.cli.output import visible
from undisclosed.incidents.records import OPEN, Incident, Request, Wanted, Way
from undisclosed.journal.journal import Journal

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE: Final = 60.0
"""Seconds without any answer after which waiting ends: the steward on that host is probably not running."""

LOOK_EVERY: Final = 0.2

PLAIN_WIDTH: Final = 160
"""Characters of a table's line where the output is no terminal."""

HEADINGS: Final = ("reference", "held since", "until", "state", "addresses", "recipients", "rule", "sender", "subject")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which held mail is meant."""

    sender: str | None = None
    rule: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it means all held mail."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to become of held mail."""

    wanted: Wanted
    way: Way | None
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the steward said to the wish about one incident; its fields are the keys of the JSON."""

    reference: str
    wanted: str
    way: str | None
    answer: str
    """`done`, `refused`, `failed`, or `waiting` where it has not said anything yet."""
    why: str


def user() -> str:
    """Who asks: the Unix user's name, behind sudo(8) the one who called it."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    caller = os.environ.get("SUDO_USER", "")
    return f"{visible(caller)[:64]} (as root)" if uid == 0 and caller else name


def held(journal: Journal, wanted: Filter) -> list[Incident]:
    """The incidents of which something is held, the newest first. Raises JournalError."""
    found = journal.incidents(sender=wanted.sender, rule=wanted.rule, since=wanted.since, states=OPEN)
    return [one for one in found if wanted.before is None or one.at < wanted.before]


def named(journal: Journal, references: Sequence[str]) -> list[Incident]:
    """The incidents with these references, each once. Raises NotFoundError, AmbiguousError, JournalError."""
    return list({one.id: one for one in map(journal.find, references)}.values())


def show_list(journal: Journal, wanted: Filter, with_json: bool, out: TextIO) -> None:
    """Write what is held. Raises JournalError."""
    found = held(journal, wanted)
    if with_json:
        out.writelines(as_json(one) + "\n" for one in found)
        return
    if not found:
        out.write("nothing is held\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        # In a narrow window the rest is folded; half a reference, or half a date, would be of no use to anybody.
        narrowest = {"reference": 9, "held since": 10, "until": 10}.get(heading)
        table.add_column(heading, no_wrap=heading == "reference", min_width=narrowest, overflow="fold")
    for one in found:
        table.add_row(*(Text(visible(cell)) for cell in _row(one)))
    width = None if out.isatty() else PLAIN_WIDTH
    Console(file=out, width=width, highlight=False, markup=False, emoji=False).print(table)


def _row(one: Incident) -> tuple[str, ...]:
    untils = [copy.until for copy in one.copies if copy.until is not None]
    recipients = sum(copy.recipients for copy in one.copies if copy.state in OPEN)
    return (
        one.reference,
        when(one.at),
        when(min(untils, default=None)),
        one.state.value,
        str(one.count),
        str(recipients),
        one.rule or "(none)",
        one.sender or "<>",
        one.subject or "",
    )


def ask(
    journal: Journal,
    incidents: Sequence[Incident],
    wish: Wish,
    *,
    wait: bool,
    with_json: bool,
    out: TextIO,
    err: TextIO,
) -> bool:
    """Write the wish down for each incident, and what the steward says to each. Whether all were granted.

    Raises JournalError.
    """
    pending: dict[int, tuple[Incident, Request]] = {}
    granted = True

    def say(answer: Answer) -> None:
        out.write((_line_of_json(answer) if with_json else _sentence(answer)) + "\n")

    with _progress(len(incidents), err if wait else None) as advance:
        for one in incidents:
            if not any(copy.state in OPEN for copy in one.copies):
                granted = False
                say(Answer(one.reference, wish.wanted, wish.way, "refused", f"nothing of it is held: {one.state}"))
                advance()
                continue
            request = journal.ask(one.id, wanted=wish.wanted, way=wish.way, actor=wish.actor, reason=wish.reason)
            pending[request.id] = (one, request)
            if not wait:
                say(Answer(one.reference, wish.wanted, wish.way, "waiting", "the steward has been asked"))
        for answer in _answers(journal, pending) if wait else ():
            granted = granted and answer.answer == "done"
            say(answer)
            advance()
    return granted


def _answers(journal: Journal, pending: dict[int, tuple[Incident, Request]]) -> Iterator[Answer]:
    deadline = time.monotonic() + PATIENCE
    gateways = {copy.gateway for one, _ in pending.values() for copy in one.copies}
    while pending and time.monotonic() < deadline:
        still_open = {request.id for gateway in gateways for request in journal.requests(gateway=gateway)}
        for request_id in [number for number in pending if number not in still_open]:
            one, request = pending.pop(request_id)
            deadline = time.monotonic() + PATIENCE
            yield _answer_to(journal, one, request)
        if pending:
            time.sleep(LOOK_EVERY)
    for one, request in pending.values():
        why = f"no answer: see that `undisclosed steward` runs on {', '.join(sorted(_hosts(one)))}; the wish stands"
        yield Answer(one.reference, request.wanted, request.way, "waiting", why)


def _hosts(one: Incident) -> set[str]:
    return {copy.gateway for copy in one.copies if copy.state in OPEN}


def _answer_to(journal: Journal, one: Incident, request: Request) -> Answer:
    for event in reversed(journal.events(one.id)):
        if event.detail.get("request") == request.id and event.what.startswith("request to "):
            return Answer(one.reference, request.wanted, request.way, event.what.rpartition(" ")[2], event.why)
    return Answer(one.reference, request.wanted, request.way, "failed", "the answer is not in the journal")


def _line_of_json(answer: Answer) -> str:
    return json.dumps({name: getattr(answer, name) for name in Answer.__slots__})


def _sentence(answer: Answer) -> str:
    past: Mapping[str, str] = {"release": f"released as {answer.way}", "delete": "deleted"}
    if answer.answer == "done":
        return f"{answer.reference}: {past[answer.wanted]}"
    return f"{answer.reference}: not {past[answer.wanted]} ({answer.answer}): {visible(answer.why)}"


@contextmanager
def _progress(count: int, err: TextIO | None) -> Iterator[_Advance]:
    """Show how far it is, on a terminal and where it is much."""
    if err is None or not err.isatty() or count < 2:
        yield _Advance(None)
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(file=err)) as progress:
        progress.add_task("asked of the steward", total=count)
        yield _Advance(progress)


class _Advance:
    """One more is done."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def __call__(self) -> None:
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])
