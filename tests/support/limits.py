"""Resource limits of a process that runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def limited(pids: Sequence[int], name: str, soft: int) -> Iterator[None]:
    """Let these processes have no more of a resource (prlimit(1)'s long option) for as long as the `with` block."""
    before = {pid: _prlimit(pid, f"--{name}", "--output=SOFT", "--noheadings", "--raw").strip() for pid in pids}
    for pid in before:
        _prlimit(pid, f"--{name}={soft}:")
    try:
        yield
    finally:
        for pid, usual in before.items():
            if Path(f"/proc/{pid}").exists():
                _prlimit(pid, f"--{name}={usual}:")


def _prlimit(pid: int, *options: str) -> str:
    """Run prlimit(1) as the process' own user: as another one it takes a capability that a container lacks."""
    owner = Path(f"/proc/{pid}").stat()
    rights = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--"]
    return subprocess.run(
        [*rights, "prlimit", f"--pid={pid}", *options], capture_output=True, text=True, check=True
    ).stdout
