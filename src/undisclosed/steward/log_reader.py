"""Follows Postfix's log for the steward, and knows whether everything in it has been read.

The root half writes a mark into the log; when the mark is read, so is all that was logged before. A log that comes late
thus only delays the steward. One in which no mark appears within DEADLINE cannot be read; it is looked for again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from enum import Enum
from pathlib import Path
from typing import Final

import structlog

from undisclosed.postfix import PostfixError
from undisclosed.postfix.log_events import LogEvents
from undisclosed.postfix.mail_log import LogSettings, MailLog, read_settings
from undisclosed.postfix.postconf import Postconf
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, RootHalfGoneError

DEADLINE: Final = 30.0
"""Seconds of monotonic time in which a line must appear in the log."""

ASK_AGAIN: Final = 60.0
"""Seconds until a log that could not be read is looked for again: Postfix may log elsewhere by then."""

LOOK: Final = 0.2
"""Seconds for which a round looks for its mark: a logger usually needs some milliseconds."""

_PAUSE: Final = 0.01


def settings_of(config_dir: Path) -> LogSettings:
    """Where Postfix logs. Raises PostfixError."""
    return read_settings(Postconf(config_dir))


class LogState(Enum):
    """Whether the log tells everything that was logged until now."""

    CURRENT = "current"
    LATE = "late"
    """Not yet: it may within DEADLINE."""
    UNREADABLE = "unreadable"


class LogReader:
    """The log of one Postfix instance."""

    def __init__(
        self, queue: HoldQueue, log: structlog.BoundLogger, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._log = log
        self._monotonic = monotonic
        self._mail_log: MailLog | None = None
        self._settings: LogSettings | None = None
        self._config_dir: Path | None = None
        self._keep: Collection[str] = ()
        self._found_at = 0.0
        self._marked_at: float | None = None
        """When the mark was written that is looked for; None: none is."""
        self.why_unreadable: str | None = None
        """Why the log cannot be read; None as long as it may be."""

    @property
    def events(self) -> LogEvents:
        """The events of the log: none as long as it cannot be read."""
        return self._mail_log.events if self._mail_log is not None else _NOTHING

    @property
    def is_found(self) -> bool:
        """Whether it is known where Postfix logs."""
        return self._mail_log is not None and self._mail_log.place is not None

    @property
    def is_readable(self) -> bool:
        """Whether it is known where Postfix logs, and that was not found wanting."""
        return self.is_found and self.why_unreadable is None

    def read(self, config_dir: Path, keep: Collection[str]) -> None:
        """Read what was logged since the last call. `keep`: queue ids whose lines must not be forgotten."""
        self._keep = keep
        is_old = self.why_unreadable is not None and self._monotonic() - self._found_at >= ASK_AGAIN
        if self._config_dir != config_dir or is_old:
            self._find(config_dir)
        if self._mail_log is not None:
            self._mail_log.read(keep)
            if self._marked_at is not None and self._mail_log.is_mark_seen():
                self._confirm()

    def state(self) -> LogState:
        """Whether all is read that was logged before this call. Raises RootHalfGoneError."""
        if self._mail_log is None:
            return LogState.UNREADABLE
        if self._marked_at is None and self.why_unreadable is None:
            self._write_mark()
        if self._marked_at is not None and self._look():
            return LogState.CURRENT
        return LogState.LATE if self.why_unreadable is None else LogState.UNREADABLE

    def close(self) -> None:
        """Close the log."""
        if self._mail_log is not None:
            self._mail_log.close()
            self._mail_log = None

    def _find(self, config_dir: Path) -> None:
        """Ask Postfix where it logs; where it could not be read before, a mark tells when it can."""
        self._config_dir, self._found_at, self._marked_at = config_dir, self._monotonic(), None
        try:
            settings = settings_of(config_dir)
        except (PostfixError, OSError) as error:
            self.close()
            self._give_up(str(error))
            return
        if self._mail_log is None or self._mail_log.place is not None or settings != self._settings:
            # Else all places are followed already: to read each from before once a minute would cost seconds.
            self.close()
            self._mail_log, self._settings = MailLog(settings), settings
        if self.why_unreadable is not None:
            self._write_mark()

    def _write_mark(self) -> None:
        assert self._mail_log is not None
        try:
            self._queue.mark(self._mail_log.new_mark())
        except RootHalfGoneError:
            raise
        except HoldQueueError as error:
            self._give_up(str(error))
        else:
            self._marked_at = self._monotonic()

    def _look(self) -> bool:
        """Look for the mark for a moment."""
        assert self._mail_log is not None
        assert self._marked_at is not None
        end = time.monotonic() + LOOK
        while not self._mail_log.is_mark_seen():
            why = self._mail_log.why_unreadable
            if why is not None:
                self._give_up(why)
                return False
            if self._monotonic() - self._marked_at >= DEADLINE:
                self._give_up(f"a line that was written into it has not appeared within {DEADLINE:g} s")
                return False
            if time.monotonic() >= end or self.why_unreadable is not None:
                return False
            time.sleep(_PAUSE)
            self._mail_log.read(self._keep)
        self._confirm()
        return True

    def _confirm(self) -> None:
        assert self._mail_log is not None
        if self.why_unreadable is not None:
            self._log.info("mail_log_found", place=self._mail_log.place)
        self._marked_at, self.why_unreadable = None, None

    def _give_up(self, why: str) -> None:
        """Tell it once; from then on it counts as unreadable until a mark is read."""
        if self.why_unreadable is None:
            self._log.warning("mail_log_unreadable", reason=why)
        self._marked_at, self.why_unreadable = None, why


_NOTHING: Final = LogEvents()
