"""The outside world: an SMTP server on loopback that keeps what it gets, byte for byte."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Self

from aiosmtpd.smtp import SMTP, Envelope, Session

from lab.waiting import until

TAKEN = "250 2.0.0 OK"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it reached the outside.

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
        """What comes after the first empty line."""
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


class _Keeper:
    """What the SMTP sessions share with the thread that looks at it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.deliveries: list[Delivery] = []
        self.refused = 0
        self.reply = TAKEN

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 aiosmtpd's name
        content = envelope.original_content
        if content is None or envelope.mail_from is None:
            return "554 5.5.1 no message"
        with self.lock:
            if self.reply != TAKEN:
                self.refused += 1
                return self.reply
            sender = envelope.mail_from.removeprefix("<").removesuffix(">")  # aiosmtpd keeps those of the null sender
            self.deliveries.append(Delivery(sender, tuple(envelope.rcpt_tos), content))
            return TAKEN


class Sink:
    """An SMTP server in a thread of its own, on a free port of 127.0.0.1. A context manager.

    Anything may be sent to it by any thread while any other looks; a look is a snapshot.
    """

    def __init__(self) -> None:
        self.port = 0
        self._kept = _Keeper()
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
        # A daemon thread: a test run that is torn down hard must not hang on its outside world.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="sink", daemon=True)
        self._thread.start()
        if not self._ready.wait(60):
            raise RuntimeError("the sink does not listen after 60 s")

    def stop(self) -> None:
        """Stop listening, drop the sessions, end the thread. What was kept can still be read."""
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
        # The name is given because aiosmtpd would otherwise look the host up in the DNS for each session.
        return SMTP(self._kept, hostname="outside.test", ident="sink", enable_SMTPUTF8=True, data_size_limit=0)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Everything taken so far, in order of arrival."""
        with self._kept.lock:
            return tuple(self._kept.deliveries)

    @property
    def refused(self) -> int:
        """How many messages were answered with something else than 250."""
        with self._kept.lock:
            return self._kept.refused

    def answer(self, reply: str = TAKEN) -> None:
        """What to say from now on at the end of a message, such as `451 4.3.0 later`; without an argument, take it."""
        with self._kept.lock:
            self._kept.reply = reply

    def clear(self) -> None:
        """Forget every message and take messages again."""
        with self._kept.lock:
            self._kept.deliveries.clear()
            self._kept.refused = 0
            self._kept.reply = TAKEN

    def wait_for(self, count: int, *, within: float = 60) -> tuple[Delivery, ...]:
        """Wait until at least `count` messages have come, and return all of them. Raises TimeoutError."""

        def enough() -> tuple[Delivery, ...] | None:
            deliveries = self.deliveries
            return deliveries if len(deliveries) >= count else None

        try:
            return until(enough, within=within, what=f"{count} messages at the sink") or ()
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {len(self.deliveries)} came") from None
