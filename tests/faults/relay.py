"""A relay between Postfix and the milter: it passes every packet on, and runs a test's action at one of them."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

Act = Callable[[], object]


@dataclass
class Relay:
    """Listens on a unix socket, and connects to the milter's once for each connection of Postfix's.

    `at_event("N", act)` is for the next packet of that letter which Postfix sends (and in which some bytes are, if they
    are said), `at_answer("q", act)` for the next one which the milter sends: `act` runs once, before the packet is
    passed on, while that connection waits. Behind such an answer the connection ends, for the milter may have said its
    last word already.
    """

    path: Path
    milter: Path
    _armed: dict[tuple[str, str], tuple[bytes, Act]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listening: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))

    def __enter__(self) -> Self:
        self._listening.bind(str(self.path))
        shutil.chown(self.path, group="postfix")
        self.path.chmod(0o660)
        self._listening.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listening.close()
        self.path.unlink()

    def at_event(self, letter: str, act: Act, *, containing: bytes = b"") -> None:
        """Do this before the next packet of this letter from Postfix is passed on."""
        with self._lock:
            self._armed["event", letter] = containing, act

    def at_answer(self, letter: str, act: Act) -> None:
        """Do this before the next packet of this letter from the milter is passed on."""
        with self._lock:
            self._armed["answer", letter] = b"", act

    @property
    def has_struck(self) -> bool:
        """Whether every planned action at a packet has been done."""
        with self._lock:
            return not self._armed

    def _accept(self) -> None:
        while True:
            try:
                postfix, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(postfix,), daemon=True).start()

    def _connect(self, postfix: socket.socket) -> None:
        with closing(postfix), closing(socket.socket(socket.AF_UNIX)) as milter:
            try:
                milter.connect(str(self.milter))
            except OSError:
                return  # Postfix sees a milter that has closed the connection
            back = threading.Thread(target=self._pass_on, args=("answer", milter, postfix), daemon=True)
            back.start()
            self._pass_on("event", postfix, milter)
            back.join()

    def _pass_on(self, direction: str, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source.makefile("rb") as packets:
            while length := packets.read(4):
                content = packets.read(int.from_bytes(length))
                if act := self._due(direction, content):
                    act()
                target.sendall(length + content)
                if act and direction == "answer":
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _due(self, direction: str, content: bytes) -> Act | None:
        """The action armed for this packet, which is disarmed by that."""
        place = direction, chr(content[0])
        with self._lock:
            containing, act = self._armed.get(place, (b"", None))
            if act is None or containing not in content:
                return None
            del self._armed[place]
            return act
