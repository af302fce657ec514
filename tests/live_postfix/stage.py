"""A gateway that stays attached while one test after another is played on it, each under a configuration of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import milter
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink


class Stage:
    """Postfix with the milter attached. Attaching takes longer than starting a milter: that is done once."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.postfix = gateway.postfix
        self.sink = gateway.sink
        self._setting: object = None

    def under(self, setting: object, configure: Callable[[Path], None]) -> None:
        """Reload the milter with another configuration, if `setting` is not the last one; `configure` writes its file.

        Mail of earlier tests is deleted. Raises RuntimeError if the milter refuses the configuration.
        """
        self.postfix.empty()
        self.postfix.wait_until_idle()  # a message that was being delivered would reach the sink in the next test
        self.sink.clear()
        if setting != self._setting or not self.gateway.milter.is_running:
            self._setting = None
            configure(self.gateway.config)
            self.gateway.milter.start_or_reload()
            self._setting = setting

    def policy(self, action: str, **sections: Any) -> None:
        """Go on under a policy of one rule; see `Gateway.policy`."""
        document = self.gateway.policy(action, **sections)
        self.under(document, lambda path: self.gateway.configure(document))

    def held(self) -> list[str]:
        """The queue ids of the messages on hold."""
        return [str(entry["queue_id"]) for entry in self.postfix.queue("hold")]

    def queued(self, queue_id: str) -> bytes:
        """A queued message, byte by byte."""
        return self.postfix.postcat(queue_id).encode("utf-8", "surrogateescape")


@contextmanager
def attached(postfix: PrivatePostfix, sink: Sink, *, socket: str = "unix", **settings: str) -> Iterator[Stage]:
    """Attach a milter to this Postfix, and set more parameters of main.cf."""
    with Gateway(postfix, sink, socket=socket, user=milter.unprivileged_user()) as gateway:
        if settings:
            postfix.set(**settings)
        yield Stage(gateway)
        postfix.wait_until_idle()
        postfix.empty()
