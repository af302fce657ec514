"""The steward as a process: starts the root half, drops root's rights, and makes rounds until SIGTERM or SIGINT."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Final

import structlog

from undisclosed import notices
from undisclosed.incidents.records import JournalError
from undisclosed.journal.changes import POLL_INTERVAL
from undisclosed.journal.journal import Journal
from undisclosed.notices import DispatchStatus, Templates
from undisclosed.postfix.mail_log import LOG_GROUPS
from undisclosed.service import sd_notify
from undisclosed.service.backoff import Backoff
from undisclosed.service.reload import ReloadResult, ReloadResultFile
from undisclosed.steward.context import Context
from undisclosed.steward.hold_queue import AnotherStewardError, HoldQueue, HoldQueueError, RootHalfGoneError
from undisclosed.steward.rounds import Steward

MAX_WAIT: Final = POLL_INTERVAL
"""Seconds of one wait for changes of the journal. A signal is noticed after one wait at most; an idle steward wakes
once in each."""

MAX_LISTED: Final = 20
"""References in one line of the log: a summary or a digest may be about thousands of messages."""

FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 30.0
"""Seconds between two rounds while the journal or Postfix fails: the first pause and the longest."""


class NoSuchUserError(Exception):
    """The user that the steward is to run as does not exist."""


@dataclass(frozen=True, slots=True)
class StewardSettings:
    """The configuration, as the steward uses it."""

    context: Context
    templates: Templates


def run(
    settings: StewardSettings, reload: Callable[[], StewardSettings], user: str, log: structlog.BoundLogger
) -> None:
    """Run the steward until SIGTERM or SIGINT. At SIGHUP, `reload` reads the configuration; an error refuses it.

    Raises NoSuchUserError, UnusableError for a journal of another version or key, JournalError if the journal cannot be
    reached at the start, AnotherStewardError if the hold queue has one, and RootHalfGoneError when the root half
    has ended.
    """
    context = settings.context
    result_file = ReloadResultFile.of_this_service()
    with HoldQueue(context.policy.postfix.config_dir) as queue:
        if os.geteuid() == 0:
            account = service_account(user)
            result_file.prepare(account.pw_uid, account.pw_gid)
            drop_rights(account)
        else:
            log.warning("not_running_as_root", reason="only root can read and change Postfix's queue")
            result_file.prepare()
        journal = Journal(context.policy.journal, context.key)
        try:
            journal.check()
            _RoundLoop(settings, journal, queue, reload, log, result_file).run()
        finally:
            journal.close()


def service_account(user: str) -> pwd.struct_passwd:
    """The account with this name. Raises NoSuchUserError."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise NoSuchUserError(f"there is no user {user!r}: pass the milter's user with --user") from None


def drop_rights(account: pwd.struct_passwd) -> None:
    """Become this user permanently, with its groups, and those of LOG_GROUPS that the service manager gave."""
    if account.pw_uid == 0:
        return
    given = set(os.getgroups())
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgroups(sorted({*os.getgroups(), *(given & _log_group_ids())}))
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    if 0 in (*os.getresuid(), *os.getresgid()):
        raise RuntimeError("root's rights could not be dropped")


def _log_group_ids() -> set[int]:
    found = set()
    for name in LOG_GROUPS:
        with suppress(KeyError):
            found.add(grp.getgrnam(name).gr_gid)
    return found


