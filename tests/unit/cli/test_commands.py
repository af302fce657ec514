"""The commands as they are typed: help, terminals of several widths, pipes, and pipes that no process reads."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer
from rich.cells import cell_len
from typer.testing import CliRunner

from support.factories import strangers, transaction
from support.journals import KEY
from support.terminal import into_closed_pipe, into_pipe, on_terminal
from undisclosed import cli
from undisclosed.cli.common import group
from undisclosed.journal import migrate
from undisclosed.journal.journal import Journal
from undisclosed.policy.sections import JournalSection

LONG_SENDER = "the.headteachers.personal.assistant@admissions.long-school-name.council.example"
CJK = "保護者の皆様へ 入学手続きのご案内と提出書類について"
CONFIG = """\
[organisation]
name = "Exampleshire County Council"
internal_domains = ["council.test"]

[[rules]]
name = "too many in sight"
more_than_addresses = 10
action = "reject"

[journal]
url = "sqlite:///{directory}/journal.db"
key_file = "{directory}/key"
"""


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, as it is typed."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


COMMANDS = sorted(commands(typer.main.get_command(cli.app)))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A configuration whose journal has incidents with long, wide and plain texts, one of them in many copies."""
    directory = tmp_path_factory.mktemp("cli")
    file = directory / "config.toml"
    file.write_text(CONFIG.format(directory=directory))
    key = directory / "key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    (directory / "message.eml").write_text(
        f"From: clerk@council.test\nTo: {', '.join(strangers(30))}\nSubject: {CJK}\n\nhello\n"
    )
    settings = JournalSection(url=f"sqlite:///{directory}/journal.db")
    migrate.upgrade(settings, KEY)
    journal = Journal(settings, KEY)
    for number in range(12):
        journal.filing.record(transaction(queue_id=f"4dX1c23kLmz{number:02}"))
    journal.filing.record(transaction(reference="8W2T-SM3V", message_id="<2@x>", sender=LONG_SENDER, subject=CJK * 4))
    reason = "95 external addresses of 95 organisations, the limit is 10; " * 3
    journal.filing.record(
        transaction(
            reference="2345-6789", message_id="<3@x>", subject="word " * 60, reason=reason, client="2001:db8::1"
        )
    )
    journal.gateways.record("mx1.council.test", "mx1", datetime.now(UTC) + timedelta(days=1))  # its steward runs
    journal.close()
    return str(file)


TABLES = [("held", "list"), ("held", "show", "K7QF"), ("incidents", "list"), ("incidents", "show", "2345")]


@pytest.mark.parametrize("width", [80, 100, 132])
@pytest.mark.parametrize("command", [*TABLES, ("check-config",)], ids=" ".join)
def test_output_fits_the_terminal(config: str, command: tuple[str, ...], width: int) -> None:
    """No line is wider than the terminal, and addresses, references and dates stand in it whole."""
    printed = on_terminal(width, *command, "--config", config)
    assert printed.status == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed.out).splitlines()
    too_wide = [line for line in lines if cell_len(line) > width and line.split() != [LONG_SENDER]]
    assert too_wide == []
    if command == ("held", "list"):
        text = "\n".join(lines)
        assert all(part in text for part in (LONG_SENDER, "clerk@council.test", "8W2T-SM3V", "2026-03-01"))


@pytest.mark.parametrize("width", [80, 100])
def test_errors_fit_the_terminal(config: str, width: int) -> None:
    """They are broken between words, behind the indent of their line; a quoted line of a file is not."""
    for words in (
        ("held", "release", "--as", "unchanged", "K7QF"),
        ("held", "delete", "ZZZZ"),
        ("held", "delete", "2345"),
    ):
        printed = on_terminal(width, *words, "--config", config)
        assert printed.status in (1, 2)
        assert max(map(cell_len, printed.out.splitlines())) <= width
        assert "Traceback" not in printed.out
    broken = Path(config).with_name("broken.toml")
    broken.write_text(f"help = {'x' * 150}\n")
    quoted, *others = sorted(
        on_terminal(width, "check-config", "--config", str(broken)).out.splitlines(), key=cell_len
    )[::-1]
    assert quoted.startswith("    1 | help = xxx")
    assert "put text in quotes" in " ".join(others)


