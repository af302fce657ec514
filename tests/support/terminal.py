"""Runs `undisclosed` as a person does: on a terminal of some width, or into a pipe."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
from typing import NamedTuple

PROGRAM = (sys.executable, "-m", "undisclosed")


class Printed(NamedTuple):
    """The output of a command, and its exit status."""

    out: str
    err: str
    status: int


def on_terminal(width: int, *arguments: str, typed: str | None = None) -> Printed:
    """Run a command with a terminal of so many columns as its standard output and error.

    With `typed` it is its standard input too, and that text is typed at once; the terminal shows it where it is read.
    """
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        os.write(ours, (typed or "").encode())
        stdin = subprocess.DEVNULL if typed is None else theirs
        child = subprocess.Popen([*PROGRAM, *arguments], stdin=stdin, stdout=theirs, stderr=theirs, env=environment())
        os.close(theirs)
        with child:
            output = _all_of(terminal.fileno())
    return Printed(output.decode().replace("\r\n", "\n"), "", child.returncode)


def into_pipe(*arguments: str) -> Printed:
    """Run a command with pipes as its standard output and error."""
    done = subprocess.run(
        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, env=environment(), text=True
    )
    return Printed(done.stdout, done.stderr, done.returncode)


def into_closed_pipe(*arguments: str, closed: str = "stdout") -> Printed:
    """Run a command whose standard output, error or both are pipes that no process reads."""
    ends = os.pipe()
    os.close(ends[0])
    try:
        out, err = (ends[1] if name in closed.split() else subprocess.PIPE for name in ("stdout", "stderr"))
        done = subprocess.run(
            [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment(), text=True
        )
    finally:
        os.close(ends[1])
    return Printed(done.stdout or "", done.stderr or "", done.returncode)


def environment() -> dict[str, str]:
    """The environment of a login, without the variables for the terminal's width and colours."""
    unwanted = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "SUDO_USER"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}


def _all_of(terminal: int) -> bytes:
    """The output to a terminal until no process has it open: read(2) then fails with EIO (pty(7))."""
    output = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            return output
        if not chunk:
            return output
        output += chunk