class _RoundLoop:
    """Makes rounds: as soon as the journal changes, and at the time that the round before asked for."""

    def __init__(
        self,
        settings: StewardSettings,
        journal: Journal,
        queue: HoldQueue,
        reload: Callable[[], StewardSettings],
        log: structlog.BoundLogger,
        result_file: ReloadResultFile,
    ) -> None:
        self._settings = settings
        self._started_with = settings.context.policy
        """The policy whose sections `journal`, `postfix` and `log` stay in force until a restart."""
        self._steward = Steward(settings.context, journal, queue, log, self._dispatch)
        send = partial(notices.send, config_dir=settings.context.policy.postfix.config_dir)
        self._dispatcher = notices.Dispatcher(journal, settings.context.gateway, send)
        self._journal = journal
        self._queue = queue
        self._load = reload
        self._log = log
        self._result_file = result_file
        self._is_ending = False
        self._must_reload = False
        self._failure = ""

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._on_end)
        signal.signal(signal.SIGINT, self._on_end)
        signal.signal(signal.SIGHUP, self._on_reload)
        try:
            self._queue.lock()
        except (RootHalfGoneError, AnotherStewardError):
            raise
        except HoldQueueError as error:  # Postfix is away: the first round tries again
            self._log_failure(str(error))
        sd_notify.send("READY=1", status="running")
        self._log.info("steward_ready", gateway=self._steward.context.gateway)
        pauses = Backoff(FIRST_PAUSE, MAX_PAUSE)
        while not self._is_ending:
            if self._must_reload:
                self._reload()
            try:
                self._queue.lock()  # nothing is done without it; it is taken once
                began, now = time.monotonic(), datetime.now(UTC)
                self._wait_until(began + (self._steward.round(now) - now).total_seconds())
            except (RootHalfGoneError, AnotherStewardError):
                raise
            except (JournalError, HoldQueueError) as error:
                self._log_failure(str(error))
                self._pause(pauses.next())
            except Exception as error:  # noqa: BLE001 - held mail must not wait for a restart, which may fail as well
                self._log_failure(f"{type(error).__name__}: {error}", error)
                self._pause(pauses.next())
            else:
                if self._failure:
                    self._log.info("steward_works_again")
                self._failure = ""
                pauses.reset()
        self._steward.close()
        sd_notify.send("STOPPING=1", status="stopped")

    def _dispatch(self, now: datetime) -> None:
        for result in self._dispatcher.dispatch(self._settings.context.policy, self._settings.templates, now):
            reference, kind = ", ".join(result.references[:MAX_LISTED]), result.kind
            match result.status:
                case DispatchStatus.SENT:
                    self._log.info("notice_sent", reference=reference, kind=kind, messages=len(result.references))
                case DispatchStatus.SUPPRESSED:
                    self._log.info("notice_suppressed", reference=reference, kind=kind, reason=result.why)
                case DispatchStatus.FOR_ADMINISTRATOR:
                    self._log.warning("sender_not_told", reference=reference, kind=kind, reason=result.why)
                case DispatchStatus.FAILED:
                    self._log.warning("notice_failed", reference=reference, kind=kind, reason=result.why)

    def _on_end(self, _number: int, _frame: FrameType | None) -> None:
        self._is_ending = True

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._must_reload = True

    def _wait_until(self, moment: float) -> None:
        """Wait until this time of the monotonic clock, a change of the journal, or a signal."""
        while not (self._is_ending or self._must_reload):
            left = moment - time.monotonic()
            if left <= 0 or self._journal.wait(min(left, MAX_WAIT)):
                return

    def _pause(self, seconds: float) -> None:
        """Sleep, unless a signal ends or reloads the steward."""
        end = time.monotonic() + seconds
        while not (self._is_ending or self._must_reload) and (left := end - time.monotonic()) > 0:
            time.sleep(min(FIRST_PAUSE, left))

    def _log_failure(self, reason: str, unexpected: Exception | None = None) -> None:
        """Log a failure once, not in every round; one that was not foreseen with its trace."""
        if reason != self._failure:
            self._log.error("steward_failing", reason=reason, exc_info=unexpected)
        self._failure = reason

    def _reload(self) -> None:
        self._must_reload = False
        began = time.monotonic_ns()
        before = self._steward.context
        try:
            settings = self._load()
        except Exception as error:  # noqa: BLE001 - an error in a reload must not end the service
            reason = str(error) or type(error).__name__
            self._log.error("reload_refused", reason=reason, effect="the old configuration stays in force")
            self._result_file.write(ReloadResult(began, refused=reason))
            status = f"reload refused, the old configuration stays in force: {reason}"
        else:
            policy = settings.context.policy
            changed = self._started_with.changed_settings(policy, "journal", "postfix", "log")
            if changed:
                self._log.warning("restart_needed", settings=changed, reason="a reload does not change them")
            self._settings = replace(settings, context=replace(before, policy=policy))
            self._steward.context = self._settings.context
            self._log.info("reloaded")
            self._result_file.write(ReloadResult(began, restart=tuple(changed)))
            status = "running"
        sd_notify.send("READY=1", status)
