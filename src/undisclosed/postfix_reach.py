"""Whether Postfix's daemons can reach the milter's socket: chroot, permissions, and whether anything answers.

Values in, values out: `postfix.py` looks at the places that `targets` names.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from undisclosed.postfix_lists import ListError, Milter, Ours, milters
from undisclosed.postfix_settings import Finding, Level, Service, Settings, names


class Step(NamedTuple):
    """A directory on the way to a socket, or the socket itself: permission bits, owner and group."""

    path: str
    mode: int
    uid: int
    gid: int


class Place(NamedTuple):
    """What is found where Postfix looks for our milter.

    `state` is "socket", "missing", "other" (something else stands there) or "hidden" (we may not look); `way` goes from
    the first directory to the socket; `answers` says whether something listens, None where that was not tried.
    """

    state: str
    way: tuple[Step, ...] = ()
    answers: bool | None = None


class Account(NamedTuple):
    """Whom Postfix's daemons run as ($mail_owner): user id and all group ids."""

    name: str
    uid: int
    gids: frozenset[int]


def targets(settings: Settings, mine: Ours) -> dict[str, list[Service]]:
    """Where services look for our milter: a unix socket's path outside any chroot, or `inet:HOST:PORT`."""
    found: dict[str, list[Service]] = {}
    for service, parameter in settings.entrances:
        try:
            elements = [milter for milter in milters(service.settings[parameter]) if mine.is_(milter)]
        except ListError:
            continue  # _lists says so
        for milter in elements:
            found.setdefault(_target(milter, service), []).append(service)
    return found


def _target(milter: Milter, service: Service) -> str:
    family, _, rest = milter.endpoint.partition(":")
    if family not in ("unix", "local"):
        return milter.endpoint
    if rest.startswith("/") and not service.chroot:
        return posixpath.normpath(rest)
    return posixpath.normpath(f"{service.settings['queue_directory']}/{rest}")


# -- the socket ----------------------------------------------------------------------------------------------------


def reach(
    settings: Settings, mine: Ours, enforce: bool, places: Mapping[str, Place], account: Account | None
) -> Iterator[Finding]:
    """What keeps Postfix from our milter. `places` has the result of a look at each of `targets(settings, mine)`."""
    meanwhile = "all mail is told to come back later" if enforce else "mail goes out unchecked"
    if account is None:
        text = f"the account of Postfix, mail_owner = {settings.main['mail_owner']}, does not exist on this host."
        yield Finding(Level.NOTE, text, "run this command on the host of that Postfix")
    for target, services in targets(settings, mine).items():
        who = names(services)
        why = _obstacle(target, places[target], account)
        jails = sorted(
            {service.settings["queue_directory"] for service in services if service.chroot and target.startswith("/")}
        )
        if why is None:
            yield Finding(Level.OK, f"{who}: the milter's socket {target} can be reached.")
        elif places[target].state == "hidden":
            yield Finding(Level.NOTE, f"{who}: {why}.", "run this command as root")
        else:
            chrooted = f" (chrooted in {', '.join(jails)})" if jails else ""
            fix = "start the milter (undisclosed run) with this configuration"
            if target.startswith("/"):
                fix += ", its socket below the queue directory, in a directory that Postfix's account may enter"
            yield Finding(Level.PROBLEM, f"{who}{chrooted}: {why}. Until then {meanwhile}.", fix)


def _obstacle(target: str, place: Place, account: Account | None) -> str | None:
    match place.state:
        case "missing":
            return f"there is no socket at {target}"
        case "other":
            return f"{target} is not a socket"
        case "hidden":
            return f"{target} cannot be looked at by this user"
    for step in place.way if account else ():
        wanted, what = (0o2, "write to") if step is place.way[-1] else (0o1, "enter")
        if account and not _allowed(step, account, wanted):
            return f"{account.name} may not {what} {step.path} (mode {step.mode:04o}, {step.uid}:{step.gid})"
    return f"nothing answers at {target}" if place.answers is False else None


def _allowed(step: Step, account: Account, wanted: int) -> bool:
    if step.uid == account.uid:
        return bool(step.mode >> 6 & wanted)
    return bool((step.mode >> 3 if step.gid in account.gids else step.mode) & wanted)
