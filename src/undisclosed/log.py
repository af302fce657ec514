"""The log: named events through structlog, one line each, to standard error.

A line holds counts, the envelope sender and keyed references, never a recipient's address.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

EventDict = MutableMapping[str, Any]
Form = Literal["json", "console"]


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
    """The event comes first. Control characters are escaped: a message's text cannot end the line or start another."""
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event")} | dict(event)
    for key, value in ordered.items():
        if isinstance(value, str) and not value.isprintable():
            ordered[key] = _Escaped("".join(char if char.isprintable() else ascii(char)[1:-1] for char in value))
    return ordered


class _Escaped(str):
    """A text whose control characters are escaped: in quotes, the text form must not escape the backslashes again."""

    __slots__ = ()

    def __repr__(self) -> str:
        return '"' + self.replace('"', '\\"') + '"'


_encoded = json.JSONEncoder(default=repr).encode


def _json(logger: object, method: str, event: EventDict) -> str:
    """The line as JSON. If the result has no backslash and no DEL, no value needs escaping, and it is final.

    Each message has a line, and escaping each of its values would take as long as the decision.
    """
    stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = _encoded({"timestamp": stamp, "level": method, "event": event.pop("event"), **event})
    if "\\" not in line and "\x7f" not in line:
        return line
    return _encoded(_in_one_line(logger, method, {"timestamp": stamp, "level": method, **json.loads(line)}))


def configure(form: Form, fd: int = 2) -> None:
    """Set the form of the log for this process and those it forks. Colours only where `fd` is a terminal."""
    processors: list[structlog.typing.Processor]
    if form == "json":
        traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors = [structlog.processors.ExceptionRenderer(traceback), _json]
    else:
        processors = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            _in_one_line,
            structlog.dev.ConsoleRenderer(colors=os.isatty(fd) and "NO_COLOR" not in os.environ),
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.BoundLogger,
        logger_factory=lambda *_: _Line(fd),
        cache_logger_on_first_use=True,
    )


def get() -> structlog.BoundLogger:
    """The logger of this process, as it is configured now."""
    sys.stderr.flush()
    logger: structlog.BoundLogger = structlog.get_logger().bind()  # bound once: otherwise each line creates a logger
    return logger