@pytest.mark.parametrize("width", [80, 132])
def test_an_explanation_fits_the_terminal(config: str, width: int) -> None:
    """All of it, with the reply's lines and thirty addresses."""
    printed = on_terminal(width, "explain", str(Path(config).parent / "message.eml"), "--config", config)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed.out).splitlines()
    assert printed.status == 1
    assert max(map(cell_len, lines)) <= width
    assert "parent20@family20.test" in printed.out


@pytest.mark.parametrize("command", [("held", "list"), ("incidents", "list")], ids=" ".join)
def test_in_a_pipe_each_row_is_a_line(config: str, command: tuple[str, ...]) -> None:
    """cut, grep and head find one incident a line, with the same columns in each."""
    printed = into_pipe(*command, "--config", config)
    heading, *rows = [line.split("\t") for line in printed.out.splitlines()]
    assert heading[0] == "reference"
    assert {row[0] for row in rows} == {"K7QF-3M2D", "8W2T-SM3V", "2345-6789"}
    assert {len(row) for row in rows} == {len(heading)}
    assert {row[heading.index("sender")] for row in rows} == {LONG_SENDER, "clerk@council.test"}


@pytest.mark.parametrize("closed", ["stdout", "stdout stderr"])
@pytest.mark.parametrize(
    "command",
    [
        *TABLES,
        ("incidents", "list", "--json"),
        ("incidents", "list", "--csv"),
        ("check-config",),
        ("held", "list", "--json"),
    ],
    ids=" ".join,
)
def test_a_closed_pipe_is_quiet(config: str, command: tuple[str, ...], closed: str) -> None:
    """No traceback, and the exit status that shells report after SIGPIPE."""
    printed = into_closed_pipe(*command, "--config", config, closed=closed)
    assert (printed.status, printed.err) == (141, "")


def test_an_explanation_into_a_closed_pipe_is_quiet(config: str) -> None:
    """The explanation, or the error about a file, may come first."""
    message = str(Path(config).parent / "message.eml")
    for files in ((message, message), ("/nowhere", message), (message, "/nowhere")):
        printed = into_closed_pipe("explain", *files, "--config", config, closed="stdout stderr")
        assert printed.status == 141


def test_another_pipe_that_breaks_is_an_error() -> None:
    """A service that loses a pipe of its own must not end as quietly as a list does under head(1)."""
    app = group()

    @app.command("serve")
    def serve() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    @app.command("other")
    def other() -> None:
        """Make `app` a group."""

    with pytest.raises(RuntimeError, match="was closed"):
        app(["serve"])


@pytest.mark.parametrize("command", [("--help",), ("held", "list", "-h"), ("--version",)], ids=" ".join)
def test_help_into_a_closed_pipe_is_quiet(command: tuple[str, ...]) -> None:
    """Help and version too."""
    printed = into_closed_pipe(*command)
    assert (printed.status, printed.err) == (141, "")


