"""OpenDKIM as an administrator runs it beside Postfix: a milter that signs, with a key and directories of its own."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lab import processes
from lab.waiting import DEADLINE, until

PROGRAM = "/usr/sbin/opendkim"
USER, GROUP = "opendkim", "postfix"
"""As in Debian's documentation: its own user has the key, Postfix's group may connect."""

CONFIGURATION = """\
Mode s
# Otherwise it refuses the key, because all users may write to /tmp above its directory (sticky).
RequireSafeKeys no
Domain {key.domain}
Selector {key.selector}
KeyFile {directory}/key.pem
Socket local:{directory}/milter.sock
UMask 007
Canonicalization relaxed/simple
OversignHeaders From
Syslog no
"""


@dataclass(frozen=True, slots=True)
class Key:
    """The signing key of a domain, with its selector."""

    domain: str
    selector: str
    private: bytes
    """As PEM."""
    public: bytes
    """As DER."""

    @classmethod
    def make(cls, domain: str, selector: str) -> Key:
        """A new RSA key. Raises subprocess.CalledProcessError."""
        private = _openssl(b"", "genrsa", "-traditional", "2048")
        return cls(domain, selector, private, _openssl(private, "rsa", "-pubout", "-outform", "DER"))

    @property
    def name(self) -> str:
        """The DNS name of the public key (RFC 6376, section 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}."

    @property
    def record(self) -> str:
        """The DNS record of the public key (RFC 6376, section 3.6.1)."""
        return f"v=DKIM1; k=rsa; p={base64.b64encode(self.public).decode()}"


def _openssl(stdin: bytes, *arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, timeout=60, check=True).stdout


class OpenDkim:
    """`opendkim` in the foreground; it signs mail of the key's domain. A context manager.

    It needs root, to change its user, and Debian's package; it does not touch the host's own service.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        # Not TMPDIR: only root may enter it with libpam-tmpdir, and it may be too long for a socket's path.
        self._directory = Path(tempfile.mkdtemp(prefix="undisclosed-dkim-", dir="/tmp"))
        self._log = self._directory / "log"
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Its endpoint, as smtpd_milters names it."""
        return f"unix:{self._directory}/milter.sock"

    def start(self) -> None:
        """Start, and wait until it accepts connections. Raises RuntimeError with its output if it does not."""
        self._write_files()
        with self._log.open("wb") as log:
            self._child = child = processes.start(
                [PROGRAM, "-f", "-x", str(self._directory / "opendkim.conf")], user=USER, group=GROUP, output=log
            )
        try:
            until(lambda: self._listens() or child.poll() is not None, what="OpenDKIM to listen")
            if child.poll() is not None:
                raise RuntimeError(f"OpenDKIM ended with {child.returncode}:\n{self._log.read_text(errors='replace')}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it, and delete its directory with the key."""
        child, self._child = self._child, None
        try:
            if child is not None:
                processes.end(child, within=DEADLINE)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _write_files(self) -> None:
        key = self._directory / "key.pem"
        key.touch(mode=0o600)
        key.write_bytes(self.key.private)
        configuration = CONFIGURATION.format(key=self.key, directory=self._directory)
        (self._directory / "opendkim.conf").write_text(configuration)
        for path in (self._directory, key):
            shutil.chown(path, USER, GROUP)
        self._directory.chmod(0o750)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"{self._directory}/milter.sock") == 0
