"""Decisions about held mail: what they will do is said, and asked for where they harm; then they are requested.

A release or a deletion is requested in the journal. The steward of the host that holds the copy carries it out, and the
command waits for its answer.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TextIO

from undisclosed.cli.common import fail
from undisclosed.cli.output import Column, Output, Table, printable, progress
from undisclosed.cli.times import age, at_time, local_time

if TYPE_CHECKING:
    from undisclosed.incidents.records import Incident, ReleaseMode, Request, Verb
    from undisclosed.journal.journal import Journal

ANSWER_TIMEOUT: Final = 60.0
"""Seconds without any answer after which the command stops waiting: the steward is probably away."""

POLL_INTERVAL: Final = 0.2

UNSEEN_AFTER: Final = timedelta(seconds=60)
"""A steward that was not seen for this time does not run: a running one is recorded about every 20 seconds."""

FORGOTTEN_AFTER: Final = timedelta(days=7)
"""A gateway that holds nothing and whose steward was not seen for this time is no longer in use."""

Decision = Literal["release", "delete", "keep", "withdraw"]
Result = Literal["done", "refused", "failed", "waiting", "dry run"]
"""waiting: the steward has not answered yet."""

_RESULTS: Final[dict[str, Result]] = {"done": "done", "refused": "refused", "withdrawn": "refused"}
"""The results of requests by their states."""


@dataclass(frozen=True, slots=True)
class Order:
    """A decision as it was typed."""

    verb: Decision
    mode: ReleaseMode | None
    reason: str
    actor: str
    yes: bool = False
    """Whether it is carried out without a question."""
    dry_run: bool = False
    wait: bool = True

    @property
    def words(self) -> _Words:
        """The decision in words."""
        return _WORDS[self.verb, self.mode]


class _Words(NamedTuple):
    """A decision in words."""

    question: str
    """With {} for the messages: `Delete {}?`."""
    harms: bool
    """Whether it is asked for even one message."""
    effect: str
    """The effect, after "will be"; the numbers of recipients and of visible addresses, and `it`, are filled in."""
    done: str = ""
    """After "was": `deleted`."""


_WORDS: Final[dict[tuple[Decision, ReleaseMode | None], _Words]] = {
    ("release", "bcc"): _Words(
        "Release {}?", False, "sent to {recipients}, with the external addresses hidden", "released as bcc"
    ),
    ("release", "split"): _Words(
        "Release {}?", False, "sent to {recipients}, a separate message to each external one", "released as split"
    ),
    ("release", "unchanged"): _Words(
        "Release {} unchanged?", True, "sent unchanged to {recipients}, who can all read {visible} in {it}",
        "released as unchanged",
    ),
    ("delete", None): _Words(
        "Delete {}?", True, "deleted: {recipients} will not get {it}, and nothing brings {it} back", "deleted"
    ),
    ("keep", None): _Words("Keep {}?", False, "kept on hold until someone decides"),
    ("withdraw", None): _Words(
        "Take back what was asked for {}?", False, "kept on hold: what was asked for is taken back"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """The result for one message. The fields but `text` are the keys of the JSON."""

    reference: str
    verb: Decision
    release_mode: ReleaseMode | None
    answer: Result
    why: str
    text: str
    """The result as a sentence."""


def decide(journal: Journal, selected: Sequence[Incident], order: Order, output: Output) -> bool:
    """Ask where a question is due, carry the decision out for what is held, and write the result for each message.

    Returns whether all of it was done. Exits with status 2 where a question is due and nobody is there to answer it,
    and with 1 where the answer is no. Raises JournalError.
    """
    open_parts = [incident.narrowed_to({copy.id for copy in incident.copies if copy.is_open}) for incident in selected]
    held = [incident for incident in open_parts if incident.copies]
    closed = [incident for incident in selected if not any(copy.is_open for copy in incident.copies)]
    answers = (_closed(journal, incident, order) for incident in closed)
    if order.dry_run:
        if held and not output.json:
            _write_plan(held, order, output.out, output)
        planned = (_answer(incident, order, "dry run", "") for incident in held if output.json)
        return _write(chain(answers, planned), output, 0)
    if held:
        _confirm(held, order, output)
        if order.verb in ("release", "delete"):
            write_unseen_stewards(journal, held, output)
    carried_out = {"keep": _kept, "withdraw": _withdrawn}.get(order.verb, _requested)(journal, held, order)
    return _write(chain(answers, carried_out), output, len(selected) if order.wait else 0)


def _write(answers: Iterable[Answer], output: Output, count: int) -> bool:
    all_done = True
    with progress(count, output.err) as advance:
        for answer in answers:
            all_done = all_done and answer.answer in ("done", "dry run")
            content = {name: value for name, value in dataclasses.asdict(answer).items() if name != "text"}
            output.line(json.dumps(content) if output.json else printable(answer.text))
            advance()
    return all_done


# -- the question ------------------------------------------------------------------------------------------------------


def _confirm(held: Sequence[Incident], order: Order, output: Output) -> None:
    if order.yes or not (order.words.harms or len(held) > 1):
        return
    if not output.may_ask:
        fail(
            f"{_effect(held, order)}\n  nobody can be asked here: add --yes to do it, or --dry-run to see the messages"
        )
    _write_plan(held, order, output.err, output)
    what = held[0].reference if len(held) == 1 else f"{len(held)} messages"
    if output.ask(f"{order.words.question.format(what)} [y/N] ") not in ("y", "yes"):
        fail("nothing was done", 1)


def _effect(held: Sequence[Incident], order: Order) -> str:
    """The effect of a decision in a sentence."""
    visible = max(incident.count for incident in held)
    effect = order.words.effect.format(
        recipients=_number(sum(map(_recipients, held)), "recipient"),
        visible=f"{'' if len(held) == 1 else 'up to '}{_number(visible, 'external address', 'external addresses')}",
        it="it" if len(held) == 1 else "them",
    )
    return f"{_number(len(held), 'message')} will be {effect}"


def _write_plan(held: Sequence[Incident], order: Order, stream: TextIO, output: Output) -> None:
    columns = (
        Column("reference"),
        Column("arrived"),
        Column("visible", right=True),
        Column("rcpts", right=True),
        Column("sender"),
        Column("subject", "cut"),
    )
    rows = [
        (
            incident.reference,
            local_time(incident.at),
            str(incident.count),
            str(_recipients(incident)),
            incident.sender or "<>",
            incident.subject or "",
        )
        for incident in held
    ]
    plan = Output(stream, output.err)
    plan.text(f"{_effect(held, order)}:")
    plan.table(Table(columns, rows, head=4))


def _recipients(incident: Incident) -> int:
    """The number of envelope recipients; those of a repeat are those of the copy that it repeats."""
    ids = {copy.id for copy in incident.copies}
    return sum(copy.recipients for copy in incident.copies if copy.repeat_of not in ids)


def _number(count: int, noun: str, plural: str = "") -> str:
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


# -- stewards that are away --------------------------------------------------------------------------------------------


def write_unseen_stewards(
    journal: Journal, held: Sequence[Incident], output: Output, *, everywhere: bool = False
) -> None:
    """Say of each gateway that holds this mail whether its steward is away; `everywhere`: of the other gateways too."""
    now = datetime.now(UTC)
    known = journal.gateways.all()
    holding = {copy.gateway for incident in held for copy in incident.copies if copy.is_open}
    in_use = {each.id for each in known.values() if each.seen_at is None or now - each.seen_at < FORGOTTEN_AFTER}
    for gateway in sorted(holding | in_use if everywhere else holding):
        record = known.get(gateway)
        if record is not None and (record.seen_at is None or now - record.seen_at > UNSEEN_AFTER):
            since = f"not been seen for {age(now - record.seen_at)}" if record.seen_at else "never been seen"
            output.error(f"undisclosed: the steward on {printable(record.name or record.id)} has {since}")


# -- the results -------------------------------------------------------------------------------------------------------


def _closed(journal: Journal, incident: Incident, order: Order) -> Answer:
    """The result for a message of which nothing is held any more: what became of it, when, and who did it."""
    state, events = incident.state.value, reversed(journal.incidents.events(incident.id))
    text = f"{incident.reference} {_ENDED.get(state, 'is not held')}"
    if ended := next((event for event in events if event.what == state), None):
        by_person = state in ("released", "deleted")
        how = ended.why.partition(":")[0] if state == "released" and ended.why.startswith("as ") else ""
        words = [text, how, at_time(ended.at, datetime.now(UTC)), f"by {ended.actor}" if by_person else ""]
        text = " ".join(filter(None, words))
    return Answer(incident.reference, order.verb, order.mode, "refused", f"it is not held: {state}", text)


_ENDED: Final = {
    "released": "was released",
    "deleted": "was deleted",
    "expired": "expired",
    "released by hand": "was released by hand",
    "deleted by hand": "was deleted by hand",
    "gone": "left the hold queue, nobody knows how,",
    "rejected": "was refused, and never held",
    "handed to Postfix": "was handed to Postfix, and never held",
    "monitored": "was delivered unchanged in monitor mode, and never held",
    "never queued": "never came into Postfix's queue",
}
"""The end of a message by its state."""


def _requested(journal: Journal, held: Sequence[Incident], order: Order) -> Iterator[Answer]:
    """Request a release or a deletion of all copies at once; then the answers as they come."""
    copies = {copy.id for incident in held for copy in incident.copies}
    verb: Verb = "delete" if order.verb == "delete" else "release"
    requests = journal.held.ask(copies, verb=verb, mode=order.mode, actor=order.actor, reason=order.reason)
    pending = []
    for shown in held:
        asked = {request.copy_id: request.id for request in requests if request.incident_id == shown.id}
        incident = shown.narrowed_to(asked)
        if not asked:
            yield _not_asked(journal, shown, order)
        elif order.wait:
            pending.append(_Pending(incident, set(asked.values())))
        else:
            text = f"{incident.reference}: the steward has been asked"
            yield Answer(incident.reference, order.verb, order.mode, "done", "the steward has been asked", text)
    yield from _answers(journal, order, pending)


def _not_asked(journal: Journal, shown: Incident, order: Order) -> Answer:
    """The result for a message about which nothing could be requested: it was dealt with since it was shown."""
    now = journal.incidents.get(shown.id)
    if not any(copy.is_open for copy in now.copies):
        return _closed(journal, now, order)
    why = "another request for it has no answer yet; `undisclosed held withdraw` takes one back"
    return _answer(shown, order, "refused", why)


@dataclass(slots=True)
class _Pending:
    """The requests about one message that have no answer yet, and the answers so far."""

    incident: Incident
    left: set[int]
    answers: list[Request] = field(default_factory=list)


def _answers(journal: Journal, order: Order, pending: list[_Pending]) -> Iterator[Answer]:
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while pending and time.monotonic() < deadline:
        wanted = {request_id for one in pending for request_id in one.left}
        answered = {request.id: request for request in journal.held.answered(wanted)}
        for one in list(pending):
            one.answers += [answered[request_id] for request_id in sorted(one.left & answered.keys())]
            one.left -= answered.keys()
            if not one.left:
                pending.remove(one)
                yield _result(one, order)
        if answered:
            deadline = time.monotonic() + ANSWER_TIMEOUT
        elif pending:
            time.sleep(POLL_INTERVAL)
    for one in pending:
        why = "no answer yet; the request stands, and the steward carries it out once it runs"
        yield _answer(one.incident, order, "waiting", why)


def _result(one: _Pending, order: Order) -> Answer:
    """One result of the answers for all copies: the first one that says no, else what is said of any of them."""
    chosen = next((request for request in one.answers if request.state != "done"), one.answers[-1])
    result = _RESULTS.get(chosen.state, "failed")
    texts = {request.answer or "" for request in one.answers} if result == "done" else {chosen.answer or ""}
    shorter = {text for text in texts for other in texts if text != other and other.startswith(text)}
    why = "the request was taken back" if chosen.state == "withdrawn" else "; ".join(sorted(texts - shorter))
    return _answer(one.incident, order, result, why)


def _answer(incident: Incident, order: Order, answer: Result, why: str) -> Answer:
    was = "was" if answer == "done" else "is not yet" if answer == "waiting" else "was not"
    text = f"{incident.reference} {was} {order.words.done}"
    if answer == "done" and order.verb == "release":
        text += f" to {_number(_recipients(incident), 'recipient')}"
    shown = why.removeprefix(f"as {order.mode}").removeprefix(": ")
    return Answer(incident.reference, order.verb, order.mode, answer, why, f"{text}: {shown}" if shown else text)


def _kept(journal: Journal, held: Sequence[Incident], order: Order) -> Iterator[Answer]:
    """Let the copies that the steward would release by itself wait for a person."""
    why = f"kept by {order.actor}" + (f": {order.reason}" if order.reason else "")
    for incident in held:
        alone = [copy for copy in incident.copies if copy.waits is None and copy.action.effect.release_mode is not None]
        kept = [
            copy for copy in alone if journal.held.wait_for_person(copy, why, actor=order.actor, now=datetime.now(UTC))
        ]
        if len(kept) == len(alone):
            text = "stays on hold until someone decides" if alone else "waits for a person already"
            yield Answer(incident.reference, "keep", None, "done", "", f"{incident.reference} {text}")
        else:
            text = f"{incident.reference} is being released already"
            yield Answer(incident.reference, "keep", None, "refused", "its release has begun", text)


def _withdrawn(journal: Journal, held: Sequence[Incident], order: Order) -> Iterator[Answer]:
    """Take back the requests of persons that no steward has begun. Nothing of it is then released without a person."""
    why, now = f"a request was taken back by {order.actor}", datetime.now(UTC)
    for incident in held:
        requests = journal.held.withdraw([copy.id for copy in incident.copies], actor=order.actor, reason=order.reason)
        if requests:
            alone = [
                copy for copy in incident.copies if copy.waits is None and copy.action.effect.release_mode is not None
            ]
            kept = [copy for copy in alone if journal.held.wait_for_person(copy, why, actor=order.actor, now=now)]
            asked = " and ".join(sorted({request.verb for request in requests}))
            text = f"{incident.reference}: the request to {asked} it is taken back"
            if len(kept) == len(alone):
                yield Answer(incident.reference, "withdraw", None, "done", "", f"{text}, and it stays on hold")
            else:
                begun = "the release that its rule asks for has begun"
                yield Answer(incident.reference, "withdraw", None, "refused", begun, f"{text}, but {begun}")
        else:
            nothing = "nobody has asked for anything, or the steward has begun it"
            yield Answer(incident.reference, "withdraw", None, "refused", nothing, f"{incident.reference}: {nothing}")