def test_an_error_into_a_closed_pipe_is_quiet() -> None:
    """With standard error closed no error can be printed; the status is not 0."""
    printed = into_closed_pipe("check-config", "--config", "/nowhere", closed="stderr")
    assert (printed.status, printed.out) == (141, "")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("incidents", "list", "--limit", "x"), "'--limit': write a whole number, such as 100, or 0 for all"),
        (("incidents", "list", "--limit", "-1"), "'--limit': write a whole number, such as 100, or 0 for all"),
        (("incidents", "list", "--limit", "\u00b2"), "'--limit': write a whole number, such as 100, or 0 for all"),
        (("reload", "x"), "'PID': write the process id"),
        (("reload", "1"), "'PID': write the process id"),
        (("held", "release", "K7QF", "--as", "blind"), "'--as': write one of bcc, split, unchanged"),
        (("held", "release", "--as", "bcc"), "give references, or select by options such as --sender, and not both"),
        (("held", "list", "--since", "lately"), "write \"today\", \"2026-03-01\""),
        (("incidents", "list", "--state", "lost"), "write one of pending, held"),
        (("check-config", "undisclosed.toml"), "takes no undisclosed.toml; name a configuration by --config FILE."),
        (("explain", "--client", "localhost", "-"), "write one such as 192.0.2.1"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_in_plain_words(config: str, arguments: tuple[str, ...], remedy: str) -> None:
    """The error has the option and a correct value, and never the words of the libraries."""
    printed = into_pipe(*arguments, *(() if arguments[0] == "reload" else ("--config", config)))
    assert (printed.status, printed.out) == (2, "")
    assert remedy in printed.err
    assert not re.search(r"Input should|Value error|pydantic|Traceback", printed.err)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "undisclosed")
def test_help_is_readable(command: tuple[str, ...]) -> None:
    """At 80 columns nothing is cut, types are named as people name them, and -h is --help."""
    runner = CliRunner()
    long, short = (runner.invoke(cli.app, [*command, option], terminal_width=80) for option in ("--help", "-h"))
    assert long.exit_code == short.exit_code == 0
    assert long.output == short.output
    usage, _, rest = long.output.partition("\n\n")
    assert not re.search(r"<\w|\{|\.\.\.$|list\[|int range", rest, re.MULTILINE)
    assert "{" not in usage
    assert max(map(len, long.output.splitlines())) <= 80
    assert "-h, --help" in long.output


@pytest.mark.parametrize("unreadable", ["key", "config.toml"])
def test_a_command_without_rights_is_to_be_run_as_root(monkeypatch: pytest.MonkeyPatch, unreadable: str) -> None:
    """The advice never gives a file to another user: the milter could not read it any more (users' walk, 8)."""
    with TemporaryDirectory() as name, monkeypatch.context() as patch:
        directory = Path(name)
        directory.chmod(0o755)  # pytest's directories let nobody but root pass
        (directory / "config.toml").write_text(CONFIG.format(directory=directory))
        (directory / "key").write_bytes(KEY)
        (directory / "key").chmod(0o600)
        (directory / unreadable).chmod(0)
        words = ["held", "list", "--config", f"{directory}/config.toml", "--sender", "*@council.test"]
        patch.setattr(sys, "argv", ["undisclosed", *words])
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            result = CliRunner().invoke(cli.app, words)
        finally:
            os.seteuid(was)
    assert result.exit_code == 2
    assert result.output == (
        f"undisclosed: {directory}/{unreadable} cannot be read: permission denied\n"
        f"  run the command as root: sudo undisclosed held list --config {directory}/config.toml"
        " --sender '*@council.test'\n"
    )


def test_help_is_a_command_too() -> None:
    """`help held list` is `held list --help`; options before the command are refused with the right place."""
    runner = CliRunner()
    asked, helped = (runner.invoke(cli.app, words) for words in (["held", "list", "--help"], ["help", "held", "list"]))
    assert (helped.exit_code, helped.output) == (0, asked.output)
    refused = runner.invoke(cli.app, ["--config", "/etc/x", "check-config"])
    assert refused.exit_code == 2
    assert "--config follows the command: undisclosed check-config --config FILE" in refused.output


def test_help_shows_every_summary_whole() -> None:
    """Each command's line is the first sentence of its help, with its full stop."""
    for command in COMMANDS:
        output = CliRunner().invoke(cli.app, [*command, "-h"], terminal_width=80).output
        listed = output.partition("Commands:\n")[2]
        for entry in re.split(r"\n(?=  \w)", listed.rstrip()) if listed else ():
            assert entry.endswith("."), entry
            assert "\n" not in entry.strip(), entry
