"""The only importer of pymilter: short callbacks, one fail-safe wrapper, and the core's answers told to libmilter.

pymilter's module `milter` is used as it is, without the class that wraps it: that class decodes, checks and negotiates
on every event what this milter settles once. The sources are libmilter's API documentation and the traps of its
worker pool: the callbacks of one connection run on different threads, one after the other.
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
"""What the milter asks to be allowed."""

NO_REPLY: Final = milter.P_NR_MAIL | milter.P_NR_RCPT | milter.P_NR_HDR
"""Events that get no answer, where the MTA can do without. DATA is answered: without an answer between the first
packet and the end of the header, Nagle's algorithm waits 40 ms for a delayed acknowledgement on an inet socket."""

NOT_SENT: Final = milter.P_NOHELO | milter.P_NOUNKNOWN
"""Events that need not be sent at all."""

CONTINUE: Final[int] = milter.CONTINUE
NO_ANSWER: Final[int] = milter.NOREPLY

BACKLOG: Final = 1024
"""Connections that may wait to be accepted: a burst of sessions is not refused."""


class Gate:
    """Lets callbacks run until it is closed; then those that run end, and new ones wait for the process to end."""

    def __init__(self) -> None:
        self._open = True
        # One entry for each callback that runs. Its methods are atomic, so that no callback has to take a lock.
        self._running: list[None] = []
        self.entered = 0
        """How many callbacks there were, roughly: two at the same moment may be counted as one."""

    def __enter__(self) -> None:
        self.entered += 1
        self._running.append(None)  # before the look: whoever closes the gate waits for us, or we see it closed
        if not self._open:
            self._running.pop()
            threading.Event().wait()  # for good: os._exit follows, and Postfix is told nothing that could be wrong

    def __exit__(self, *_: object) -> None:
        self._running.pop()

    def close(self, deadline: float) -> bool:
        """Wait until no callback runs, at most until `deadline` (time.monotonic()); whether that came about."""
        self._open = False
        while self._running and time.monotonic() < deadline:
            time.sleep(0.002)
        return not self._running


class Connection:
    """pymilter's private data of one connection: the session, and which events it may leave without an answer."""

    __slots__ = ("no_reply", "session", "skip")

    def __init__(self, runtime: Runtime) -> None:
        self.session = Session(runtime)
        self.no_reply = 0
        self.skip = False


class Callbacks:
    """What libmilter calls. One instance a worker process."""

    def __init__(self, runtime: Runtime, gate: Gate) -> None:
        self._runtime = runtime
        self._gate = gate

    def register(self, name: str = "undisclosed") -> None:
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
        milter.register(name, data=self._guard(self._data), negotiate=self._negotiate)

    def _guard(self, stage: Callable[..., int], no_reply: int = 0) -> Callable[..., int]:
        """The one place that catches everything: no failure of ours ever ends in "accept" in enforce mode.

        A stage that gives no answer remembers the failure with its message, which is refused at the end of its header;
        libmilter would swallow it there, and the message would pass.
        """

        @functools.wraps(stage)
        def guarded(ctx: Any, *args: Any) -> int:
            with self._gate:
                connection: Connection | None = ctx.getpriv()
                if connection is None:  # an MTA that negotiates nothing
                    connection = Connection(self._runtime)
                    ctx.setpriv(connection)
                try:
                    result = stage(ctx, connection, *args)
                except Exception as error:  # noqa: BLE001 - the fail-safe: whatever it was, the message must not pass
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
        """The one place where an answer is told to libmilter."""
        match answer:
            case answers.Accept():
                return int(milter.ACCEPT)
            case answers.Continue():
                return CONTINUE
            case answers.Skip():
                return int(milter.SKIP if connection.skip else milter.CONTINUE)
            case answers.Refuse(reply, in_one_line):
                lines = (reply.single(),) if in_one_line else reply.lines
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
        """Settle what is sent and answered. An MTA that cannot do what every answer needs is turned away."""
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
    """Open the listening socket of this process and those it forks, in libmilter's syntax. Raises OSError."""
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
    """What libmilter is told where not even the fail-safe wrapper answers. "Continue" never skips another message."""
    monitors = runtime.snapshot.policy.mode is Mode.MONITOR
    milter.set_exception_policy(milter.CONTINUE if monitors else milter.TEMPFAIL)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
