"""The replies that a policy can give, whole, for `check-config`: staff read them, so administrators should first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.decision.reply import Reply, fault, header_too_large, missing_of_help, refusal_of
from undisclosed.policy import Action, Policy

COUNT: Final = 95
REFERENCE: Final = "K7QF-3M2D"
QUEUE_ID: Final = "4dX1c23kLmz9Q"
"""Examples of what depends on the message."""

_OBSTACLES: Final = {
    ObstacleKind.INVITATION: "an invitation",
    ObstacleKind.OUTLOOK: "in Outlook's Rich Text format",
    ObstacleKind.SIGNED: "signed or encrypted",
    ObstacleKind.REPEATED: "with the addresses also in its text",
    ObstacleKind.OTHER: "unsafe to rewrite for another reason",
}


def replies(policy: Policy, width: int | None = None) -> str:
    """Every different reply as on the wire, each below the case that it is for.

    `width`: the columns of the terminal; without it each line is one line.
    """
    lines = ["Replies, as staff will read them"]
    for case, reply in _cases(policy):
        lines += [f"  {case}:", *(f"    {line}" for line in reply)]
    if missing := missing_of_help(policy):
        lines.append(
            f"  organisation.help is cut: staff will not read its end, {missing!r}."
            " Write a shorter one, with the telephone number or link first."
        )
    lines.append(f"  {COUNT} addresses, the reference and the queue id are examples.")
    return "\n".join(lines if width is None else (_wrapped(line, width) for line in lines))


def _wrapped(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _cases(policy: Policy) -> Iterator[tuple[str, list[str]]]:
    refusals: dict[Reply, list[str]] = {}
    if policy.uses(Action.REJECT):
        refusals[refusal_of(policy, None, COUNT, REFERENCE)] = ["a rule"]
    if policy.rewrite.when_unsafe is Action.REJECT and policy.hides:
        for kind, words in _OBSTACLES.items():
            refusals.setdefault(refusal_of(policy, kind, COUNT, REFERENCE), []).append(f"`when_unsafe` ({words})")
    for reply, cases in refusals.items():
        yield f"Refused by {' or '.join(cases)}", reply.on_the_wire()
    by_sendmail: dict[str, None] = dict.fromkeys(reply.on_the_wire(in_one_line=True)[0] for reply in refusals)
    if by_sendmail:
        yield "The same for mail by sendmail(1), whose bounce repeats it for each recipient", list(by_sendmail)
    yield "Refused because its header is larger than 1 MiB", header_too_large(policy, QUEUE_ID).on_the_wire()
    yield "Refused for now after a failure of the milter", fault(policy, QUEUE_ID).on_the_wire()
