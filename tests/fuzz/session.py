"""The milter's callbacks and the session behind them: any events in any order, as libmilter would call them.

The input is a row of events, parted by NUL, each a letter of the milter protocol and its contents: C connect, M MAIL,
R RCPT, T DATA, L header ("name:value"), N end of header, B body, E end of message, A abort, Q close. Two more are
ours: P swaps the policy as a reload does, X has the next thing that libmilter is asked for fail. A `*` at the start of
a value makes it as long as an event can be. The first byte says whether the order is libmilter's own (its engine
refuses others) or any at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest import mock

import milter as libmilter
import structlog

from fuzz.readers import RECIPIENT_FIELDS, is_below, outside, plain
from support.factories import policy, rule
from support.recorders import SessionRecorder
from undisclosed.decision.edits import Edit, HeaderChange, HeaderInsertion, apply
from undisclosed.decision.message import Field
from undisclosed.milter import callbacks
from undisclosed.milter.session import Runtime, Snapshot
from undisclosed.policy import Mode, Policy

LIMIT = 2
_STRANGER = re.compile(r"<[a-z]+@family\.test>")

EVENT = 65_535
"""Bytes of the longest event."""

POLICIES = tuple(
    policy(mode=mode, rules=[rule(more_than_addresses=LIMIT, action=action)], rewrite={"when_unsafe": unsafe})
    for mode, action, unsafe in (
        ("enforce", "reject", "reject"),
        ("enforce", "rewrite", "quarantine"),
        ("enforce", "quarantine", "reject"),
        ("enforce", "split", "reject"),
        ("monitor", "rewrite", "reject"),
    )
)
KEY = b"0" * 32
OFFERED = [libmilter.ADDHDRS | libmilter.CHGHDRS | libmilter.QUARANTINE, 0x1FFFFF, 0, 0]

FOLLOWS = {  # which events libmilter's engine takes after which (its table next_states)
    "C": "QM", "M": "RAQ", "R": "RTLNAQ", "T": "LNAQ", "L": "LNAQ", "N": "BEAQ", "B": "BEAQ",
}  # fmt: skip
BETWEEN = "CMQA"
"""The events that may come between two messages."""


class Registered:
    """Stands in for libmilter's module: keeps the callbacks that a worker registers; all else is the module's own."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[..., int]] = {}

    def register(self, _name: str, **callbacks: Callable[..., int]) -> None:
        """Take what is registered by name."""
        self.callbacks |= callbacks

    def __getattr__(self, name: str) -> Any:
        if name.startswith("set_") and name.endswith("_callback"):
            return lambda callback: self.callbacks.__setitem__(name[4:-9], callback)
        return (lambda *_: None) if name == "set_flags" else getattr(libmilter, name)


@cache
def _worker() -> tuple[Runtime, dict[str, Callable[..., int]]]:
    """One worker, its callbacks registered."""
    log: structlog.BoundLogger = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[lambda _logger, _name, event: repr(event)],  # what makes a line of it is tested elsewhere
        wrapper_class=structlog.BoundLogger,
    )
    runtime = Runtime(Snapshot(POLICIES[0], KEY, "mx1"), log, SessionRecorder())
    registered = Registered()
    with mock.patch.object(callbacks, "milter", registered):
        callbacks.Callbacks(runtime, callbacks.Gate()).register()
    return runtime, registered.callbacks


def _is_text(text: str) -> bool:
    return text.isascii() and text.isprintable()


@dataclass
class Context:
    """The state that libmilter keeps of a connection, with the checks that it makes of calls."""

    private: Any = None
    macros: dict[str, str] = field(default_factory=dict)
    fails: bool = False
    edits: list[Edit] = field(default_factory=list)
    held: bool = False
    reply: str = ""

    def getpriv(self) -> Any:
        """The private data."""
        return self.private

    def setpriv(self, data: Any) -> None:
        """Keep the private data."""
        self.private = data

    def _fail(self) -> None:
        if self.fails:
            self.fails = False
            raise libmilter.error("cannot")

    def getsymval(self, name: str) -> str | None:
        """A macro."""
        self._fail()
        return self.macros.get(name)

    def setreply(self, code: str, enhanced: str, *lines: str) -> None:
        """The text of a refusal: at most 32 lines of 980 bytes, per cent signs doubled (smfi_setmlreply).

        It never fails here: what the worker cannot say, pymilter's exception policy answers (milter.set_mode).
        """
        assert code[0] == enhanced[0]
        assert 0 < len(lines) <= 32
        for line in lines:
            assert _is_text(line)
            assert len(line) <= 980
            assert "%" not in line.replace("%%", "")
        self.reply = code

    def chgheader(self, name: str, index: int, value: str) -> None:
        """Change or delete a field."""
        self._fail()
        assert index > 0
        assert _is_text(name + value.replace("\n ", ""))
        self.edits.append(HeaderChange(name, index, value))

    def addheader(self, name: str, value: str) -> None:
        """Add a field."""
        self._fail()
        assert _is_text(name + value.replace("\n ", ""))
        self.edits.append(HeaderInsertion(name, value))

    def quarantine(self, reason: str) -> None:
        """Put the message on hold."""
        self._fail()
        assert reason
        assert _is_text(reason)
        self.held = True


@dataclass
class Sent:
    """The MTA's record of the message under way."""

    rules: Policy
    sender: str
    failed: bool = False
    recipients: list[str] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)

    def shown(self) -> int:
        """The number of addresses that a plain expression finds: a lower bound of the visible ones."""
        values = [f.value for f in self.fields if f.name.casefold() in RECIPIENT_FIELDS - {"reply-to"}]
        readable = [value for value in values if value.isascii() and value.replace("\n", "").isprintable()]
        found = set().union(*(plain(value) for value in readable if "=?" not in value))
        return len({pair for pair in found if not is_below(pair[1], ("council.test",))})

    @property
    def is_ours(self) -> bool:
        """Whether it surely is outgoing mail."""
        return self.sender == "<clerk@council.test>" and (
            not self.recipients or any(_STRANGER.fullmatch(recipient) for recipient in self.recipients)
        )


