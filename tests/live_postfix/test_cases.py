"""The cases, played by a real Postfix: whole messages are compared, as the outside or the hold queue has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import pytest

from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.bounces import failures
from live_postfix.stage import Stage, attached
from support import casefile
from support.casefile import Case, Seen
from support.delivered_header import leaks


@pytest.fixture(scope="module")
def stage(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Stage]:
    """The gateway for all cases. Its Postfix changes no header itself.

    It does not complete the headers of clients on its own host (XCLIENT comes too late to be none), and lets Bcc
    through to the milter: not every Postfix takes it out.
    """
    with attached(installed_postfix, outside, message_drop_headers="", local_header_rewrite_clients="") as stage:
        yield stage


def play(stage: Stage, case: Case) -> tuple[Seen, bytes | None]:
    """The outcome, and the message as it was delivered or is held (None if neither)."""
    gateway = stage.gateway
    stage.under(
        case.setting,
        lambda path: case.configure(
            path,
            milter={"socket": f"unix:{stage.postfix.queue_dir}/undisclosed/milter.sock"},
            postfix={"config_dir": str(stage.postfix.config_dir)},  # each has an identity file of its own
            journal=gateway.journal,
        ),
    )
    before = len(gateway.milter.log(event="message"))
    reply = by_sendmail(stage, case) if case.port == 0 else by_smtp(stage, case)
    gateway.settle()
    [line] = gateway.milter.log(event="message")[before:]
    message = None
    if reply:
        outcome = "rejected"
        assert (stage.held(), stage.sink.deliveries[1:]) == ([], ())
    elif held := stage.held():
        outcome = "held"
        assert stage.sink.deliveries == ()
        [message] = map(stage.queued, held)
    else:
        [delivery] = stage.sink.deliveries
        assert sorted(delivery.recipients) == sorted(case.recipients)
        message = delivery.data
        outcome = "accepted" if same_header(case, message) else "rewritten"
    return casefile.seen(case, line, outcome=outcome, stage="", reply=reply, message=message), message


def by_smtp(stage: Stage, case: Case) -> list[str]:
    """The refusal that the client gets; nothing where it gets none."""
    outcome = stage.gateway.send(
        case.message,
        sender=case.sender,
        to=case.recipients,
        options=case.options,
        address=case.client if case.client != "127.0.0.1" else None,
        login=case.login or None,
    )
    if outcome.accepted:
        return []
    *others, last = outcome.final.lines
    return [*(f"{outcome.final.code}-{line}" for line in others), f"{outcome.final.code} {last}"]


def by_sendmail(stage: Stage, case: Case) -> list[str]:
    """The refusal that the sender reads in a bounce, as an SMTP reply; nothing where no bounce comes."""
    stage.postfix.sendmail(["-i", "-f", case.sender, *case.recipients], case.message)
    stage.gateway.settle()
    bounces = [failures(delivery) for delivery in stage.sink.deliveries if not delivery.sender]
    return [f"550 {failed.status} {failed.reason}" for failed in chain.from_iterable(bounces)]


def same_header(case: Case, message: bytes) -> bool:
    """Whether a delivered message has the header that was sent, but for what Postfix adds to every one."""
    return casefile.header_lines(message, case.message) == casefile.header_lines(case.message, case.message)


@pytest.mark.parametrize("case", casefile.every_case(), ids=lambda case: case.name)
def test_case(case: Case, stage: Stage) -> None:
    """The outcome is the expected one; after a rewrite no outside address is visible."""
    actual, message = play(stage, case)
    # Postfix does not report the stage at which a milter answered.
    assert actual == replace(casefile.wanted(case), stage="")
    if actual.outcome == "rewritten":
        assert message is not None
        assert leaks(message, internal=casefile.internal(case), author=case.expected["author"]) == []
