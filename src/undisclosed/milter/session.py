"""One SMTP session and the transaction under way in it: collects what the client sends, and has the core decide.

Knows no pymilter. The stages of the protocol arrive as plain values, and the answers are values that `callbacks.py`
translates for libmilter. A failure in an early stage is kept with the transaction, which is then refused for now
(tempfail) at the end of its header; it is never accepted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from undisclosed.decision import reply, rules
from undisclosed.decision.body_scan import BodyScan
from undisclosed.decision.message import Client, Field, Message, bounce_is_lost
from undisclosed.decision.reference import identity, reference
from undisclosed.decision.reply import Reply
from undisclosed.incidents.records import JournalError, Transaction
from undisclosed.incidents.transaction import transaction_of
from undisclosed.milter.answers import Accept, Answer, Continue, Hold, Refuse, Rewrite, Skip
from undisclosed.policy import Action, Mode, Policy

MAX_HEADER: Final = 1 << 20
"""Characters of a header that is decided on: about 30,000 addresses. The worst header of this size that was found took
9 s. The answer to a longer one is permanent: mail by sendmail(1) would otherwise stay in maildrop for ever, and nobody
would be told."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Policy and key of one moment. A transaction keeps those that were in force when it began."""

    policy: Policy
    key: bytes
    """The key of references and hashes (`journal.key_file`)."""
    gateway: str
    """The identity of this gateway in the journal."""


class TransactionRecorder(Protocol):
    """Records transactions in the journal while Postfix waits: milter.recorder."""

    gateway: str

    def record(self, transaction: Transaction, /) -> None:
        """Record a transaction. Raises JournalError."""

    def mark_not_queued(self, transaction: Transaction, why: str, /) -> None:
        """Record, in the background, that Postfix does not have a message."""


class Runtime:
    """The state that the sessions of a worker share. A reload replaces `snapshot`; running transactions keep theirs."""

    def __init__(self, snapshot: Snapshot, log: structlog.BoundLogger, recorder: TransactionRecorder) -> None:
        self.snapshot = snapshot
        self.log = log
        self.recorder = recorder


@dataclass(slots=True)
class _Transaction:
    """One SMTP transaction, from MAIL to its end."""

    snapshot: Snapshot
    sender: str
    client: Client
    may_be_outgoing: bool
    """Whether client and login allow it to be outgoing; else its header is not kept."""
    recipients: list[str] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    queue_id: str = ""
    failure: BaseException | None = None
    """The first failure of a stage that could not answer."""
    header_size: int = 0
    """Characters of the header so far. Above MAX_HEADER it is not kept, and the message is refused undecided."""
    decision: rules.Decision | None = None
    message: Message | None = None
    """Envelope and header, where a rule acts; the journal's record is made of them."""
    identity: str = ""
    """The identity of the message; empty where no rule acts."""
    reference: str = ""
    """The reference of the incident; empty where no rule acts."""
    record: Transaction | None = None
    """The record, once the journal has stored it."""
    record_failed: bool = False
    """Whether the journal could not take a record that it should have."""
    body: BodyScan | None = None
    """The search of the body, where the decision depends on it."""
    nanoseconds: int = 0
    """Time spent on decisions."""


