"""An SMTP server on loopback in place of the outside world. It keeps every message, byte for byte."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Self

from aiosmtpd.smtp import SMTP, Envelope, Session

from lab.waiting import until

ACCEPTED = "250 2.0.0 OK"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the sink received it.

    `sender` is the envelope sender (empty for the null sender), `recipients` the envelope recipients of this
    transaction, `data` the message as it came over the wire: CRLF line ends, dots unstuffed, nothing else changed.
    """

    sender: str
    recipients: tuple[str, ...]
    data: bytes

    @property
    def header(self) -> bytes:
        """The header with its folding, each line ended by CRLF."""
        head, _, _ = self.data.partition(b"\r\n\r\n")
        return head + b"\r\n"

    @property
    def body(self) -> bytes:
        """Everything after the first empty line."""
        return self.data.partition(b"\r\n\r\n")[2]

    def fields(self) -> list[tuple[str, bytes]]:
        """The header fields in order: name as written and value as it stands, folding kept, without the last CRLF."""
        found: list[tuple[str, bytes]] = []
        for line in self.header.removesuffix(b"\r\n").split(b"\r\n"):
            if line[:1] in (b" ", b"\t") and found:
                name, value = found[-1]
                found[-1] = (name, value + b"\r\n" + line)
            else:
                name_bytes, _, value = line.partition(b":")
                found.append((name_bytes.decode("ascii", "backslashreplace"), value.removeprefix(b" ")))
        return found

    def values(self, name: str) -> list[bytes]:
        """The values of every field of this name, in order; the case of the name does not matter."""
        return [value for given, value in self.fields() if given.lower() == name.lower()]


class _Messages:
    """The messages, shared by the SMTP sessions and the threads that read them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.deliveries: list[Delivery] = []
        self.refused = 0
        self.reply = ACCEPTED

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 aiosmtpd's name
        content = envelope.original_content
        if content is None or envelope.mail_from is None:
            return "554 5.5.1 no message"
        with self.lock:
            if self.reply != ACCEPTED:
                self.refused += 1
                return self.reply
            sender = envelope.mail_from.removeprefix("<").removesuffix(">")  # aiosmtpd keeps those of the null sender
            self.deliveries.append(Delivery(sender, tuple(envelope.rcpt_tos), content))
            return ACCEPTED


class Sink:
    """An SMTP server in its own thread, on a free port of 127.0.0.1. A context manager.

    Thread-safe: what its properties return is a snapshot.
    """

    def __init__(self) -> None:
        self.port = 0
        self._kept = _Messages()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; afterwards `port` is the port. Raises RuntimeError if nothing listens within 60 s."""
        # A daemon thread: a test run that is aborted must not wait for it.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="sink", daemon=True)
        self._thread.start()
        if not self._ready.wait(60):
            raise RuntimeError("the sink does not listen after 60 s")

    def stop(self) -> None:
        """Stop listening, drop the sessions, end the thread. The messages can still be read."""
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        if self._thread is not None:
            self._thread.join(10)
        self._loop = self._over = self._thread = None

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        server = await loop.create_server(self._session, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._loop, self._over = loop, over
        self._ready.set()
        await over.wait()
        server.close()  # not wait_closed(): since Python 3.12 that waits for Postfix to drop its cached connections

    def _session(self) -> SMTP:
        # Without a hostname aiosmtpd asks the DNS for it in each session.
        return SMTP(self._kept, hostname="outside.test", ident="sink", enable_SMTPUTF8=True, data_size_limit=0)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """All accepted messages, in order of arrival."""
        with self._kept.lock:
            return tuple(self._kept.deliveries)

    @property
    def refused(self) -> int:
        """The number of messages that were not answered with 250."""
        with self._kept.lock:
            return self._kept.refused

    def answer(self, reply: str = ACCEPTED) -> None:
        """Set the reply to the end of a message, such as `451 4.3.0 later`; without an argument, accept it."""
        with self._kept.lock:
            self._kept.reply = reply

    def clear(self) -> None:
        """Delete all messages, and accept messages again."""
        with self._kept.lock:
            self._kept.deliveries.clear()
            self._kept.refused = 0
            self._kept.reply = ACCEPTED

    def wait_for(self, count: int, *, within: float = 60) -> tuple[Delivery, ...]:
        """Wait until at least `count` messages have arrived, and return all. Raises TimeoutError."""

        def enough() -> tuple[Delivery, ...] | None:
            deliveries = self.deliveries
            return deliveries if len(deliveries) >= count else None

        try:
            return until(enough, within=within, what=f"{count} messages at the sink") or ()
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {len(self.deliveries)} came") from None
