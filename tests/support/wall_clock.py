"""A wall clock that a test can set, for one process and its children: `tests/faults/clock.c`, preloaded."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Self

SOURCE = Path(__file__).parents[1] / "faults" / "clock.c"


class Clock:
    """The wall clock of the processes that have its `environment`. A context manager."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="udc", dir="/tmp"))
        self._directory.chmod(0o755)  # the milter's user must be able to pass through
        library, self._control = self._directory / "clock.so", self._directory / "control"
        self._control.write_bytes(bytes(16))
        options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run(["gcc", *options, "-o", str(library), str(SOURCE), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_CONTROL": str(self._control)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._directory)

    def jump(self, by: timedelta) -> None:
        """Set it so much ahead of the machine's."""
        self._write(int(by.total_seconds()), 0)

    def stop(self) -> None:
        """Stop the clock."""
        self._write(0, int(time.time()))

    def _write(self, offset: int, standing: int) -> None:
        with self._control.open("r+b") as file:
            file.write(struct.pack("=qq", offset, standing))
