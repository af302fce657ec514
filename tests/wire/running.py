"""A milter that runs on a socket of its own, without Postfix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import processes, toml
from lab.milter import Milter
from support.factories import ORGANISATION, rule


class Running:
    """A milter that runs, and how to reach it. `configure` rewrites its file; `milter.reload()` loads it."""

    def __init__(self, directory: Path, socket: str) -> None:
        self.directory = directory
        self.path = directory / "milter.sock"
        self.address: Path | tuple[str, int] = self.path
        self.socket = f"unix:{self.path}"
        if socket == "inet":
            port = processes.reserve_port()
            self.address = ("127.0.0.1", port)
            self.socket = f"inet:{port}@127.0.0.1"
        self.config = directory / "config.toml"
        self.milter = Milter(self.config, directory=directory)
        self.journal_settings: dict[str, Any] = self.journal

    @property
    def journal(self) -> dict[str, str]:
        """The configuration's section `journal`."""
        return {"key_file": str(self.directory / "key"), "url": f"sqlite:///{self.directory}/journal.db"}

    def configure(self, **over: Any) -> None:
        """Write a configuration of one rule (`reject` above 10), with `over` laid over its sections."""
        document: dict[str, Any] = {
            "organisation": dict(ORGANISATION),
            "milter": {"socket": self.socket, "workers": 2},
            "journal": self.journal,
            "rules": [rule()],
        }
        for key, value in over.items():
            document[key] = {**document[key], **value} if isinstance(document.get(key), dict) else value
        self.journal_settings = dict(document["journal"])
        self.config.write_text(toml.dumps(document))


Start = Callable[..., Running]
"""`start(socket="unix" or "inet", **over)`: see Running.configure."""
