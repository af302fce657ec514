"""What one SMTP session, and the message under way in it, have said so far; asks the core and returns its answer.

Knows no pymilter: the stages of the protocol come in as plain values, and answers go out as values that `milter.py`
translates. What fails here is remembered with the message, and the message is told to come back: never accepted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from undisclosed.decision import reply, rules
from undisclosed.decision.message import Client, Field, Message
from undisclosed.decision.obstacles import BODY_LIMIT
from undisclosed.decision.reference import reference
from undisclosed.incidents.records import JournalError, Transaction
from undisclosed.incidents.transaction import transaction_of
from undisclosed.milter.answers import Accept, Answer, Continue, Hold, Refuse, Rewrite, Skip
from undisclosed.milter.recorder import Recorder
from undisclosed.policy import Action, Mode, Policy

LARGEST_HEADER = 1 << 20
"""Characters: about 30,000 addresses. It bounds what a hostile header costs (9 s for the worst that was found)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a message is judged by: a snapshot, taken when the message begins."""

    policy: Policy
    key: bytes
    """The key of references."""


class HeaderTooLargeError(ValueError):
    """A header that nobody reads: it is not judged, and the message does not pass."""


class Runtime:
    """What the sessions of one worker share. A reload swaps `snapshot`; a message under way keeps the old ones."""

    def __init__(self, snapshot: Snapshot, log: structlog.BoundLogger, journal: Recorder | None = None) -> None:
        self.snapshot = snapshot
        self.log = log
        self.journal = journal


@dataclass(slots=True)
class _Transaction:
    """One message under way, from MAIL to its end."""

    snapshot: Snapshot
    sender: str
    client: Client
    may_be_ours: bool
    recipients: list[str] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    queue_id: str = ""
    failure: BaseException | None = None
    size: int = 0
    """Characters of the header so far."""
    decision: rules.Decision | None = None
    whole: Message | None = None
    reference: str = ""
    """The incident's; empty where no rule acted."""
    recorded: Transaction | None = None
    unrecorded: bool = False
    """Whether the journal should have the message, and could not be written."""
    body: bytearray = field(default_factory=bytearray)
    body_complete: bool = True
    nanoseconds: int = 0


