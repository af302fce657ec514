"""Sends a notice through sendmail(1), which accepts mail even while Postfix does not run."""

from __future__ import annotations

import os
import signal
import subprocess
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from undisclosed.addresses import domains
from undisclosed.addresses.masking import without_addresses
from undisclosed.notices.addressee import NOT_AN_ADDRESS, domain_of
from undisclosed.notices.errors import NoticeError
from undisclosed.service.signals import blocked_for_children

SENDMAIL: Final = Path("/usr/sbin/sendmail")

SENDMAIL_TIMEOUT: Final = 30.0
"""Seconds for sendmail(1), which writes one small file."""


def send(
    message: EmailMessage,
    sender: str,
    sendmail: Path = SENDMAIL,
    config_dir: Path = Path("/etc/postfix"),
    timeout: float = SENDMAIL_TIMEOUT,
) -> None:
    """Send a notice to `sender`, from the null sender. When this returns, Postfix has it on disk.

    `config_dir` is the one of the Postfix instance. Raises NoticeError.
    """
    domain = domain_of(sender)
    if domain is None:  # sendmail(1) reads "a,b@c" as two addresses
        raise NoticeError(NOT_AN_ADDRESS)
    # -i: a line with a single dot does not end the message. --: an address with a leading dash is not an option.
    recipient = f"{sender.rpartition('@')[0]}@{domains.to_ascii(domain)}"
    command = [str(sendmail), "-C", str(config_dir), "-i", "-f", "<>", "--", recipient]
    try:
        with blocked_for_children():  # else a notice that Postfix has already might be sent again
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
            _, output = process.communicate(message.as_bytes(), timeout=timeout)
        except subprocess.TimeoutExpired:
            # Kill the children too: postdrop(1) holds the pipe open, and leaving `with process` waits for it.
            os.killpg(process.pid, signal.SIGKILL)
            raise NoticeError(f"{sendmail} did not end within {timeout:g} s") from None
    if process.returncode:
        text = without_addresses(" ".join(output.decode("utf-8", "replace").split()))[-300:]  # it is logged
        raise NoticeError(f"{sendmail} ended with status {process.returncode}: {text or 'no message'}")
