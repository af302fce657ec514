"""A policy service (SMTPD_POLICY_README) that puts the mail of some senders on hold."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

AT_RCPT, AT_DATA, AT_END = "RCPT", "DATA", "END-OF-MESSAGE"
"""The stages at which Postfix asks."""


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
