"""The only importer of pymilter: short callbacks, one fail-safe wrapper, and the translation of answers for libmilter.

It uses pymilter's C module `milter` without the class that wraps it: that class repeats on every event the decoding,
checks and negotiation that this milter does once. libmilter has a pool of threads: the callbacks of one connection run
on different threads, one after the other.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, Final, assert_never

import milter

from undisclosed.decision.edits import Edit, HeaderChange, HeaderDeletion, HeaderInsertion
from undisclosed.milter import answers
from undisclosed.milter.answers import Answer
from undisclosed.milter.session import Runtime, Session
from undisclosed.policy import Mode

ACTIONS: Final = milter.CHGHDRS | milter.ADDHDRS | milter.QUARANTINE
"""Changes to a message that the milter needs the MTA to allow."""

NO_REPLY: Final = milter.P_NR_MAIL | milter.P_NR_RCPT | milter.P_NR_HDR
"""Events that get no answer, if the MTA allows it. DATA gets one: without an answer between the first packet and the
end of the header, Nagle's algorithm waits 40 ms for a delayed acknowledgement on an inet socket."""

NOT_SENT: Final = milter.P_NOHELO | milter.P_NOUNKNOWN
"""Events that the MTA need not send."""

CONTINUE: Final[int] = milter.CONTINUE
NO_ANSWER: Final[int] = milter.NOREPLY

BACKLOG: Final = 1024
"""Connections that may wait to be accepted, so that a burst of sessions is not refused."""


class Gate:
    """Lets callbacks run until it is closed. Then running ones finish, and new ones block until the process ends."""

    def __init__(self) -> None:
        self._open = True
        # One entry for each callback that runs: append and pop are atomic, so that no callback takes a lock.
        self._running: list[None] = []
        self.entered = 0
        """The number of callbacks so far, roughly: two at the same moment may count as one."""

    def __enter__(self) -> None:
        self.entered += 1
        self._running.append(None)  # before the test: then either `close` waits for this callback, or it sees `_open`
        if not self._open:
            self._running.pop()
            threading.Event().wait()  # block until os._exit: no answer is better than a wrong one

    def __exit__(self, *_: object) -> None:
        self._running.pop()

    def close(self, deadline: float) -> bool:
        """Close, and wait until no callback runs; False if one still runs at `deadline` (time.monotonic())."""
        self._open = False
        while self._running and time.monotonic() < deadline:
            time.sleep(0.002)
        return not self._running


class Connection:
    """The private data of one connection: the session, and the results of the negotiation."""

    __slots__ = ("no_reply", "session", "skip")

    def __init__(self, runtime: Runtime) -> None:
        self.session = Session(runtime)
        self.no_reply = 0
        self.skip = False


