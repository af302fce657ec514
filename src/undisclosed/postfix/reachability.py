"""Whether Postfix's daemons can reach the milter's socket: chroot, permissions, and whether anything answers.

Values in, values out: `probe.py` looks at the sockets that `targets` names.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from undisclosed.postfix.milter_lists import ListError, Milter, OurMilter, milters
from undisclosed.postfix.model import Finding, Level, PostfixConfig, Service, names


class Step(NamedTuple):
    """A directory on the way to a socket, or the socket itself: permission bits, owner and group."""

    path: str
    mode: int
    uid: int
    gid: int


class Place(NamedTuple):
    """The place where Postfix looks for our milter, as `probe.py` found it.

    `state` is "socket", "missing", "other" (not a socket) or "hidden" (this user may not look); `way` goes from the
    first directory to the socket; `answers` says whether something listens, None where that was not tried.
    """

    state: str
    way: tuple[Step, ...] = ()
    answers: bool | None = None


class Account(NamedTuple):
    """The account of Postfix's daemons ($mail_owner): user id and all group ids."""

    name: str
    uid: int
    gids: frozenset[int]


class Caller(NamedTuple):
    """A service that calls our milter, and what it does with mail while nothing answers."""

    service: Service
    default_action: str


def targets(config: PostfixConfig, ours: OurMilter) -> dict[str, list[Caller]]:
    """The places where services look for our milter: a unix socket's path outside any chroot, or `inet:HOST:PORT`."""
    found: dict[str, list[Caller]] = {}
    for service, parameter in config.entrances:
        try:
            elements = [milter for milter in milters(service.settings[parameter]) if ours.matches(milter)]
        except ListError:
            continue  # assessment.py reports a list that cannot be read
        for milter in elements:
            action = milter.attribute("default_action") or service.settings["milter_default_action"]
            found.setdefault(_target(milter, service), []).append(Caller(service, action))
    return found


def _target(milter: Milter, service: Service) -> str:
    family, _, rest = milter.endpoint.partition(":")
    if family not in ("unix", "local"):
        return milter.endpoint
    if rest.startswith("/") and not service.chroot:
        return posixpath.normpath(rest)
    return posixpath.normpath(f"{service.settings['queue_directory']}/{rest}")


def check_reachability(
    config: PostfixConfig, ours: OurMilter, places: Mapping[str, Place], account: Account | None
) -> Iterator[Finding]:
    """Whether each service reaches our milter. `places`: the result of `probe` for each of `targets(config, ours)`."""
    if account is None:
        text = f"the account of Postfix, mail_owner = {config.main['mail_owner']}, does not exist on this host."
        yield Finding(Level.NOTE, text, "run this command on the host of that Postfix")
    for target, callers in targets(config, ours).items():
        yield _reached(target, callers, places[target], account)


def _reached(target: str, callers: Sequence[Caller], place: Place, account: Account | None) -> Finding:
    services = names(caller.service for caller in callers)
    obstacle = _obstacle(target, place, account)
    if obstacle is None:
        return Finding(Level.OK, f"{services}: the milter's socket {target} can be reached.")
    if place.state == "hidden":
        return Finding(Level.NOTE, f"{services}: {obstacle}.", "run this command as root")
    fix = "start the milter (undisclosed run) with this configuration"
    if target.startswith("/"):
        jails = sorted({caller.service.settings["queue_directory"] for caller in callers if caller.service.chroot})
        services += f" (chrooted in {', '.join(jails)})" if jails else ""
        fix += ", with its socket below the queue directory, in a directory that Postfix's account may enter"
    leaks = any(caller.default_action == "accept" for caller in callers)
    meanwhile = "mail goes out unchecked" if leaks else "all mail that comes in there waits or is refused for now"
    return Finding(Level.PROBLEM, f"{services}: {obstacle}. Until then {meanwhile}.", fix)


def _obstacle(target: str, place: Place, account: Account | None) -> str | None:
    match place.state:
        case "missing":
            return f"there is no socket at {target}"
        case "other":
            return f"{target} is not a socket"
        case "hidden":
            return f"this user may not look at {target}"
    for step in place.way if account else ():
        wanted, verb = (0o2, "write to") if step is place.way[-1] else (0o1, "enter")
        if account and not _allowed(step, account, wanted):
            return f"{account.name} may not {verb} {step.path} (mode {step.mode:04o}, {step.uid}:{step.gid})"
    return f"nothing answers at {target}" if place.answers is False else None


def _allowed(step: Step, account: Account, wanted: int) -> bool:
    if step.uid == account.uid:
        return bool(step.mode >> 6 & wanted)
    return bool((step.mode >> 3 if step.gid in account.gids else step.mode) & wanted)
