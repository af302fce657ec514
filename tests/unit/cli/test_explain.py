"""`undisclosed explain`: its output, its exit status, and text that it never prints."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import pytest

from support.factories import policy, rule, strangers
from undisclosed.cli.explain import run
from undisclosed.cli.output import Output
from undisclosed.explain.message_file import Envelope
from undisclosed.policy import Policy


class Terminal(io.StringIO):
    """A stream in memory that says it is a terminal."""

    def isatty(self) -> bool:
        """True."""
        return True


class Shell:
    """Runs the command in a directory and keeps its output."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.out: TextIO = io.StringIO()
        self.err: TextIO = io.StringIO()

    def printed(self) -> str:
        """The standard output so far."""
        assert isinstance(self.out, io.StringIO)
        return self.out.getvalue()

    def complaints(self) -> str:
        """The standard error so far."""
        assert isinstance(self.err, io.StringIO)
        return self.err.getvalue()

    def save(self, name: str, raw: bytes) -> str:
        """Save a message, and return its path."""
        path = self.directory / name
        path.write_bytes(raw)
        return str(path)

    def explain(
        self,
        files: Sequence[str],
        policy: Policy,
        *,
        as_json: bool = False,
        stdin: bytes = b"",
        sender: str | None = None,
    ) -> int:
        """Run the command, and return its exit status."""
        output = Output(self.out, self.err, as_json)
        return run(policy, b"k" * 32, files, Envelope(sender=sender), io.BytesIO(stdin), output)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in an empty directory, with a terminal type that knows colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Shell(tmp_path)


def mail(count: int, **more: str) -> bytes:
    """A message to this many strangers."""
    fields = {"From": "clerk@council.test", "Message-ID": "<1@council.test>", "To": ", ".join(strangers(count)), **more}
    return "".join(f"{name}: {value}\n" for name, value in fields.items()).encode() + b"\nhello\n"


def test_the_text_has_every_fact(shell: Shell) -> None:
    """The effect, the reason, the visible addresses, and the reply to the sender."""
    assert shell.explain([shell.save("school.eml", mail(95))], policy()) == 1
    text = shell.printed()
    for part in (
        "school.eml",
        "action\treject - refused (550 5.7.0)\n",
        "clerk@council.test, to 95 recipients",
        "too many in sight",
        "95 external addresses, the limit is 10",
        "95 external addresses of 95 organisations",
        "To 95",
        "550-5.7.0 Not sent. Please put your own address in To, all others in Bcc, and send it again.",
        "550 5.7.0 Everyone would have seen 95 outside addresses: use Bcc. Reference: ",
        "parent20@family20.test and 75 more",
    ):
        assert part in text
    assert "parent21@family21.test" not in text
    assert "\x1b" not in text
    assert shell.complaints() == ""


def test_a_rewrite_is_shown(shell: Shell) -> None:
    """The header before and after; a long field is shortened."""
    assert shell.explain([shell.save("a.eml", mail(95))], policy(rules=[rule(action="rewrite")])) == 0
    text = shell.printed()
    assert "header then\tTo: clerk@council.test\n" in text
    assert "characters)" in text


def test_in_monitor_mode_the_action_is_only_recorded(shell: Shell) -> None:
    """The text must not say "refused" of a message that is delivered."""
    assert shell.explain([shell.save("a.eml", mail(95))], policy(mode="monitor")) == 1
    assert "reject - only recorded: in monitor mode it is delivered unchanged" in shell.printed()


def test_colours_are_for_terminals(shell: Shell) -> None:
    """The action is red on a terminal."""
    shell.out = Terminal()
    shell.explain([shell.save("a.eml", mail(95))], policy())
    assert re.search(r"\x1b\[[0-9;]*31m\s*reject", shell.printed())


