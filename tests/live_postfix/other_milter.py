"""A milter of somebody else's, behind ours: refuses or discards every message at its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from socket import create_connection

from lab import processes
from lab.postfix import PrivatePostfix
from lab.waiting import until

_PROGRAM = """
import sys, Milter
class Other(Milter.Base):
    def eom(self):
        if sys.argv[2] == "discard":
            return Milter.DISCARD
        self.setreply("550", "5.7.1", "virus found")
        return Milter.REJECT
Milter.factory = Other
Milter.runmilter("other", f"inet:{sys.argv[1]}@127.0.0.1")
"""


@contextmanager
def behind_ours(postfix: PrivatePostfix, answer: str) -> Iterator[None]:
    """Run it behind our milter; `answer` is reject or discard."""
    port = processes.reserve_port()
    child = processes.start([sys.executable, "-c", _PROGRAM, str(port), answer], environment=dict(os.environ))

    def listens() -> bool:
        with suppress(OSError), closing(create_connection(("127.0.0.1", port))):
            return True
        return False

    before = postfix.get("smtpd_milters")
    try:
        until(listens, what="the other milter")
        postfix.set(smtpd_milters=f"{before}, inet:127.0.0.1:{port}")
        yield
    finally:
        postfix.set(smtpd_milters=before)
        child.kill()
        child.wait()