class Callbacks:
    """The callbacks of libmilter, one instance per worker process."""

    def __init__(self, runtime: Runtime, gate: Gate) -> None:
        self._runtime = runtime
        self._gate = gate

    def register(self) -> None:
        """Make these the callbacks of this process."""
        milter.set_flags(ACTIONS)
        milter.set_connect_callback(self._guard(self._connect))
        milter.set_envfrom_callback(self._guard(self._mail, milter.P_NR_MAIL))
        milter.set_envrcpt_callback(self._guard(self._rcpt, milter.P_NR_RCPT))
        milter.set_header_callback(self._guard(self._header, milter.P_NR_HDR))
        milter.set_eoh_callback(self._guard(self._end_of_header))
        milter.set_body_callback(self._guard(self._body))
        milter.set_eom_callback(self._guard(self._end_of_message))
        milter.set_abort_callback(self._guard(self._abort))
        milter.set_close_callback(self._guard(self._close))
        milter.register("undisclosed", data=self._guard(self._data), negotiate=self._negotiate)

    def _guard(self, stage: Callable[..., int], no_reply: int = 0) -> Callable[..., int]:
        """Wrap a callback. This is the one place that catches everything: in enforce mode no failure becomes "accept".

        The failure of a stage that gives no answer is kept, and the message is refused at the end of its header.
        libmilter would ignore the failure, and the message would pass.
        """

        @functools.wraps(stage)
        def guarded(ctx: Any, *args: Any) -> int:
            with self._gate:
                connection: Connection | None = ctx.getpriv()
                if connection is None:  # the MTA did not negotiate
                    connection = Connection(self._runtime)
                    ctx.setpriv(connection)
                try:
                    result = stage(ctx, connection, *args)
                except Exception as error:  # noqa: BLE001 - the fail-safe: after any failure the message must not pass
                    result = self._failed(ctx, connection, stage.__name__, error)
            return NO_ANSWER if connection.no_reply & no_reply else result

        return guarded

    def _failed(self, ctx: Any, connection: Connection, stage: str, error: Exception) -> int:
        name = stage.strip("_")
        if name in ("end_of_header", "body", "end_of_message"):
            return self._tell(ctx, connection, connection.session.fault(name, error))
        connection.session.failed(error)
        return CONTINUE

    def _tell(self, ctx: Any, connection: Connection, answer: Answer) -> int:
        """Translate an answer for libmilter: the one place that sets replies, edits and quarantine."""
        match answer:
            case answers.Accept():
                return int(milter.ACCEPT)
            case answers.Continue():
                return CONTINUE
            case answers.Skip():
                return int(milter.SKIP if connection.skip else milter.CONTINUE)
            case answers.Refuse(reply, in_one_line):
                lines = (reply.short,) if in_one_line else reply.lines
                ctx.setreply(str(reply.code), reply.enhanced, *(line.replace("%", "%%") for line in lines))
                return int(milter.REJECT if reply.code >= 500 else milter.TEMPFAIL)
            case answers.Rewrite(edits):
                for edit in edits:
                    self._edit(ctx, edit)
                return int(milter.ACCEPT)
            case answers.Hold(reason):
                ctx.quarantine(reason)
                return int(milter.ACCEPT)
        assert_never(answer)

    @staticmethod
    def _edit(ctx: Any, edit: Edit) -> None:
        match edit:
            case HeaderChange(name, index, value):
                ctx.chgheader(name, index, value)
            case HeaderDeletion(name, index):
                ctx.chgheader(name, index, "")
            case HeaderInsertion(name, value):
                ctx.addheader(name, value)
            case _:
                assert_never(edit)

    def _finish(self, ctx: Any, connection: Connection, answer: Answer) -> int:
        result = self._tell(ctx, connection, answer)
        if not isinstance(answer, answers.Continue):
            connection.session.answered(answer)
        return result

    def _negotiate(self, ctx: Any, options: list[int]) -> int:
        """Agree on events and answers. An MTA that does not allow every change that an answer may need is refused."""
        actions, protocol, _, _ = options
        connection = Connection(self._runtime)
        ctx.setpriv(connection)
        missing = ACTIONS & ~actions
        if missing and not connection.session.monitors:
            self._runtime.log.error("negotiation_failed", offered_actions=hex(actions), missing_actions=hex(missing))
            return int(milter.REJECT)
        connection.no_reply = protocol & NO_REPLY
        connection.skip = bool(protocol & milter.P_SKIP)
        options[0] = ACTIONS & actions
        options[1] = protocol & (NO_REPLY | NOT_SENT | milter.P_SKIP)
        options[2] = options[3] = 0
        return CONTINUE

    def _connect(self, _ctx: Any, connection: Connection, _name: str, _family: int, address: Any) -> int:
        if isinstance(address, tuple):
            connection.session.connect(address[0], address[1])
        else:
            connection.session.connect(None, None)
        return CONTINUE

    def _mail(self, ctx: Any, connection: Connection, sender: bytes, *_parameters: bytes) -> int:
        connection.session.mail(_text(sender), ctx.getsymval("{auth_authen}") or "")
        return CONTINUE

    def _rcpt(self, _ctx: Any, connection: Connection, recipient: bytes, *_parameters: bytes) -> int:
        connection.session.rcpt(_text(recipient))
        return CONTINUE

    def _data(self, _ctx: Any, _connection: Connection) -> int:
        return CONTINUE

    def _header(self, _ctx: Any, connection: Connection, name: str, value: bytes) -> int:
        connection.session.header(name, _text(value))
        return CONTINUE

    def _end_of_header(self, ctx: Any, connection: Connection) -> int:
        return self._finish(ctx, connection, connection.session.end_of_header(ctx.getsymval("i") or ""))

    def _body(self, ctx: Any, connection: Connection, chunk: bytes) -> int:
        return self._tell(ctx, connection, connection.session.body(chunk))

    def _end_of_message(self, ctx: Any, connection: Connection) -> int:
        return self._finish(ctx, connection, connection.session.end_of_message())

    def _abort(self, _ctx: Any, connection: Connection) -> int:
        connection.session.abort()
        return CONTINUE

    def _close(self, _ctx: Any, connection: Connection) -> int:
        connection.session.abort()
        return CONTINUE


def open_socket(connection: str) -> None:
    """Open the listening socket, which forked processes share; `connection` is libmilter's syntax. Raises OSError."""
    milter.setconn(connection)
    milter.setbacklog(BACKLOG)
    milter.register("undisclosed")
    try:
        milter.opensocket(False)
    except milter.error as error:
        raise OSError(f"libmilter cannot listen at {connection}") from error


def serve(runtime: Runtime, gate: Gate) -> None:
    """Answer Postfix on the socket that `open_socket` opened, until libmilter is stopped. Raises OSError."""
    set_mode(runtime)
    Callbacks(runtime, gate).register()
    try:
        milter.main()
    except milter.error as error:
        raise OSError(f"libmilter stopped: {error}") from error


def set_mode(runtime: Runtime) -> None:
    """Set pymilter's answer to an exception outside the fail-safe wrapper. In monitor mode the message goes on."""
    monitors = runtime.snapshot.policy.mode is Mode.MONITOR
    milter.set_exception_policy(milter.CONTINUE if monitors else milter.TEMPFAIL)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
