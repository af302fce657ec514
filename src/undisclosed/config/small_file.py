"""Reading a small file that an administrator names, and that may turn out to be anything."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_plain(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """At most `limit` bytes of a plain file, and what fstat(2) says of it.

    Raises OSError; IsADirectoryError for a directory, ENOTSUP for a pipe, a device and the like: opening one must
    neither wait for its other end nor read on without end. Raises ValueError for what is no file name.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ENOTSUP, "not a plain file", str(path))
        content = b""
        while len(content) < limit and (more := os.read(fd, limit - len(content))):
            content += more
        return content, found
    finally:
        os.close(fd)
