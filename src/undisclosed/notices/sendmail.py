"""Handing a notice to Postfix through sendmail(1): it takes mail while Postfix itself is down."""

from __future__ import annotations

import os
import signal
import subprocess
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from undisclosed.addresses import domains
from undisclosed.notices.eligibility import domain_of
from undisclosed.notices.errors import NoticeError

SENDMAIL: Final = Path("/usr/sbin/sendmail")

PATIENCE: Final = 30.0
"""Seconds that sendmail(1) may take: it writes one small file."""


def send(
    message: EmailMessage,
    sender: str,
    sendmail: Path = SENDMAIL,
    config_dir: Path = Path("/etc/postfix"),
    patience: float = PATIENCE,
) -> None:
    """Hand a notice over, to the sender of the message that it is about; its own envelope sender is the null sender.

    `config_dir` is that of the Postfix instance. Once this returns, Postfix has it on disk. Raises NoticeError.
    """
    domain = domain_of(sender)
    if domain is None:  # sendmail(1) would read "a,b@c" as two addresses, and one of them could be anybody's
        raise NoticeError("the envelope sender is no address that can be written to")
    # -i: a line with a single dot does not end the message. --: an address that begins with a dash is no option.
    recipient = f"{sender.rpartition('@')[0]}@{domains.to_ascii(domain)}"
    command = [str(sendmail), "-C", str(config_dir), "-i", "-f", "<>", "--", recipient]
    try:
        process = subprocess.Popen(  # noqa: S603  no shell, and the address is checked
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise NoticeError(f"{sendmail} cannot be started: {error.strerror}") from error
    with process:
        try:
            _, said = process.communicate(message.as_bytes(), timeout=patience)
        except subprocess.TimeoutExpired:
            # With its children: postdrop(1) has the pipe, too, and we would wait for it.
            os.killpg(process.pid, signal.SIGKILL)
            raise NoticeError(f"{sendmail} did not end within {patience:g} s") from None
    if process.returncode:
        words = " ".join(said.decode("utf-8", "replace").split())[-300:]
        raise NoticeError(f"{sendmail} ended with status {process.returncode}: {words or 'it said nothing'}")
