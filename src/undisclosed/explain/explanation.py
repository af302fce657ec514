"""The decision on a saved message, with its reasons, reply and edits."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from undisclosed.decision import reply, rewrite, rules
from undisclosed.decision.edits import Edit, apply
from undisclosed.decision.message import Field, key_of
from undisclosed.decision.reference import identity, reference
from undisclosed.explain.message_file import SavedMessage
from undisclosed.policy import Action, Mode, Policy


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision on one message. Its fields are the keys of `undisclosed explain --json`, in this order."""

    file: str
    action: str
    """The action of the policy. In monitor mode it is only recorded, and the message is delivered unchanged."""
    mode: str
    would_be_stopped: bool
    """Whether the action stops the message (reject, quarantine), in monitor mode too."""
    scope: str
    rule: str | None
    reason: str
    obstacle: str | None
    """The reason why the recipients cannot be hidden although the rule says so; of a quarantine, why a release cannot
    hide them."""
    reference: str | None
    """The reference of the incident, as in log and reply. None if it cannot be computed: no key, or no Message-ID."""
    count: int
    """Distinct external addresses that every recipient would see."""
    organisations: int
    per_field: Mapping[str, int]
    """Distinct external addresses by header field."""
    partner: int
    internal: int
    visible_external: Sequence[str]
    """The external addresses, as written in the message."""
    sender: str
    recipients: int
    reply: str | None
    """The SMTP reply, as on the wire; None if the client gets a positive one."""
    before: Sequence[str]
    """The header fields that a rewrite changes, each as `Name: value`."""
    after: Sequence[str]
    """The same fields after the rewrite."""
    remarks: Sequence[str]


def explain(policy: Policy, key: bytes | None, saved: SavedMessage) -> Explanation:
    """Decide on a saved message as the milter would. `key` is the key of references; None if it cannot be read."""
    message = saved.message
    decision = rules.judge(policy, message, saved.body)
    obstacle, exposure = decision.obstacle, decision.exposure
    if obstacle is None and decision.action is Action.QUARANTINE:
        obstacle = rewrite.obstacle(policy, message, saved.body, rule=decision.rule or "")
    before, after = _rewritten(message.fields, decision.edits)
    name = None
    if key is not None and decision.acts and message.message_id:
        name = reference(identity(key, message, exposure))
    return Explanation(
        file=saved.file,
        action=decision.action.value,
        mode=policy.mode.value,
        would_be_stopped=decision.action.effect.stops,
        scope=decision.scope.value,
        rule=decision.rule,
        reason=decision.reason,
        obstacle=obstacle.text if obstacle else None,
        reference=name,
        count=exposure.count,
        organisations=exposure.organisations,
        per_field=dict(exposure.per_field),
        partner=len(exposure.partner),
        internal=len(exposure.internal),
        visible_external=[address.text for address in exposure.external],
        sender=message.sender,
        recipients=len(message.recipients),
        reply=_refusal(policy, decision, name, message.client.port) if decision.action is Action.REJECT else None,
        before=before,
        after=after,
        remarks=[*saved.remarks, *_remarks(policy, decision, name, key)],
    )


def as_json(explained: Explanation) -> str:
    """One line of JSON, in ASCII. Raw bytes that are no UTF-8 become U+FFFD."""
    return json.dumps({key: _clean(value) for key, value in dataclasses.asdict(explained).items()})


def _clean(value: object) -> object:
    match value:
        case str():
            # A lone surrogate is no Unicode text: json.dumps would write an escape that strict readers refuse.
            return re.sub("[\ud800-\udfff]", "\ufffd", value)
        case list() | tuple():
            return [_clean(item) for item in value]
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
        case _:
            return value


def _refusal(policy: Policy, decision: rules.Decision, name: str | None, port: int | None) -> str:
    by_sendmail = port == 0  # mail through sendmail(1)
    return "\n".join(reply.refusal(policy, decision, name).on_the_wire(in_one_line=by_sendmail))


def _rewritten(fields: Sequence[Field], edits: Sequence[Edit]) -> tuple[list[str], list[str]]:
    """The edited fields, before and after."""
    names = {key_of(edit.name) for edit in edits}
    before, after = (
        [f"{field.name}: {field.value}" for field in header if key_of(field.name) in names]
        for header in (fields, apply(fields, edits))
    )
    return before, after


def _remarks(policy: Policy, decision: rules.Decision, name: str | None, key: bytes | None) -> list[str]:
    acts = decision.acts
    return [
        text
        for holds, text in (
            (
                policy.mode is Mode.MONITOR and acts,
                'mode is "monitor": it is delivered unchanged, and this is only logged',
            ),
            (acts and key is None, "no reference: the key (journal.key_file) cannot be read"),
            (
                acts and key is not None and name is None,
                "no reference: it depends on a Message-ID, and there is none yet",
            ),
        )
        if holds
    ]
