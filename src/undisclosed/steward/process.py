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
from undisclosed.service.reload import Outcome, OutcomeFile, ReloadRefused
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


def run(settings: Settings, reload: Callable[[], Settings], user: str, log: structlog.BoundLogger) -> None:
    """Be the steward until SIGTERM or SIGINT; SIGHUP reloads: `reload` reads the file, or raises ReloadRefused.

    Raises NoSuchUserError, UnusableError for a journal that has to be upgraded first, JournalError for one that cannot
    be reached at the start, and RootHalfGoneError when the root half has ended.
    """
    place = settings.place
    outcomes = OutcomeFile.of_this_service()
    with HoldQueue(place.policy.postfix.config_dir) as queue:
        if os.geteuid() == 0:
            account = find_account(user)
            outcomes.prepare(account.pw_uid, account.pw_gid)
            drop_rights(account)
        else:
            log.warning("not_running_as_root", reason="only root can read and change Postfix's queue")
            outcomes.prepare()
        journal = Journal(place.policy.journal, place.key)
        journal.check()
        try:
            _Loop(settings, journal, queue, reload, log, outcomes).run()
        finally:
            journal.close()


def find_account(user: str) -> pwd.struct_passwd:
    """The account with this name. Raises NoSuchUserError."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise NoSuchUserError(f"there is no user {user!r}: name the milter's with --user") from None


def drop_rights(account: pwd.struct_passwd) -> None:
    """Become this user, with their groups, and never root again."""
    if account.pw_uid == 0:
        return
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    if 0 in (*os.getresuid(), *os.getresgid()):
        raise RuntimeError("root's rights could not be given up")


class _Loop:
    """Rounds, one after the other: at once when the journal has news, else when the last one said."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        queue: HoldQueue,
        reload: Callable[[], Settings],
        log: structlog.BoundLogger,
        outcomes: OutcomeFile,
    ) -> None:
        self._settings = settings
        self._steward = Steward(settings.place, journal, queue, log, self._deliver)
        send = partial(notices.send, config_dir=settings.place.policy.postfix.config_dir)
        self._dispatcher = notices.Dispatcher(journal, settings.place.gateway, send)
        self._journal = journal
        self._load = reload
        self._log = log
        self._outcomes = outcomes
        self._ending = False
        self._reload = False
        self._failing = ""

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, self._want_reload)
        sd_notify.send("READY=1", status="running")
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
        while not (self._ending or self._reload) and time.monotonic() < until:
            time.sleep(min(FIRST_PAUSE, seconds))

    def _say_failing(self, why: str) -> None:
        if why != self._failing:
            self._log.error("steward_failing", reason=why)
        self._failing = why

    def _read_again(self) -> None:
        self._reload = False
        began = time.monotonic_ns()
        before = self._steward.place
        try:
            settings = self._load()
        except ReloadRefused as error:
            reason = str(error)
            self._log.error("reload_refused", reason=reason, effect="the old configuration stays in force")
            self._outcomes.write(Outcome(began, refused=reason))
            status = f"reload refused, the old configuration stays in force: {reason}"
        else:
            changed = before.policy.changed_settings(settings.place.policy, "journal", "postfix", "log")
            if changed:
                self._log.warning("restart_needed", settings=changed, reason="a reload does not change them")
            self._settings = Settings(Place(settings.place.policy, before.key, before.gateway), settings.templates)
            self._steward.place = self._settings.place
            self._log.info("reloaded")
            self._outcomes.write(Outcome(began, restart=tuple(changed)))
            status = "running"
        sd_notify.send("READY=1", status)
