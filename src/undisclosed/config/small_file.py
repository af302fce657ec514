"""Reads a small file that an administrator names: the name may lead to a directory, a device or a pipe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular_file(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """At most `limit` bytes of a regular file, and its status from fstat(2).

    Raises OSError: IsADirectoryError for a directory, ENOTSUP for a pipe, a device and the like, which would block or
    never end. Raises ValueError for a name with a NUL.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ENOTSUP, "not a regular file", str(path))
        content = b""
        while len(content) < limit and (more := os.read(fd, limit - len(content))):
            content += more
        return content, found
    finally:
        os.close(fd)
