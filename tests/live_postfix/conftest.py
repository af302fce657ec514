"""A real Postfix, an outside world that keeps what it gets, and the milter between them.

- `postfix`: a `lab.postfix.PrivatePostfix` that runs without any milter. Shared by all tests, and handed to each one
  with its own settings back in place and an empty queue.
- `sink`: the `lab.sink.Sink` that this Postfix hands everything to; empty at the start of each test.
- `gateway`: starts the milter and attaches it. `gateway("rewrite")` is one rule, more than ten external addresses meet
  with that action; `gateway("reject", counting={...}, mode="monitor")` lays sections over it;
  `gateway(document={...})` is a whole configuration; `socket="inet:PORT@127.0.0.1"` another socket. Returns a
  running `lab.gateway.Gateway`: `.send(...)`, `.sink`, `.milter`, `.postfix`, `.configure(...)`, `.settle()`.
  All of them end with the test.
- `standing`: a gateway that holds messages with too many addresses, attached once for all tests of a file.
- `office`: the steward's side of it (`office.Office`), with nothing held and nothing delivered.

The milter runs as `nobody`, as it runs without rights in production, unless nobody may read the checkout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from lab import milter, toml
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.office import Office, attached, emptied, new_gateway
from support.postfix_directories import SIGNING, directory


class StartGateway(Protocol):
    """The signature of the `gateway` fixture's value."""

    def __call__(
        self,
        action: str = "reject",
        *,
        document: toml.Document | None = None,
        socket: str = "unix",
        **sections: toml.Scalar | toml.Table | Sequence[toml.Table],
    ) -> Gateway: ...


@pytest.fixture
def config() -> Iterator[Path]:
    """A configuration directory with a small main.cf that has a signer; no Postfix runs on it."""
    with directory(SIGNING) as path:
        yield path


@pytest.fixture(scope="session")
def outside() -> Iterator[Sink]:
    """The one sink of the test run."""
    with Sink() as sink:
        yield sink


@pytest.fixture(scope="session")
def installed_postfix(outside: Sink) -> Iterator[PrivatePostfix]:
    """The one Postfix of the test run."""
    with PrivatePostfix(outside=outside.port) as postfix:
        yield postfix


@pytest.fixture
def sink(outside: Sink) -> Sink:
    """The outside world, with nothing in it yet."""
    outside.clear()
    return outside


@pytest.fixture
def postfix(installed_postfix: PrivatePostfix, sink: Sink) -> Iterator[PrivatePostfix]:
    """Postfix without a milter, its queue empty."""
    yield installed_postfix
    sink.answer()
    installed_postfix.restore()
    # Mail under way is delivered before the next test begins, not in the middle of it.
    installed_postfix.wait_until_idle()
    installed_postfix.empty()


@pytest.fixture
def gateway(postfix: PrivatePostfix, sink: Sink) -> Iterator[StartGateway]:
    """Start the milter with some policy, attached to `postfix`."""
    with ExitStack() as stack:

        def start(
            action: str = "reject",
            *,
            document: toml.Document | None = None,
            socket: str = "unix",
            **sections: toml.Scalar | toml.Table | Sequence[toml.Table],
        ) -> Gateway:
            gateway = Gateway(postfix, sink, socket=socket, user=milter.unprivileged_user())
            gateway.configure(document if document is not None else gateway.policy(action, **sections))
            return stack.enter_context(gateway)

        yield start


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Gateway]:
    """A gateway that holds messages with too many addresses; it stays attached for all tests of a file."""
    gateway = new_gateway(installed_postfix, outside)
    with attached(gateway):
        gateway.configure(gateway.policy("quarantine"))
        gateway.milter.reload()
        yield gateway


@pytest.fixture
def office(standing: Gateway) -> Iterator[Office]:
    """The steward's side of `standing`, with nothing held and nothing delivered."""
    standing.configure(standing.policy("quarantine"))
    with emptied(standing) as office:
        yield office
