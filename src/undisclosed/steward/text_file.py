"""The text of a held message in a temporary file: it takes no memory of the process, however large it is."""

from __future__ import annotations

import mmap
import tempfile

from undisclosed.steward.privileged import TEMPORARY


class TextFile:
    """A file without a name, which takes a text line by line and gives it back as a range of bytes."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(dir=TEMPORARY)  # noqa: SIM115  `content` and `close` close it

    def write(self, data: bytes, /) -> None:
        """Add bytes. Raises OSError if the disk is full."""
        self._file.write(data)

    def content(self) -> bytes | memoryview:
        """All bytes that were added. The file stays on the disk as long as this range is in use."""
        with self._file as file:
            size = file.seek(0, 1)
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)) if size else b""

    def close(self) -> None:
        """Remove the file, if `content` has not been called."""
        self._file.close()