def test_json_lines(shell: Shell) -> None:
    """With --json every message is one object on one line, with all addresses."""
    files = [shell.save("a.eml", mail(95)), shell.save("b.eml", mail(1))]
    assert shell.explain(files, policy(), as_json=True) == 1
    first, second = map(json.loads, shell.printed().splitlines())
    assert (first["file"], first["action"], first["count"]) == (files[0], "reject", 95)
    assert first["visible_external"] == strangers(95)
    assert (second["file"], second["action"], second["reply"]) == (files[1], "accept", None)


def test_standard_input(shell: Shell) -> None:
    """`-` is the message on standard input."""
    assert shell.explain(["-"], policy(), as_json=True, stdin=mail(11)) == 1
    assert json.loads(shell.printed())["file"] == "-"


@pytest.mark.parametrize(
    ("action", "status"), [("accept", 0), ("warn", 0), ("rewrite", 0), ("quarantine", 1), ("reject", 1)]
)
def test_the_exit_status_says_whether_it_would_be_stopped(shell: Shell, action: str, status: int) -> None:
    """1 if the message would be held or refused, 0 if it would be delivered."""
    rules = [rule(action=action), rule(name="the rest", more_than_addresses=0, action="warn")]
    assert shell.explain([shell.save("a.eml", mail(11))], policy(rules=rules), as_json=True) == status


def test_one_bad_file_does_not_stop_the_others(shell: Shell) -> None:
    """A file that is not a message gets a line on standard error and status 2; the others are explained."""
    files = [
        str(shell.directory),
        shell.save("a.eml", mail(95)),
        shell.save("b.eml", b""),
        shell.save("c.eml", mail(1)),
    ]
    assert shell.explain(files, policy(), as_json=True) == 2
    assert [json.loads(line)["action"] for line in shell.printed().splitlines()] == ["reject", "accept"]
    assert shell.complaints().splitlines() == [
        f"undisclosed: {files[0]}: a directory; name the files in it, one message each",
        f"undisclosed: {files[2]}: empty; save the message once more, with its header",
    ]


def test_a_message_cannot_control_the_terminal(shell: Shell) -> None:
    """Escape sequences and direction marks are written as escapes, and rich's markup stays text."""
    shell.out = Terminal()
    hostile = "a\x1b[2J\x9b2J\u202e[red]b[/red]@family.test"
    raw = b"From: clerk@council.test\nTo: \xff <x@y.test>, b@y.test\nCc: " + f'"{hostile}"'.encode() + b"@evil.test\n\n"
    name = shell.save("[bold]\x1b]0;x\x07.eml", raw)
    rules = [rule(name="[link=https://evil.example]x[/link]", more_than_addresses=0, action="rewrite")]
    shell.explain([name], policy(rules=rules), sender=hostile)
    text = re.sub(r"\x1b\[[0-9;]*m", "", shell.printed())
    assert not re.search(r"[^\x20-\x7e\n]", text)
    assert "[bold]\\x1b]0;x\\x07.eml" in text
    assert "a\\x1b[2J\\x9b2J\\u202e[red]b[/red]@family.test" in text
    assert "[link=https://evil.example]x[/link]" in text


def test_a_stream_without_utf8_is_no_reason_to_stop(tmp_path: Path) -> None:
    """Under an ASCII locale, letters that it lacks are written as escapes."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    shell = Shell(tmp_path)
    shell.out = out
    assert shell.explain([shell.save("a.eml", mail(11, Cc="Ll\u0177n <llŷn@family.test>"))], policy()) == 1
    out.flush()
    assert b"\\u0177" in raw.getvalue()


def test_progress_is_shown_only_where_the_output_is_elsewhere(shell: Shell) -> None:
    """A bar is drawn on a terminal if the output goes to a file; else it would be among the output, or in a log."""
    files = [shell.save(f"{number}.eml", mail(1)) for number in range(30)]
    shell.err = Terminal()
    shell.explain(files, policy(), as_json=True)
    assert "30/30" in shell.complaints()
    assert len(shell.printed().splitlines()) == 30
    shell.err, shell.out = Terminal(), Terminal()
    shell.explain(files, policy())
    assert shell.complaints() == ""
