"""The log: named events through structlog, one line each, to standard error.

A line holds counts, the envelope sender and keyed references, never a recipient's address.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

EventDict = MutableMapping[str, Any]


class _Line:
    """Writes one line with one system call, so that the lines of several processes do not mix (pipe(7), PIPE_BUF)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def msg(self, text: str) -> None:
        # A log that cannot be written must not change the answer to a message, nor stop ordinary mail.
        with contextlib.suppress(OSError):
            os.write(self._fd, (text + "\n").encode("utf-8", "backslashreplace"))

    debug = info = warning = error = critical = msg


def _in_one_line(_logger: object, _method: str, event: EventDict) -> EventDict:
    """What happened first; and no text from a message can end the line, fake another or move a terminal's cursor."""
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event")} | dict(event)
    for key, value in ordered.items():
        if isinstance(value, str) and not value.isprintable():
            ordered[key] = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
    return ordered


def configure(form: Literal["json", "console"], fd: int = 2) -> None:
    """Set the form of the log for this process and those it forks. Colours only where `fd` is a terminal."""
    if form == "json":
        renderer: structlog.typing.Processor = structlog.processors.JSONRenderer(ensure_ascii=True)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=os.isatty(fd) and "NO_COLOR" not in os.environ)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
            if form == "json"
            else structlog.processors.ExceptionRenderer(),
            _in_one_line,
            renderer,
        ],
        wrapper_class=structlog.BoundLogger,
        logger_factory=lambda *_: _Line(fd),
        cache_logger_on_first_use=True,
    )


def get() -> structlog.BoundLogger:
    """The logger of this process."""
    sys.stderr.flush()
    logger: structlog.BoundLogger = structlog.get_logger()
    return logger
