"""Everything beside a milter that puts mail on hold: tables, and a policy service (SMTPD_POLICY_README)."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lab.postfix import PrivatePostfix

AT_RCPT, AT_DATA, AT_END = "RCPT", "DATA", "END-OF-MESSAGE"
"""The stages at which Postfix asks."""

HELD_AT = {f"{stage.casefold()}@council.test": stage for stage in (AT_RCPT, AT_DATA, AT_END)}
"""The senders whose mail `other_holds` holds by the policy service, with the stage."""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        while lines := list(iter(lambda: self.rfile.readline().decode().strip(), "")):
            asked = dict(line.split("=", 1) for line in lines)
            holds = self.server.stages.get(asked["sender"]) == asked["protocol_state"]
            self.wfile.write(f"action={'HOLD by policy' if holds else 'DUNNO'}\n\n".encode())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, stages: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stages = stages


@contextmanager
def policy_service(stages: Mapping[str, str]) -> Iterator[str]:
    """Run it; yields its restriction. `stages`: senders whose mail it holds, with the stage."""
    with _Server(stages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"check_policy_service inet:127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def other_holds(postfix: PrivatePostfix) -> Iterator[None]:
    """Let an access table hold `suspect@`, header_checks and body_checks `HOLD`, and a policy service `HELD_AT`."""
    directory = postfix.config_dir
    for name, line in (
        ("access", "/^suspect@/ HOLD account under investigation"),
        ("header", "/^Subject: HOLD/ HOLD by header_checks"),
        ("body", "/^HOLD/ HOLD by body_checks"),
    ):
        (directory / name).write_text(line + "\n")
    with policy_service(HELD_AT) as service:
        postfix.set(
            smtpd_sender_restrictions=f"check_sender_access regexp:{directory}/access",
            smtpd_recipient_restrictions=service,
            smtpd_data_restrictions=service,
            smtpd_end_of_data_restrictions=service,
            header_checks=f"regexp:{directory}/header",
            body_checks=f"regexp:{directory}/body",
        )
        yield
