"""A Postfix configuration as data: its parameters, its services, and findings about them.

Values only: `postconf.py` reads them; `assessment.py`, `reachability.py` and `master_cf.py` make the findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """The severity of a finding. Only a problem makes the exit status of `status` 1."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """A sentence about the configuration, and what to do about it."""

    level: Level
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        """The finding in one line."""
        return f"{self.level}: {self.text}" + (f" -> {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Service:
    """One line of master.cf: the program that it runs, and the settings in force in it (main.cf, then its own `-o`).

    `overrides` are the names that its `-o` set; `stress`: the settings are in force only while stress=yes
    (STRESS_README).
    """

    name: str
    type: str
    program: str
    chroot: bool
    settings: Mapping[str, str]
    overrides: frozenset[str] = frozenset()
    stress: bool = False

    @property
    def label(self) -> str:
        """Its name as postconf(1) writes it, such as `submission/inet`."""
        return f"{self.name}/{self.type}" + (" under stress" if self.stress else "")

    @property
    def local_only(self) -> bool:
        """Whether only programs on this host can connect to it."""
        host = self.name.rpartition(":")[0].strip("[]")
        loopback = re.fullmatch(r"127(?:\.\d+){3}|::1|localhost", host) is not None
        return self.type in ("unix", "fifo") or loopback


@dataclass(frozen=True)
class PostfixConfig:
    """One Postfix instance: its directory, the values of main.cf (variables replaced), and its services."""

    directory: str
    main: Mapping[str, str]
    services: tuple[Service, ...]

    def running(self, *programs: str) -> list[Service]:
        """The services that run one of these programs."""
        return [service for service in self.services if service.program in programs]

    @property
    def cleanups(self) -> list[Service]:
        """The cleanup services for mail that does not come in by SMTP."""
        named = {service.settings["cleanup_service_name"] for service in self.running("pickup", "qmqpd")}
        return [service for service in self.running("cleanup") if service.name in named]

    @property
    def entrances(self) -> list[tuple[Service, str]]:
        """Every service in which mail first reaches milters, with the name of the list that applies there."""
        smtp = [(service, "smtpd_milters") for service in self.running("smtpd")]
        return [*smtp, *((service, "non_smtpd_milters") for service in self.cleanups)]

    def groups(self, parameter: str, services: Iterable[Service]) -> list[ServiceGroup]:
        """Services grouped by the value of a parameter; services that set it themselves form groups of their own."""
        found: dict[tuple[str, bool], list[Service]] = {}
        for service in services:
            value = service.settings.get(parameter, "")
            inherited = parameter not in service.overrides and value == self.main.get(parameter, "")
            found.setdefault((value, inherited), []).append(service)
        return [ServiceGroup(self, parameter, *key, tuple(group)) for key, group in found.items()]


@dataclass(frozen=True)
class ServiceGroup:
    """Services in which a parameter has the same value; `inherited`: the value is that of main.cf."""

    configuration: PostfixConfig
    parameter: str
    value: str
    inherited: bool
    services: tuple[Service, ...]

    @property
    def names(self) -> str:
        """The services' names, for a sentence."""
        return names(self.services)

    @property
    def where(self) -> str:
        """The file that sets the value, and the services that have it, for a sentence."""
        return f"main.cf ({self.names})" if self.inherited else f"master.cf, {self.names}"

    def remedy(self, in_main: str) -> str:
        """The remedy for the value: `in_main` if main.cf sets it, else remove the override."""
        if self.inherited:
            return in_main
        overriding = [service for service in self.services if self.parameter in service.overrides]
        if not overriding:
            return f"check the variables in {self.parameter}, and where master.cf sets them"
        patterns = dict.fromkeys(f"{service.name}/{service.type}/{self.parameter}" for service in overriding)
        return f"remove the override: postconf -c {self.configuration.directory} -PX {' '.join(patterns)}"


def names(services: Iterable[Service]) -> str:
    """The names of services, for a sentence; "under stress" only if the service is not listed without it."""
    listed = list(services)
    calm = {(service.name, service.type) for service in listed if not service.stress}
    return ", ".join(s.label for s in listed if not (s.stress and (s.name, s.type) in calm))