class Session:
    """One SMTP session: one client, any number of messages one after the other."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._address: str | None = None
        self._port: int | None = None
        self._failure: BaseException | None = None
        self._transaction: _Transaction | None = None

    @property
    def monitors(self) -> bool:
        """Whether nothing may be changed, delayed or refused, our own failures included."""
        snapshot = self._transaction.snapshot if self._transaction else self._runtime.snapshot
        return snapshot.policy.mode is Mode.MONITOR

    def connect(self, address: str | None, port: int | None) -> None:
        """A client connected, or said with XCLIENT that it is another. The address is None where it is not known."""
        self._address, self._port = address, port

    def mail(self, sender: str, login: str) -> None:
        """A message begins."""
        snapshot, client = self._runtime.snapshot, Client(self._address, self._port, login)
        ours = rules.may_be_outgoing(snapshot.policy, client)
        self._transaction = _Transaction(snapshot, _bare(sender), client, ours, failure=self._failure)

    def rcpt(self, recipient: str) -> None:
        """The message has one more recipient."""
        self._under_way().recipients.append(_bare(recipient))

    def header(self, name: str, value: str) -> None:
        """The message has one more header field. Nothing is kept of a message that cannot be ours, whatever it says."""
        message = self._under_way()
        if not message.may_be_ours:
            return
        message.size += len(name) + len(value)
        if message.size > LARGEST_HEADER:
            message.fields.clear()
            raise HeaderTooLargeError(f"a header of more than {LARGEST_HEADER} characters")
        message.fields.append(Field(name, value))

    def failed(self, error: BaseException) -> None:
        """Something failed in a stage that cannot answer: the message, or all of the session, is to be refused."""
        if self._transaction is None:
            self._failure = error
        else:
            self._transaction.failure = self._transaction.failure or error

    def end_of_header(self, queue_id: str) -> Answer:
        """The header is complete: decide."""
        began = time.perf_counter_ns()
        message = self._under_way()
        message.queue_id = queue_id
        if message.failure is not None:
            raise message.failure
        policy = message.snapshot.policy
        whole = Message(
            sender=message.sender,
            recipients=tuple(message.recipients),
            fields=tuple(message.fields),
            client=message.client,
            queue_id=queue_id,
        )
        message.decision = decision = rules.decide(policy, whole)
        if decision.acts:
            message.whole = whole
            message.reference = reference(message.snapshot.key, whole, decision.exposure)
        message.nanoseconds = time.perf_counter_ns() - began
        if decision.needs_body:
            return Continue()  # what happens, or in monitor mode would have happened, depends on the body
        if not self.monitors and decision.action.effect.at_end:
            return Continue()  # libmilter takes edits and quarantine at the end of the message only
        return self._conclude(message, decision)

    def body(self, chunk: bytes) -> Answer:
        """A piece of the body: kept only where a rewrite depends on it."""
        message = self._under_way()
        if message.decision is None or not message.decision.needs_body:
            return Skip()
        room = BODY_LIMIT - len(message.body)
        message.body += chunk[:room]
        if len(chunk) > room:
            message.body_complete = False
            return Skip()
        return Continue()

    def end_of_message(self) -> Answer:
        """The message is complete: act."""
        began = time.perf_counter_ns()
        message = self._under_way()
        if message.failure is not None:
            raise message.failure
        decision = message.decision
        if decision is None:
            raise RuntimeError("the end of a message without the end of its header")
        if decision.needs_body:
            body = bytes(message.body)
            message.decision = decision = rules.after_body(
                message.snapshot.policy, decision, body, message.body_complete
            )
        message.nanoseconds += time.perf_counter_ns() - began
        return self._conclude(message, decision)

    def answered(self, answer: Answer) -> None:
        """A final answer was handed to libmilter: the message is over, and its line goes to the log."""
        message, self._transaction = self._under_way(), None
        self._log_line(message, _outcome(answer))

    def abort(self) -> None:
        """The client gave the message up, or went away."""
        message, self._transaction = self._transaction, None
        if message is not None and message.decision is not None:
            self._log_line(message, "client_gone")

    def fault(self, stage: str, error: BaseException) -> Answer:
        """The answer to a message on which we failed: to come back. In monitor mode it passes all the same."""
        message, self._transaction = self._transaction, None
        queue_id = message.queue_id if message else ""
        snapshot = message.snapshot if message else self._runtime.snapshot
        monitors = snapshot.policy.mode is Mode.MONITOR
        self._runtime.log.error(
            "message_failed",
            stage=stage,
            queue_id=queue_id,
            sender=message.sender if message else None,
            answer="accept" if monitors else "tempfail",
            reason=f"{type(error).__name__}: {error}",
            exc_info=error,
        )
        if monitors:
            return Accept()
        if message and message.recorded and self._runtime.journal:
            self._runtime.journal.withdraw(message.recorded, "answered with a temporary failure: see the log")
        return Refuse(reply.fault(snapshot.policy, queue_id), in_one_line=self._port == 0)

    def _under_way(self) -> _Transaction:
        if self._transaction is None:
            raise RuntimeError("a message went on that had not begun")
        return self._transaction

    def _refusal(self, message: _Transaction) -> Refuse:
        assert message.decision is not None
        refusal = reply.refusal(message.snapshot.policy, message.decision, message.reference)
        return Refuse(refusal, in_one_line=self._port == 0)

    def _conclude(self, message: _Transaction, decision: rules.Decision) -> Answer:
        """The last answer to a message, once the journal has it if a rule acted on it.

        What cannot be recorded is refused or held all the same. What would be delivered, changed or with a warning,
        has to come back: nobody would learn of it.
        """
        self._record(message, decision)
        if self.monitors:
            return Accept()
        if message.unrecorded and decision.action in (Action.WARN, Action.REWRITE):
            fault = reply.fault(message.snapshot.policy, message.queue_id)
            return Refuse(fault, in_one_line=self._port == 0)
        return self._act(message, decision)

    def _record(self, message: _Transaction, decision: rules.Decision) -> None:
        """Have the journal hold what a rule does, before Postfix hears of it."""
        journal = self._runtime.journal
        if journal is None or message.whole is None:
            return
        transaction = transaction_of(
            message.snapshot.policy,
            message.whole,
            decision,
            reference=message.reference,
            gateway=journal.gateway,
            at=datetime.now(UTC),
        )
        try:
            journal.record(transaction)
        except JournalError:
            message.unrecorded = True  # why is in the log, once
        else:
            message.recorded = transaction

    def _act(self, message: _Transaction, decision: rules.Decision) -> Answer:
        match decision.action:
            case Action.ACCEPT | Action.WARN:
                return Accept()
            case Action.REWRITE:
                return Rewrite(decision.edits)
            case Action.QUARANTINE | Action.SPLIT | Action.DELAY:
                return Hold(reply.quarantine_reason(decision, message.reference))
            case Action.REJECT:
                return self._refusal(message)

    def _log_line(self, message: _Transaction, outcome: str) -> None:
        """Write the message's one line in the log."""
        decision = message.decision
        assert decision is not None
        line: dict[str, Any] = {
            "queue_id": message.queue_id,
            "sender": message.sender,
            "client": message.client.address,
            "outcome": outcome,
            **decision.as_log(),
            "recipients": len(message.recipients),
            "microseconds": message.nanoseconds // 1000,
        }
        if message.client.login:
            line["login"] = message.client.login
        if message.reference:
            line["reference"] = message.reference
        if message.unrecorded:
            line["journal"] = "failed"
        if message.snapshot.policy.mode is Mode.MONITOR:
            line["mode"] = "monitor"
        self._runtime.log.info("message", **line)


_OUTCOMES = {
    Accept: "accepted",
    Refuse: "rejected",
    Rewrite: "rewritten",
    Hold: "held",
}


def _outcome(answer: Answer) -> str:
    if isinstance(answer, Refuse) and answer.reply.code < 500:
        return "tempfailed"
    return _OUTCOMES[type(answer)]


def _bare(address: str) -> str:
    """An envelope address without angle brackets: mail through sendmail(1) comes without them."""
    return address[1:-1] if address.startswith("<") and address.endswith(">") else address
