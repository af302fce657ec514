"""The root half, with requests that only a compromised other half would send; and the private listener."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from lab import milter
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.office import PARENTS, SENDER, letter
from undisclosed.decision import queue_file
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError, RootHalfGoneError
from undisclosed.steward.privileged import MAX_QUEUE_IDS
from undisclosed.steward.reinject import ReinjectError, Reinjector, UnansweredError


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Gateway]:
    """A gateway that holds messages with too many addresses."""
    with Gateway(installed_postfix, outside, user=milter.unprivileged_user()) as gateway:
        gateway.configure(gateway.policy("quarantine"))
        gateway.milter.reload()
        yield gateway
        installed_postfix.wait_until_idle()
        installed_postfix.empty()


@pytest.fixture
def gateway(standing: Gateway) -> Gateway:
    """The same with nothing held or delivered."""
    standing.postfix.empty()
    standing.settle()
    standing.sink.clear()
    return standing


@pytest.fixture
def queue(gateway: Gateway) -> Iterator[HoldQueue]:
    """A hold queue with its own root half."""
    with HoldQueue(gateway.postfix.config_dir) as queue:
        yield queue


def hold(gateway: Gateway, number: int) -> None:
    """Send one more message that is held."""
    assert gateway.send(letter(number), sender=SENDER, to=PARENTS[:2]).accepted


@pytest.mark.parametrize(
    "request_",
    [
        "delete ALL",
        "delete -",
        "delete",
        "read",
        "read ../../etc/passwd",
        "read 4jXkbq5QPvzJ9sp ALL",
        "delete " + " ".join(["4jXkbq5QPvzJ9sp"] * (MAX_QUEUE_IDS + 1)),
        "inject 4jXkbq5QPvzJ9sp",
        "list hold",
        "release 4jXkbq5QPvzJ9sp",
        "release\n4jXkbq5QPvzJ9sp",
        "délete ALL",
    ],
)
def test_malformed_requests_are_refused(gateway: Gateway, queue: HoldQueue, request_: str) -> None:
    """The answer is "no", nothing is changed, and the next request is served."""
    hold(gateway, 1)
    connection: socket.socket = queue._connection
    connection.send(request_.encode())
    assert connection.recv(1000).startswith(b"no ")
    assert len(queue.list().held) == 1


def test_only_the_hold_queue_can_be_deleted_from(gateway: Gateway, queue: HoldQueue) -> None:
    """A message in another queue is not deleted, although its queue id is known."""
    with gateway.postfix.deferring():
        gateway.send(letter(2, To=PARENTS[0]), sender=SENDER, to=[PARENTS[0]])
        waiting = gateway.postfix.deferred()
        assert queue.list().elsewhere == {waiting}
        assert queue.delete([waiting]) == frozenset()
        assert queue.list().elsewhere == {waiting}
    gateway.settle()


def test_several_messages_in_one_request(gateway: Gateway, queue: HoldQueue) -> None:
    """Each is read with its own bytes; the answer to a deletion has the ids that were there."""
    for number in range(5):
        hold(gateway, number)
    held = queue.list().held
    files = queue.read(list(held))
    assert {name: file.size for name, file in files.items()} == {name: entry.size for name, entry in held.items()}
    for name, file in files.items():
        assert file.content == gateway.postfix.postcat(name).encode("utf-8", "surrogateescape")
    gone = "4jXkbq5QPvzJ9sp"
    assert queue.delete([*held, gone]) == set(held)
    with pytest.raises(HoldQueueError, match="No such file"):
        queue.read([gone])


def test_a_root_half_that_was_killed(gateway: Gateway) -> None:
    """The next request fails at once."""
    queue = HoldQueue(gateway.postfix.config_dir)
    queue._root_half.kill()
    queue._root_half.wait()
    with pytest.raises(RootHalfGoneError, match="has ended"):
        queue.list()
    with queue:
        pass


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_signals_do_not_end_the_root_half(gateway: Gateway, number: signal.Signals) -> None:
    """`systemctl kill -s HUP` reaches it too, from its first instruction on. It ends with the other half."""
    with HoldQueue(gateway.postfix.config_dir) as queue:
        os.kill(queue._root_half.pid, number)
        assert queue.list().held == {}
        os.kill(queue._root_half.pid, number)
        assert queue.list().held == {}
    assert queue._root_half.returncode == 0


def test_a_missing_private_listener(gateway: Gateway, queue: HoldQueue) -> None:
    """Postfix was detached: the request fails with the reason."""
    gateway.command("postfix", "detach", "--config-dir", str(gateway.postfix.config_dir))
    gateway.postfix.reload()
    try:
        with pytest.raises(HoldQueueError, match=r"No such file|refused"):
            queue.inject()
    finally:
        gateway.attach()
        gateway.postfix.reload()


class Proxy:
    """A relay between steward and listener that breaks the connection in place of passing one answer on."""

    def __init__(self, queue: HoldQueue, instead_of: bytes) -> None:
        self._queue = queue
        self._instead_of = instead_of

    def connect(self) -> socket.socket:
        """A connection as `HoldQueue.inject` gives it."""
        ours, theirs = socket.socketpair()
        listener = self._queue.inject()
        threading.Thread(target=self._relay, args=(theirs, listener), daemon=True).start()
        return ours

    def _relay(self, client: socket.socket, listener: socket.socket) -> None:
        with client, listener:
            requests = threading.Thread(target=self._pass_on, args=(client, listener), daemon=True)
            requests.start()
            while (data := listener.recv(65536)) and self._instead_of not in data:
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
            requests.join()

    @staticmethod
    def _pass_on(client: socket.socket, listener: socket.socket) -> None:
        while data := client.recv(65536):
            listener.sendall(data)
        listener.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("answer", "unknown"), [(b"250 2.0.0 Ok: queued", True), (b"354 ", False), (b"250 2.1.5 Ok", False)]
)
def test_a_connection_that_breaks(gateway: Gateway, queue: HoldQueue, answer: bytes, unknown: bool) -> None:
    """UnansweredError only after the final dot: before that, Postfix cannot have accepted the message."""
    hold(gateway, 3)
    [held] = queue.read(list(queue.list().held)).values()
    with Reinjector(Proxy(queue, answer).connect) as reinjector, pytest.raises(ReinjectError) as caught:
        reinjector.send(held, held.recipients, [bytes(held.content)])
    assert isinstance(caught.value, UnansweredError) is unknown
    gateway.settle()
    assert bool(gateway.sink.deliveries) is unknown


def test_a_refused_recipient(gateway: Gateway, queue: HoldQueue) -> None:
    """Postfix accepts a part for all recipients or for none; the next message is sent as usual."""
    hold(gateway, 4)
    [held] = queue.read(list(queue.list().held)).values()
    unspeakable = queue_file.Recipient("")
    with Reinjector(queue.inject) as reinjector:
        with pytest.raises(ReinjectError, match="Postfix said 5"):
            reinjector.send(held, [*held.recipients, unspeakable], [bytes(held.content)])
        gateway.settle()
        assert gateway.sink.deliveries == ()
        assert reinjector.send(held, held.recipients, [bytes(held.content)]).startswith("250 ")
    gateway.settle()
    assert len(gateway.sink.deliveries) == 1


def test_the_private_listener_has_no_limits(gateway: Gateway, queue: HoldQueue) -> None:
    """A message that was accepted before a limit was lowered can still be released."""
    hold(gateway, 5)
    [held] = queue.read(list(queue.list().held)).values()
    gateway.postfix.set(message_size_limit="1000", smtpd_recipient_limit="1", smtpd_recipient_restrictions="reject")
    try:
        with Reinjector(queue.inject) as reinjector:
            larger = [bytes(held.content), b"x" * 70 + b"\n" * 3000]
            assert reinjector.send(held, held.recipients, larger).startswith("250 ")
    finally:
        gateway.postfix.set(
            message_size_limit="10240000", smtpd_recipient_limit="20000", smtpd_recipient_restrictions=""
        )
    gateway.settle()
    assert len(gateway.sink.deliveries) == 1
