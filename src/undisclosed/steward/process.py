"""The steward as a process: starts the root half, gives its own rights up, and goes round until it is told to end."""

from __future__ import annotations

import os
import pwd
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Final

import structlog

from undisclosed import notices
from undisclosed.incidents.records import JournalError
from undisclosed.journal.journal import Journal
from undisclosed.notices import DispatchStatus, Templates
from undisclosed.service import sd_notify
from undisclosed.service.backoff import Backoff
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, RootHalfGoneError
from undisclosed.steward.rounds import Place, Steward

LISTEN: Final = 1.25
"""Seconds for which the journal is listened to at a time: so soon is a signal heard, and so often an idle one wakes."""

FIRST_PAUSE: Final = 1.0

MAX_PAUSE: Final = 30.0
"""Seconds between two attempts while the journal or Postfix fails: `FIRST_PAUSE`, then twice as long each time."""


class NoSuchUserError(Exception):
    """The user whose rights the steward is to have does not exist. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration says to the steward."""

    place: Place
    templates: Templates


def run(load: Callable[[], Settings], user: str, log: structlog.BoundLogger) -> None:
    """Be the steward until SIGTERM or SIGINT; SIGHUP reads the configuration again.

    `load` raises ConfigError; at a reload it is logged, and what was stays. Raises NoSuchUserError, UnusableError for
    a journal that has to be upgraded first, and RootHalfGoneError when the root half has ended.
    """
    settings = load()
    place = settings.place
    with HoldQueue(place.policy.postfix.config_dir) as queue:
        if os.geteuid() == 0:
            drop(user)
        else:
            log.warning("not_running_as_root", reason="only root can read and change Postfix's queue")
        journal = Journal(place.policy.journal, place.key)
        journal.check()
        try:
            _Loop(settings, journal, queue, load, log).run()
        finally:
            journal.close()


def drop(user: str) -> None:
    """Become this user, for good, with their groups. Raises NoSuchUserError."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise NoSuchUserError(f"there is no user {user!r}: name the milter's with --user") from None
    if entry.pw_uid == 0:
        return
    os.initgroups(user, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    if 0 in (*os.getresuid(), *os.getresgid()):
        raise RuntimeError("root's rights could not be given up")


class _Loop:
    """Rounds, one after the other: at once when the journal has news, else when the last one said."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        queue: HoldQueue,
        load: Callable[[], Settings],
        log: structlog.BoundLogger,
    ) -> None:
        self._settings = settings
        self._steward = Steward(settings.place, journal, queue, log, self._deliver)
        send = partial(notices.send, config_dir=settings.place.policy.postfix.config_dir)
        self._dispatcher = notices.Dispatcher(journal, settings.place.gateway, send)
        self._journal = journal
        self._load = load
        self._log = log
        self._ending = False
        self._reload = False
        self._failing = ""

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, self._want_reload)
        sd_notify.send("READY=1")
        self._log.info("steward_ready", gateway=self._steward.place.gateway)
        pauses = Backoff(FIRST_PAUSE, MAX_PAUSE)
        while not self._ending:
            if self._reload:
                self._read_again()
            try:
                self._wait_until(self._steward.round(datetime.now(UTC)))
            except RootHalfGoneError:
                raise
            except (JournalError, HoldQueueError) as error:
                self._say_failing(str(error))
                self._sleep(pauses.next())
            else:
                if self._failing:
                    self._log.info("steward_works_again")
                self._failing = ""
                pauses.reset()
        sd_notify.send("STOPPING=1")

    def _deliver(self, now: datetime) -> None:
        for outcome in self._dispatcher.dispatch(self._settings.place.policy, self._settings.templates, now):
            reference, kind = outcome.reference, outcome.notice.kind
            match outcome.status:
                case DispatchStatus.SENT:
                    self._log.info("notice_sent", reference=reference, kind=kind)
                case DispatchStatus.SUPPRESSED:
                    self._log.info("notice_suppressed", reference=reference, kind=kind, reason=outcome.why)
                case DispatchStatus.FAILED:
                    self._log.warning("notice_failed", reference=reference, kind=kind, reason=outcome.why)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _want_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload = True

    def _wait_until(self, moment: datetime) -> None:
        while not (self._ending or self._reload) and (left := (moment - datetime.now(UTC)).total_seconds()) > 0:
            if self._journal.wait(min(left, LISTEN)):
                return

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._ending and time.monotonic() < until:
            time.sleep(min(FIRST_PAUSE, seconds))

    def _say_failing(self, why: str) -> None:
        if why != self._failing:
            self._log.error("steward_failing", reason=why)
        self._failing = why

    def _read_again(self) -> None:
        from undisclosed.config.errors import ConfigError

        self._reload = False
        before = self._steward.place
        try:
            settings = self._load()
        except ConfigError as error:
            self._log.error("reload_refused", reason=str(error), effect="the old configuration stays in force")
        else:
            policy = settings.place.policy
            if (policy.journal, policy.postfix) != (before.policy.journal, before.policy.postfix):
                self._log.warning(
                    "restart_needed", settings=["journal", "postfix"], reason="a reload does not change them"
                )
            self._settings = Settings(Place(policy, before.key, before.gateway), settings.templates)
            self._steward.place = self._settings.place
            self._log.info("reloaded")
        sd_notify.send("READY=1")
