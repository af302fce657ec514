"""`undisclosed explain`: the decision on saved messages and its reasons, as labelled lines or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from undisclosed.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, exit_on_config_error, fail
from undisclosed.cli.output import Fact, Output, printable, progress

if TYPE_CHECKING:
    from undisclosed.explain.explanation import Explanation
    from undisclosed.explain.message_file import Envelope
    from undisclosed.policy import Policy

DONE: Final = 0
STOPPED: Final = 1
FAILED: Final = 2

MAX_ADDRESSES: Final = 20
"""Addresses that the text names; --json has all."""

MAX_SHOWN_TEXT: Final = 500
"""Characters that the text shows of a header field of a rewrite."""


def explain_messages(
    files: Annotated[list[str], typer.Argument(help="Saved messages; - is standard input.", metavar="FILE...")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    sender: Annotated[
        str | None,
        typer.Option(
            help="The envelope sender; <> is the null sender. Else Return-Path, else From.", metavar="ADDRESS"
        ),
    ] = None,
    rcpt: Annotated[
        list[str] | None,
        typer.Option(help="An envelope recipient; may be given several times. Else To, Cc and Bcc.", metavar="ADDRESS"),
    ] = None,
    client: Annotated[
        str | None, typer.Option(help="The client's IP address. Else this host.", metavar="ADDRESS")
    ] = None,
    authenticated: Annotated[
        str | None, typer.Option(help="The login name of an authenticated client.", metavar="NAME")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would happen to a message, and why.

    Exit status 1 if any message would be stopped. On a terminal the text fits its width; elsewhere each line is a
    label, a tab and a text.
    """
    from undisclosed.config.errors import ConfigError
    from undisclosed.config.key_file import read_key
    from undisclosed.config.load import load
    from undisclosed.explain.message_file import Envelope

    with exit_on_config_error():
        policy = load(config_file)
    try:
        key = read_key(policy, create=False)
    except ConfigError:
        key = None  # another user than the milter's may not read the key; without it no reference is shown
    if client is not None and not _is_ip_address(client):
        fail(f"--client {client}: not an IP address; write one such as 192.0.2.1 or 2001:db8::1")
    envelope = Envelope(
        sender=_without_angle_brackets(sender) if sender is not None else None,
        recipients=tuple(map(_without_angle_brackets, rcpt)) if rcpt else None,
        client=client,
        login=authenticated,
    )
    raise typer.Exit(run(policy, key, files, envelope, sys.stdin.buffer, Output(sys.stdout, sys.stderr, as_json)))


def _without_angle_brackets(address: str) -> str:
    return address.removeprefix("<").removesuffix(">")


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def run(
    policy: Policy, key: bytes | None, files: Sequence[str], envelope: Envelope, stdin: BinaryIO, output: Output
) -> int:
    """Explain each file, one after the other, and return the exit status.

    0: no message would be stopped; 1: at least one would be (rejected or quarantined; in monitor mode too, since the
    question is about the policy); 2: at least one file could not be read.
    """
    from undisclosed.explain import explanation, message_file

    status = DONE
    bars_wanted = not output.out.isatty()  # a bar would be between the explanations
    with progress(len(files) if bars_wanted else 0, output.err) as advance:
        for file in files:
            try:
                first, rest = message_file.content(file, stdin)
                message = message_file.read(file, first, envelope, rest)
                explained = explanation.explain(policy, key, message)
            except message_file.SavedMessageError as error:
                output.error(f"undisclosed: {printable(str(error))}")
                status = FAILED
                continue
            finally:
                advance()
            if output.json:
                output.line(explanation.as_json(explained))
            else:
                if file != files[0]:
                    output.line("")
                output.facts(_facts(policy, explained))
            if explained.would_be_stopped:
                status = max(status, STOPPED)
    return status


_MONITORED: Final = "only recorded: in monitor mode it is delivered unchanged"


def _facts(policy: Policy, explained: Explanation) -> Iterator[Fact]:
    from undisclosed.policy import Action
    from undisclosed.policy.wording import effect

    action = Action(explained.action)
    colour = "green" if action is Action.ACCEPT else "red" if action.effect.stops else "yellow"
    in_monitor_mode = explained.mode == "monitor" and action is not Action.ACCEPT
    consequence = _MONITORED if in_monitor_mode else effect(policy, action)
    yield Fact("file", [explained.file])
    yield Fact("action", [f"{explained.action} - {consequence}"], f"bold {colour}")
    yield from (Fact(label, texts) for label, texts in _rows(explained))


def _rows(explained: Explanation) -> Iterator[tuple[str, Sequence[str]]]:
    """The lines below the action: each label with its texts, which are empty if it does not apply."""
    yield "from", [f"{explained.sender or '<>'}, to {_number(explained.recipients, 'recipient')}"]
    if explained.rule is not None:
        yield "rule", [explained.rule]
    yield "because", [explained.reason] + ([f"not hidden: {explained.obstacle}"] if explained.obstacle else [])
    if explained.scope == "outgoing":
        yield "visible", [_visible(explained)]
    if explained.per_field:
        yield "in fields", [", ".join(f"{name.title()} {count}" for name, count in explained.per_field.items())]
    yield "reference", [explained.reference] if explained.reference else []
    yield "reply", (explained.reply or "").splitlines()
    yield "header now", [_short(field) for field in explained.before]
    yield "header then", [_short(field) for field in explained.after]
    rest = explained.count - MAX_ADDRESSES
    named = ", ".join(explained.visible_external[:MAX_ADDRESSES])
    yield "external", [f"{named} and {rest} more" if rest > 0 else named] if named else []
    yield "note", explained.remarks


def _visible(explained: Explanation) -> str:
    text = _number(explained.count, "external address", "external addresses")
    if explained.count:
        text += f" of {_number(explained.organisations, 'organisation')}"
    others = ((explained.partner, "of partners"), (explained.internal, "internal"))
    not_counted = ", ".join(f"{count} {whose}" for count, whose in others if count)
    return f"{text}; not counted: {not_counted}" if not_counted else text


def _number(count: int, noun: str, plural: str = "") -> str:
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_TEXT else f"{text[:MAX_SHOWN_TEXT]}... ({len(text)} characters)"
