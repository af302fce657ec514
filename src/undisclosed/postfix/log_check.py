"""Whether the steward can read Postfix's log, for `undisclosed postfix status`: writes a mark, and looks for it."""

from __future__ import annotations

import grp
import os
import shutil
import stat
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from undisclosed.postfix.mail_log import LOG_GROUPS, MailLog, read_settings
from undisclosed.postfix.model import Finding, Level
from undisclosed.postfix.postconf import SBIN, Postconf

WAIT: Final = 3.0
"""Seconds in which a line must appear in the log."""

_PAUSE: Final = 0.05
_HARM: Final = "By itself (split, delay) it then releases mail only if nothing but our milter can put mail on hold"


def check_log(postconf: Postconf, other_holders: int) -> Finding:
    """The finding. `other_holders`: how many things can put mail on hold beside our milter. Raises PostfixError."""
    settings = read_settings(postconf)
    if os.geteuid() != 0:
        return Finding(Level.NOTE, "the mail log was not looked for.", "run this command as root")
    with closing(MailLog(settings)) as log:
        is_written = _write(postconf, settings.main_name, log.new_mark())
        place = _place(log) if is_written else None
        why = log.why_unreadable or "no line that was written for this check has appeared in it"
    if place is not None and (hidden := _why_hidden(place)) is None:
        return Finding(Level.OK, f"the steward can read the mail log: {place}.")
    harm = f"{_HARM}: here {other_holders} things can." if other_holders else f"{_HARM}."
    if place is None:
        return Finding(Level.NOTE, f"the mail log cannot be read: {why}. {harm}", "see docs/install.md, The mail log")
    return Finding(Level.NOTE, f"the steward cannot read the mail log: {hidden}. {harm}", _remedy(place))


def _write(postconf: Postconf, name: str, mark: str) -> bool:
    command = shutil.which("postlog", path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if command is None:
        return False
    line = [command, "-c", str(postconf.directory), "-t", f"{name}/undisclosed", "-p", "info", f"{mark} (status)"]
    done = subprocess.run(line, capture_output=True, check=False)  # noqa: S603 - no shell
    return done.returncode == 0


def _place(log: MailLog) -> str | None:
    deadline = time.monotonic() + WAIT
    while True:
        log.read([])
        if log.is_mark_seen():
            return log.place
        if log.why_unreadable is not None or time.monotonic() > deadline:
            return None
        time.sleep(_PAUSE)


def _why_hidden(place: str) -> str | None:
    """Why a member of LOG_GROUPS cannot read it; None if they can."""
    file = Path(place)
    if not file.is_absolute():
        return None  # journald gives its files to these groups
    fact = file.stat()
    try:
        group = grp.getgrgid(fact.st_gid).gr_name
    except KeyError:
        group = str(fact.st_gid)
    if fact.st_mode & stat.S_IROTH or (fact.st_mode & stat.S_IRGRP and group in LOG_GROUPS):
        return None
    return f"{place} has mode {stat.S_IMODE(fact.st_mode):04o} and group {group}"


def _remedy(place: str) -> str:
    return (
        f"chgrp {LOG_GROUPS[0]} {place} && chmod 640 {place}, also after it is rotated (docs/install.md, The mail log)"
    )
