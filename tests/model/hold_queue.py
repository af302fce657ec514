"""The steward's hold queue over a simulated Postfix: both halves are the product's, in one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import cast

from model.listener import Answer, SimulatedSession
from model.postfix import SimulatedPostfix
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError
from undisclosed.steward.privileged import Server

Step = Callable[[str], None]
"""Called with a name at each step of the steward that others can see. It may raise."""


class _RootHalf(Server):
    """The root half, with the simulated tools."""

    def __init__(self, postfix: SimulatedPostfix) -> None:
        self._postfix = postfix
        self._lock = -1

    def end(self) -> None:
        """The process ends."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _run(self, tool: str, *arguments: str, stderr: bool = False) -> int:
        output, errors = self._postfix.run(tool, *arguments)
        fd = os.memfd_create(tool)
        os.write(fd, errors if stderr else output)
        return fd


class SimulatedHoldQueue(HoldQueue):
    """A hold queue whose root half runs in this process."""

    def __init__(self, postfix: SimulatedPostfix, step: Step, next_answer: Callable[[], Answer]) -> None:
        self._postfix = postfix
        self._step = step
        self._next_answer = next_answer
        self._server = _RootHalf(postfix)

    def __exit__(self, *_: object) -> None:
        self._server.end()

    def _request(self, verb: str, *queue_ids: str) -> int:
        self._step(f"before {verb}")
        try:
            fd = self._server._answer(verb, *queue_ids)
        except Exception as error:  # as Server.serve and HoldQueue._request do
            raise HoldQueueError(str(error)) from error
        self._step(f"after {verb}")
        return fd

    def inject(self) -> socket.socket:
        """A new session with the simulated listener."""
        self._step("before inject")
        return cast("socket.socket", SimulatedSession(self._postfix.sent, self._next_answer, self._step))
