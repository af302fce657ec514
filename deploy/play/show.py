"""The output of the demonstration on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email import policy as email_policy

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lab.client import Reply
from lab.sink import Delivery
from play.breaches import Breach
from play.held import Command, Story, parts
from play.trial import Trial

SHOWN_FIELDS = ("From", "To", "Cc", "Subject")
WIDTH = 110
"""Columns: the longest line of an SMTP reply (100 characters) and its frame."""
ENTRIES = 3
"""The number of lines shown of a long field."""


def terminal() -> Console:
    """Standard output: in colour and as wide as the window where it is a terminal."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def plural(count: int, singular: str, several: str = "") -> str:
    """`1 message`, `10 messages`."""
    return f"{count} {singular if count == 1 else several or singular + 's'}"


def span(numbers: Sequence[int]) -> str:
    """`499`, or `75 to 94`."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def wire(reply: Reply) -> str:
    """A reply as it is sent (RFC 5321, 4.2.1)."""
    *first, last = reply.lines
    return "\n".join([*(f"{reply.code}-{line}" for line in first), f"{reply.code} {last}"])


def excerpt(delivery: Delivery) -> str:
    """The fields of a delivered message that readers see, long ones cut."""
    lines: list[str] = []
    for name, value in delivery.fields():
        if name in SHOWN_FIELDS:
            first, *more = value.decode("utf-8", "replace").split("\r\n")
            lines += [f"{name}: {first}", *more[: ENTRIES - 1]]
            if len(more) >= ENTRIES:
                lines.append(f"    … and {len(more) - ENTRIES + 1} more lines like these")
    return "\n".join(lines)


def boxed(console: Console, title: str, text: str, style: str) -> None:
    """Quoted text, in a frame."""
    panel = Panel(Text(text), title=title, title_align="left", border_style=style, box=box.ROUNDED, expand=False)
    console.print(Padding(panel, (0, 0, 0, 2)))


def breach(console: Console, told: Breach, before: Trial) -> None:
    """A breach as it happened: the number of people and the addresses that they could read."""
    console.print()
    console.rule(f"[bold]{told.title}", align="left")
    field = "To" if len(told.letters) > 1 else "Cc"
    people = sum(len(letter.people) for letter in told.letters)
    console.print(
        f"{plural(len(told.letters), 'message')} from {told.letters[0].sender}, {people} people's addresses in {field}."
    )
    others = [shown - 1 for shown in before.shown]
    seen = sum(readers * other for readers, other in zip(before.readers, others, strict=True))
    console.print(
        f"\n[bold]Without the milter[/] {plural(len(before.deliveries), 'message')} went out."
        f" Each of [bold red]{sum(before.readers)} people[/] could read the addresses of"
        f" [bold red]{span(others)} others[/]: {seen:,} times somebody's address before a stranger's eyes."
    )
    worst = max(zip(before.shown, before.deliveries, strict=True), key=lambda pair: pair[0])[1]
    boxed(console, f"what each of {len(worst.recipients) - 1} strangers received", excerpt(worst), "red")


def actions(console: Console, trials: Sequence[Trial], limit: int) -> None:
    """The results of each action on the same messages."""
    console.print(f"\n[bold]With the milter[/], for more than {limit} outside addresses in sight:")
    room = console.width - 66  # the width that the other columns leave
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("action", style="bold")
    table.add_column("messages out", justify="right")
    table.add_column("held", justify="right")
    table.add_column("addresses in sight", justify="right")
    table.add_column("the sender hears")
    for trial in trials:
        table.add_row(
            trial.action,
            str(len(trial.deliveries)),
            str(trial.held),
            Text(span(trial.shown), style="red" if any(trial.shown) else "green") if trial.deliveries else "",
            Text(textwrap.shorten(f"{trial.reply.code} {trial.reply.lines[0]}", room, placeholder=" …")),
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    if any(trial.accepted for trial in trials):
        console.print(
            "  [dim]250 only says that Postfix has it: the steward's notice tells the sender more, see below.[/]\n"
        )
    for trial in trials:
        if trial.action == "rewrite" and trial.deliveries:
            number = plural(trial.readers[0], "person", "people")
            boxed(console, f"rewrite: what {number} outside receive now", excerpt(trial.deliveries[0]), "green")
        if trial.action == "reject":
            boxed(console, "reject: what the sender reads", wire(trial.reply), "yellow")


def held(console: Console, story: Story) -> None:
    """One held message: the notice, the administrator's commands with their output, and the delivered message."""
    console.print()
    console.rule("[bold]One of them is held, and then released", align="left")
    out = len(story.early)
    console.print(
        f"The first school's message again, under quarantine, with the steward running: {plural(out, 'message')} out."
    )
    notice = parts(story.notice)[0].get_content().rstrip()
    lines = [line for text in notice.split("\n") for line in textwrap.wrap(text, console.width - 8) or [""]]
    subject = message_from_bytes(story.notice.data, policy=email_policy.default)["Subject"]
    boxed(console, "the notice that its sender received", "\n".join([f"Subject: {subject}", "", *lines]), "yellow")
    for command in (story.listing, story.release):
        _typed(console, command)
    number = len(story.received)
    title = f"what {number} recipients received, once each; addresses of strangers in sight: {story.shown}"
    if story.late:
        boxed(console, title, excerpt(story.late[0]), "green")


def _typed(console: Console, command: Command) -> None:
    """A command and its output."""
    console.print(Text("  # undisclosed " + " ".join(command.arguments), style="bold"))
    console.print(Padding(Text.from_ansi(command.output), (0, 0, 1, 2)))


def conclusion(console: Console, problems: Sequence[str]) -> None:
    """Whether all promises were kept; if not, each deviation."""
    console.print()
    if not problems:
        console.print("[bold green]✓[/] Every figure above was read from what was delivered. All as promised.")
    for problem in problems:
        console.print(Text("✗ " + problem, style="bold red"))


def log(console: Console, events: Sequence[Mapping[str, object]]) -> None:
    """The logged warnings and errors, which may explain a broken promise."""
    for event in events:
        if event.get("level") != "info":
            console.print("  " + ", ".join(f"{key}={value}" for key, value in event.items()), markup=False)