class Game:
    """One run of events."""

    def __init__(self, *, lawful: bool) -> None:
        self.lawful = lawful
        self.runtime, self.callbacks = _worker()
        self.runtime.snapshot = Snapshot(POLICIES[0], KEY, "mx1")
        self.before = ""
        self.inside = False
        self._connect()

    def _connect(self) -> None:
        self.context, self.message, self.inside, self.skipped = Context(), None, False, False
        options = list(OFFERED)
        assert self.callbacks["negotiate"](self.context, options) == libmilter.CONTINUE
        assert options[0] == OFFERED[0]
        assert not options[1] & ~OFFERED[1]

    message: Sent | None

    def play(self, letter: str, content: bytes) -> None:
        """One event, if it may come now."""
        if letter == "P":
            self.runtime.snapshot = Snapshot(POLICIES[(content or b"\0")[0] % len(POLICIES)], KEY, "mx1")
        elif letter == "X":
            self.context.fails = True
        elif not self.lawful or self._may_come(letter):
            self.before = letter
            content = (content[1:] * EVENT)[:EVENT] if content.startswith(b"*") else content
            getattr(self, f"_event_{letter.lower()}")(content)

    def _may_come(self, letter: str) -> bool:
        return letter in (FOLLOWS[self.before] if self.inside else BETWEEN)

    def _call(self, name: str, *arguments: object) -> int:
        result = self.callbacks[name](self.context, *arguments)
        assert type(result) is int
        return result

    def _event_c(self, content: bytes) -> None:
        address = None if content.startswith(b"?") else ("127.0.0.1", (content or b"1")[0])
        assert self._call("connect", "client", 2, address) == libmilter.CONTINUE

    def _event_m(self, content: bytes) -> None:
        login, _, sender = content.partition(b":") if content.startswith(b"+") else (b"", b"", content)
        self.context.macros["{auth_authen}"] = login.decode("latin-1")
        self.message = Sent(self.runtime.snapshot.policy, sender.decode("latin-1"))
        self.context.edits, self.context.held, self.context.reply = [], False, ""
        self.inside, self.skipped = True, False
        assert self._call("envfrom", sender) == libmilter.NOREPLY

    def _event_r(self, content: bytes) -> None:
        if self.message:
            self.message.recipients.append(content.decode("latin-1"))
        assert self._call("envrcpt", content) == libmilter.NOREPLY

    def _event_t(self, _content: bytes) -> None:
        assert self._call("data") == libmilter.CONTINUE

    def _event_l(self, content: bytes) -> None:
        name, _, value = content.partition(b":")
        name = bytes(byte for byte in name if 32 < byte < 127) or b"To"  # pymilter raises on others
        text = name.decode()
        if self.message:
            self.message.fields.append(Field(text, value.decode("utf-8", "surrogateescape")))
        assert self._call("header", text, value) == libmilter.NOREPLY

    def _event_n(self, content: bytes) -> None:
        self.context.macros["i"] = content[:20].decode("latin-1")
        self._judge(self._call("eoh"))

    def _event_b(self, content: bytes) -> None:
        if self.skipped and self.lawful:
            return
        result = self._call("body", content)
        self.skipped = result == libmilter.SKIP
        if not self.skipped:
            self._judge(result)

    def _event_e(self, _content: bytes) -> None:
        result = self._call("eom")
        assert result != libmilter.CONTINUE, "the end of a message without a final answer"
        self._judge(result)

    def _event_a(self, _content: bytes) -> None:
        self.inside, self.message = False, None
        assert self._call("abort") == libmilter.CONTINUE

    def _event_q(self, _content: bytes) -> None:
        if self.inside:
            self._event_a(b"")
        self._call("close")
        self._connect()

    def _judge(self, result: int) -> None:
        """A final answer, compared with the message that was sent."""
        message, context = self.message, self.context
        allowed = (libmilter.ACCEPT, libmilter.CONTINUE, libmilter.REJECT, libmilter.TEMPFAIL)
        assert result in allowed, f"no final answer is {result}"
        if result == libmilter.CONTINUE:
            return
        self.inside, self.message = False, None
        if result != libmilter.ACCEPT:
            assert context.reply[:1] == ("5" if result == libmilter.REJECT else "4") or self._monitors(message)
        if message is None or not self.lawful:
            return
        if self._monitors(message):
            assert (result, context.edits, context.held) == (libmilter.ACCEPT, [], False), "monitor mode acted"
        elif result == libmilter.ACCEPT and not context.held and message.is_ours and message.shown() > LIMIT:
            assert context.edits, f"{message.shown()} addresses were let pass"
            after = apply(message.fields, context.edits)
            left = [f for f in after if f.name.casefold() in RECIPIENT_FIELDS - {"reply-to"} and outside(f.value)]
            assert not left, f"rewritten, and shows addresses still: {left}"

    @staticmethod
    def _monitors(message: Sent | None) -> bool:
        return message is not None and message.rules.mode is Mode.MONITOR


def check(data: bytes) -> None:
    """Play one row of events."""
    if not data:
        return
    game = Game(lawful=data[0] % 4 != 3)
    game.play("C", b"1")
    for event in data[1:].split(b"\0"):
        letter = event[:1].decode("latin-1")
        if letter and letter in "CMRTLNBEAQPX":
            game.play(letter, event[1:])