class Session:
    """One SMTP session: one client, any number of transactions one after the other."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._address: str | None = None
        self._port: int | None = None
        self._failure: BaseException | None = None
        """A failure before MAIL: every transaction of the session is refused for now."""
        self._transaction: _Transaction | None = None

    @property
    def monitors(self) -> bool:
        """Whether nothing may be changed, delayed or refused, not even after a failure of the milter."""
        snapshot = self._transaction.snapshot if self._transaction else self._runtime.snapshot
        return snapshot.policy.mode is Mode.MONITOR

    def connect(self, address: str | None, port: int | None) -> None:
        """A client connected, or XCLIENT gave it another address. The address is None where it is not known."""
        self._address, self._port = address, port

    def mail(self, sender: str, login: str) -> None:
        """A transaction begins."""
        snapshot, client = self._runtime.snapshot, Client(self._address, self._port, login)
        outgoing = rules.may_be_outgoing(snapshot.policy, client)
        self._transaction = _Transaction(snapshot, _bare(sender), client, outgoing, failure=self._failure)

    def rcpt(self, recipient: str) -> None:
        """The transaction has one more recipient."""
        self._current().recipients.append(_bare(recipient))

    def header(self, name: str, value: str) -> None:
        """The message has one more header field. It is not kept where the message cannot be outgoing."""
        transaction = self._current()
        if not transaction.may_be_outgoing:
            return
        transaction.header_size += len(name) + len(value)
        if transaction.header_size > MAX_HEADER:
            transaction.fields.clear()
        else:
            transaction.fields.append(Field(name, value))

    def failed(self, error: BaseException) -> None:
        """A stage that cannot answer has failed: the transaction, or each that follows, is refused for now."""
        if self._transaction is None:
            self._failure = error
        else:
            self._transaction.failure = self._transaction.failure or error

    def end_of_header(self, queue_id: str) -> Answer:
        """The header is complete: decide."""
        began = time.perf_counter_ns()
        transaction = self._current()
        transaction.queue_id = queue_id
        if transaction.failure is not None:
            raise transaction.failure
        if transaction.header_size > MAX_HEADER:
            return self._too_large(transaction)
        message = Message(
            sender=transaction.sender,
            recipients=tuple(transaction.recipients),
            fields=tuple(transaction.fields),
            client=transaction.client,
            queue_id=queue_id,
        )
        transaction.decision = decision = rules.decide(transaction.snapshot.policy, message)
        if decision.acts:
            transaction.message = message
            transaction.identity = identity(transaction.snapshot.key, message, decision.exposure)
            transaction.reference = reference(transaction.identity)
        transaction.nanoseconds = time.perf_counter_ns() - began
        if decision.body is not None:
            transaction.body = decision.body.begin()
            return Continue()  # in monitor mode too: the log and the journal say what would have happened
        if not self.monitors and decision.action.effect.at_end:
            return Continue()  # libmilter takes edits and quarantine at the end of the message only
        return self._conclude(transaction, decision)

    def body(self, chunk: bytes) -> Answer:
        """A chunk of the body: read where the decision depends on it, until the answer is certain."""
        transaction = self._current()
        if transaction.body is None or transaction.failure is not None:
            return Skip()
        began = time.perf_counter_ns()
        transaction.body.feed(chunk)
        transaction.nanoseconds += time.perf_counter_ns() - began
        return Continue() if transaction.body.obstacle is None else Skip()

    def end_of_message(self) -> Answer:
        """The message is complete: act."""
        began = time.perf_counter_ns()
        transaction = self._current()
        if transaction.failure is not None:
            raise transaction.failure
        decision = transaction.decision
        if decision is None and transaction.header_size > MAX_HEADER:
            return Hold(f"the header is too large, and {rules.BOUNCE_IS_LOST}")
        if decision is None or transaction.message is None:
            raise RuntimeError("the end of a message without the end of its header")
        if transaction.body is not None:
            transaction.decision = decision = rules.after_body(
                transaction.snapshot.policy, transaction.message, decision, transaction.body.end()
            )
        transaction.nanoseconds += time.perf_counter_ns() - began
        return self._conclude(transaction, decision)

    def answered(self, answer: Answer) -> None:
        """libmilter has the final answer: the transaction is over, and its line goes to the log."""
        transaction, self._transaction = self._current(), None
        if transaction.decision is None:
            self._log_too_large(transaction, _outcome(answer))
        else:
            self._log_line(transaction, _outcome(answer))

    def abort(self) -> None:
        """The client aborted the transaction, or disconnected."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None and transaction.decision is not None:
            self._log_line(transaction, "client_gone")

    def fault(self, stage: str, error: BaseException) -> Answer:
        """The answer after a failure of the milter: a temporary refusal, or in monitor mode accept."""
        transaction, self._transaction = self._transaction, None
        queue_id = transaction.queue_id if transaction else ""
        snapshot = transaction.snapshot if transaction else self._runtime.snapshot
        monitors = snapshot.policy.mode is Mode.MONITOR
        self._runtime.log.error(
            "message_failed",
            stage=stage,
            queue_id=queue_id,
            sender=transaction.sender if transaction else None,
            answer="accept" if monitors else "tempfail",
            reason=f"{type(error).__name__}: {error}",
            exc_info=error,
        )
        if monitors:
            return Accept()
        if transaction and transaction.record:
            self._runtime.recorder.mark_not_queued(transaction.record, "answered with a temporary failure: see the log")
        return self._refuse(reply.fault(snapshot.policy, queue_id))

    def _too_large(self, transaction: _Transaction) -> Answer:
        """The answer to a header that is not decided on."""
        if self.monitors:
            return Accept()
        if bounce_is_lost(transaction.sender, transaction.client):
            return Continue()  # held at the end of the message; the steward finds it there and records it
        return self._refuse(reply.header_too_large(transaction.snapshot.policy, transaction.queue_id))

    def _current(self) -> _Transaction:
        if self._transaction is None:
            raise RuntimeError("a stage of a transaction before MAIL")
        return self._transaction

    def _refuse(self, answer: Reply) -> Refuse:
        """The bounce of sendmail(1) joins all lines of a reply."""
        return Refuse(answer, in_one_line=self._port == 0)

    def _conclude(self, transaction: _Transaction, decision: rules.Decision) -> Answer:
        """The final answer, once the journal has the record if a rule acts.

        If the journal cannot be written, a message is still refused or held. A message that would be delivered, changed
        or with a warning, is refused for now: there would be no record and no notice of it.
        """
        self._record(transaction, decision)
        if self.monitors:
            return Accept()
        if transaction.record_failed and decision.action.effect.delivers:
            return self._refuse(reply.fault(transaction.snapshot.policy, transaction.queue_id))
        return self._act(transaction, decision)

    def _record(self, transaction: _Transaction, decision: rules.Decision) -> None:
        """Record the transaction in the journal if a rule acts, before Postfix gets the answer."""
        recorder = self._runtime.recorder
        if transaction.message is None:
            return
        record = transaction_of(
            transaction.snapshot.policy,
            transaction.message,
            decision,
            identity=transaction.identity,
            key=transaction.snapshot.key,
            gateway=recorder.gateway,
            at=datetime.now(UTC),
        )
        try:
            recorder.record(record)
        except JournalError:
            transaction.record_failed = True  # the recorder logs the reason, once
        else:
            transaction.record = record

    def _act(self, transaction: _Transaction, decision: rules.Decision) -> Answer:
        match decision.action:
            case Action.ACCEPT | Action.WARN:
                return Accept()
            case Action.REWRITE:
                return Rewrite(decision.edits)
            case Action.QUARANTINE | Action.SPLIT | Action.DELAY:
                return Hold(reply.quarantine_reason(decision, transaction.reference))
            case Action.REJECT:
                return self._refuse(reply.refusal(transaction.snapshot.policy, decision, transaction.reference))

    def _log_too_large(self, transaction: _Transaction, outcome: str) -> None:
        """Write the log line of a transaction that was not decided on."""
        self._runtime.log.warning(
            "header_too_large",
            queue_id=transaction.queue_id,
            sender=transaction.sender,
            client=transaction.client.address,
            login=transaction.client.login,
            recipients=len(transaction.recipients),
            characters=transaction.header_size,
            outcome=outcome,
        )

    def _log_line(self, transaction: _Transaction, outcome: str) -> None:
        """Write the one log line of a transaction."""
        assert transaction.decision is not None
        line: dict[str, Any] = {
            "queue_id": transaction.queue_id,
            "sender": transaction.sender,
            "client": transaction.client.address,
            "outcome": outcome,
            **transaction.decision.as_log(),
            "recipients": len(transaction.recipients),
            "microseconds": transaction.nanoseconds // 1000,
        }
        if transaction.client.login:
            line["login"] = transaction.client.login
        if transaction.reference:
            line["reference"] = transaction.reference
        if transaction.record_failed:
            line["journal"] = "failed"
        if transaction.snapshot.policy.mode is Mode.MONITOR:
            line["mode"] = "monitor"
        self._runtime.log.info("message", **line)


_OUTCOMES: Final = {
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
