"""Measurements that are kept in a file, so that a long run may be done in parts."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.comparison.figures import Record, Sample

PACKAGES = {"Postfix": "postfix", "libmilter": "libmilter1.0.1", "rspamd": "rspamd", "MIMEDefang": "mimedefang"}


class Results(NamedTuple):
    """The measurements, and the machine they were taken on."""

    machine: Mapping[str, str]
    records: Sequence[Record]


class OtherMachineError(ValueError):
    """Measurements of two machines, or of two versions, cannot be compared."""


def machine() -> dict[str, str]:
    """The versions and hardware that the figures depend on."""
    cores = Path("/proc/cpuinfo").read_text()
    model = cores.partition("model name")[2].partition("\n")[0].strip(" \t:") or platform.machine()
    memory = int(Path("/proc/meminfo").read_text().partition("MemTotal:")[2].split()[0]) / 1e6
    versions = {name: _version(package) for name, package in PACKAGES.items()}
    release = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return {"": f"{cores.count('model name') or '?'} cores of {model}", "memory": f"{memory:.0f} GB",
            "system": f"{release}, Linux {platform.release()}", **versions,
            "Python": platform.python_version()}  # fmt: skip


def _version(package: str) -> str:
    asked = ["dpkg-query", "-W", "-f=${Version}", package]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def load(path: Path) -> Results:
    """The contents of the file; empty if there is none yet."""
    if not path.exists():
        return Results({}, [])
    kept = json.loads(path.read_text())
    records = [Record(kind, name, number, Sample(*sample)) for kind, name, number, sample in kept["records"]]
    return Results(kept["machine"], records)


def save(path: Path, results: Results) -> None:
    """Write the file."""
    path.write_text(json.dumps({"machine": results.machine, "records": results.records}, indent=1) + "\n")


def merged(kept: Results, new: Results) -> Results:
    """Both together: new measurements replace old ones, kind by kind. Raises OtherMachineError."""
    if kept.records and kept.machine != new.machine:
        raise OtherMachineError(f"measured on another machine, or with other versions: {dict(kept.machine)}")
    again = {record.kind for record in new.records}
    return Results(new.machine, [*(record for record in kept.records if record.kind not in again), *new.records])
