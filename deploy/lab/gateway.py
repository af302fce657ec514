"""One mail gateway: Postfix, the milter attached to it, and a sink in place of the outside world."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lab import client, milter, toml
from lab.client import Outcome
from lab.milter import Milter
from lab.postfix import INTERNAL_DOMAINS, PrivatePostfix
from lab.sink import Sink

LIMIT = 10
"""The limit of the default rule: it matches if there are more external addresses."""


class Gateway:
    """A private Postfix with the milter attached as an administrator attaches it. A context manager.

    `postfix` and `sink` must be running, and go on running afterwards; the milter is stopped, and Postfix restored.
    `socket` is `unix` (in Postfix's queue directory, as in production) or a value of `milter.socket`.
    `user` is the milter's user and group; None: those of this process.

    Attributes: `postfix`, `sink`, `milter`, `config` (the configuration's path).
    """

    def __init__(
        self,
        postfix: PrivatePostfix,
        sink: Sink,
        *,
        document: toml.Document | None = None,
        socket: str = "unix",
        user: tuple[str, str] | None = None,
    ) -> None:
        self.postfix = postfix
        self.sink = sink
        self._user = user
        self._state = postfix.directory / "milter"
        self._socket = socket if socket != "unix" else f"unix:{postfix.queue_dir}/undisclosed/milter.sock"
        self.config = self._state / "config.toml"
        self._make_directories()
        self.configure(document if document is not None else self.policy())
        self.milter = Milter(self.config, directory=self._state, user=user)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _make_directories(self) -> None:
        """Make the socket's directory and the milter's state directory, as tmpfiles.d and systemd do in production."""
        owner = self._user[0] if self._user else "root"
        for directory, group, mode in (
            (self._state, None, 0o755),
            # setgid: the socket gets Postfix's group although the milter's user is no member of it.
            (self.postfix.queue_dir / "undisclosed", "postfix", 0o2750),
        ):
            directory.mkdir(exist_ok=True)
            shutil.chown(directory, owner, group)
            directory.chmod(mode)

    def policy(
        self, action: str = "reject", **sections: toml.Scalar | toml.Table | Sequence[toml.Table]
    ) -> toml.Document:
        """A configuration with one rule: `action` for more than ten external addresses.

        `sections` replace it, key by key within a section: `policy("rewrite", rewrite={"keep_internal": False})`,
        `policy(rules=[...])`, `policy(mode="monitor")`.
        """
        document: dict[str, toml.Scalar | toml.Table | Sequence[toml.Table]] = {
            "mode": "enforce",
            "organisation": {
                "name": "Cyngor Llŷn Council",
                "internal_domains": [name for domain in INTERNAL_DOMAINS for name in (domain, f".{domain}")],
                "partner_domains": ["partner.example"],
                "help": "the service desk, extension 1234",
            },
            "milter": {"socket": self._socket, "workers": 2},
            "postfix": {"config_dir": str(self.postfix.config_dir)},
            "journal": self.journal,
            "rules": [{"name": "many strangers", "more_than_addresses": LIMIT, "action": action}],
        }
        for key, value in sections.items():
            before = document.get(key)
            document[key] = (
                {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
            )  # fmt: skip
        return document

    def configure(self, document: toml.Document | str) -> None:
        """Write the configuration file; a running milter uses the old one until `milter.reload()`."""
        self.config.write_text(document if isinstance(document, str) else toml.dumps(document))

    def start(self) -> None:
        """Make the journal, start the milter, attach it, reload Postfix. Raises RuntimeError with the cause."""
        milter.upgrade_journal(self.config)
        self.milter.start()
        try:
            self.attach()
            self.postfix.reload()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Restore Postfix's files and stop the milter."""
        try:
            self.postfix.restore()
        finally:
            self.milter.stop()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an `undisclosed` command with this configuration. Any exit status is accepted."""
        return subprocess.run(
            [str(milter.console_script()), *arguments, "--config", str(self.config)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
        )

    def attach(self) -> None:
        """`undisclosed postfix attach`. Raises RuntimeError with its output if it fails."""
        done = self.command("postfix", "attach", "--config-dir", str(self.postfix.config_dir))
        if done.returncode:
            raise RuntimeError(f"postfix attach ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    def send(
        self,
        message: bytes,
        *,
        sender: str,
        to: Sequence[str],
        options: Sequence[str] = (),
        address: str | None = None,
        login: str | None = None,
    ) -> Outcome:
        """Send one message through this gateway; see `lab.client.send`."""
        return client.send(
            self.postfix.port, message, sender=sender, to=to, options=options, address=address, login=login
        )

    def settle(self) -> None:
        """Wait until the gateway has delivered everything: no more messages reach the sink after that."""
        self.postfix.wait_until_idle()

    @property
    def state(self) -> Path:
        """The milter's own directory: configuration, key, journal, log."""
        return self._state

    @property
    def journal(self) -> dict[str, str]:
        """The configuration's section `journal`: key and database in the milter's own directory."""
        return {"key_file": str(self._state / "key"), "url": f"sqlite:///{self._state}/journal.db"}
