"""Small files: those that an administrator names, which may be anything, and those of a service, made once."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
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


def make_once(path: Path, content: bytes, mode: int) -> None:
    """Make a file whole, and never replace one: another process may be making it at the same time.

    Made by root, it belongs to the owner of its directory, as if that user had made it. Raises OSError.
    """
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600, O_EXCL
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(fd, mode)
            if os.geteuid() == 0:
                directory = path.parent.stat()
                os.fchown(fd, directory.st_uid, directory.st_gid)
            os.fsync(fd)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink()
    opened = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
