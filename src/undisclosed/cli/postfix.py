"""`undisclosed postfix attach | detach | status`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undisclosed.cli.common import DEFAULT_CONFIG, Command, ConfigOption, exit_on_config_error, fail, group
from undisclosed.cli.output import Fact, Output

if TYPE_CHECKING:
    from undisclosed.postfix import Finding, Plan

app = group(help="Attach the milter to Postfix, detach it, check it.")

ConfigDirOption = Annotated[
    Path | None,
    typer.Option(
        "--config-dir", help="Postfix's configuration directory; else postfix.config_dir.", metavar="DIRECTORY"
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the changes, and write nothing.")]
AnywayOption = Annotated[bool, typer.Option("--anyway", help="Detach although mail is on hold.")]


@app.command(cls=Command)
def attach(
    config_file: ConfigOption = DEFAULT_CONFIG, config_dir: ConfigDirOption = None, dry_run: DryRunOption = False
) -> None:
    """Make the milter the first of Postfix's milters.

    For mail by SMTP and by sendmail(1). It also adds the listener over which held mail is released.
    """
    from undisclosed import postfix
    from undisclosed.config.load import load

    with exit_on_config_error(), _exit_on_postfix_error():
        policy = load(config_file)
        plan = postfix.attach(policy, config_dir or policy.postfix.config_dir, dry_run)
    _write_plan(plan, Output(sys.stdout, sys.stderr))


@app.command(cls=Command)
def detach(
    config_file: ConfigOption = DEFAULT_CONFIG,
    config_dir: ConfigDirOption = None,
    dry_run: DryRunOption = False,
    anyway: AnywayOption = False,
) -> None:
    """Undo what attach changed.

    Settings that were changed since then stay as they are. Refused while mail is on hold: it could not be released.
    """
    from undisclosed import postfix
    from undisclosed.config.load import load

    with exit_on_config_error(), _exit_on_postfix_error():
        policy = load(config_file)
        plan = postfix.detach(policy, config_dir or policy.postfix.config_dir, dry_run, anyway=anyway)
    _write_plan(plan, Output(sys.stdout, sys.stderr))


@app.command(cls=Command)
def status(config_file: ConfigOption = DEFAULT_CONFIG, config_dir: ConfigDirOption = None) -> None:
    """Check whether outgoing mail can bypass the milter.

    Each finding is ok, a note or a problem, with its remedy. Exit status 1 if there is a problem.
    """
    from undisclosed import postfix
    from undisclosed.config.load import load
    from undisclosed.postfix import Level

    with exit_on_config_error(), _exit_on_postfix_error():
        policy = load(config_file)
        findings = postfix.status(policy, config_dir or policy.postfix.config_dir)
    output = Output(sys.stdout, sys.stderr)
    _write_findings(findings, output)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)


@contextmanager
def _exit_on_postfix_error() -> Iterator[None]:
    from undisclosed.postfix import PostfixError

    try:
        yield
    except PostfixError as error:
        fail(error)


def _write_plan(plan: Plan, output: Output) -> None:
    if plan.summary:
        output.line(plan.summary)  # lines of a configuration and of a difference are not wrapped
    for note in plan.notes:
        output.text(note)
    _write_findings(plan.findings, output)
    for step in plan.next_steps:
        output.text(step)


def _write_findings(findings: Iterable[Finding], output: Output) -> None:
    """On a terminal a finding's remedy has a line of its own; elsewhere a finding is one line."""
    if output.width is None:
        for finding in findings:
            output.line(str(finding))
        return
    facts = []
    for finding in findings:
        remedy = [f"-> {finding.remedy}"] if finding.remedy else []
        facts.append(Fact(finding.level, [finding.text, *remedy]))
    output.facts(facts)
