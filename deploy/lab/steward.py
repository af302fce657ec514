"""The steward as a service manager runs it: started by root; its root half keeps root's rights."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import IO

from lab import processes
from lab.milter import STOPS_WITHIN, Milter, console_script
from lab.waiting import DEADLINE, until


class Steward(Milter):
    """`undisclosed steward --config FILE --user USER` as a child. A context manager, like `Milter`.

    `rights_of` is the user of the unprivileged half. A user other than root cannot send notices here: only root may
    name another configuration directory to sendmail(1) on a machine whose own Postfix is not configured.
    """

    name = "steward"

    def __init__(self, config: Path, *, directory: Path, rights_of: str = "root") -> None:
        super().__init__(config, directory=directory)
        self._rights_of = rights_of

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [str(console_script()), "steward", "--config", str(self.config), "--user", self._rights_of]
        # Guarded: when it changes its user, the kernel clears its parent-death signal.
        return processes.start_guarded(command, environment=self._environment(), output=log)

    @property
    def pid(self) -> int:
        """The process id of the unprivileged half. Raises RuntimeError if it does not run."""
        if self._child is None:
            raise RuntimeError("this steward is not running")
        return processes.children(self._child.pid)[0]

    def stop(self) -> int | None:
        """Send SIGTERM, and wait until both halves have ended. Raises TimeoutError after 30 s."""
        child, self._child = self._child, None
        leader = next(iter(processes.children(child.pid)), None) if child is not None else None
        self._close()
        return processes.end(child, within=STOPS_WITHIN, leader=leader) if child is not None else None

    def wait(self) -> int:
        """Wait until it ends by itself, and return its exit status."""
        child, self._child = self._child, None
        if child is None:
            raise RuntimeError("this steward is not running")
        status = child.wait(DEADLINE)
        self._close()
        return status

    def kill(self) -> None:
        """Send SIGKILL to the unprivileged half, and wait until the root half has ended by itself."""
        child, self._child = self._child, None
        if child is not None:
            pid = next(iter(processes.children(child.pid)), None)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                until(lambda: not processes.session(pid), what="the root half to end")
            child.wait(DEADLINE)
        self._close()
