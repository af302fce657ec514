"""The decision on one message: by its envelope and header, and by its body if its recipients are to be hidden.

Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from undisclosed.decision import rewrite
from undisclosed.decision.body_scan import BodySearch
from undisclosed.decision.edits import Edit
from undisclosed.decision.exposure import NOTHING_SHOWN, Exposure, expose, is_rerouted
from undisclosed.decision.message import Client, Message, bounce_is_lost
from undisclosed.decision.obstacles import Obstacle
from undisclosed.policy import Action, Policy, Rule, Standing

BOUNCE_IS_LOST: Final = "a bounce would reach nobody"
"""The reason to hold a message that a rule refuses."""


class Scope(StrEnum):
    """Whether a message is outgoing mail of the organisation."""

    OUTGOING = "outgoing"
    INTERNAL_ONLY = "internal_only"
    NOT_OUTGOING = "not_outgoing"


@dataclass(frozen=True, slots=True)
class Decision:
    """The action for a message, and the reasons for it."""

    scope: Scope
    action: Action
    rule: str | None = None
    """The name of the rule that decided."""
    exposure: Exposure = NOTHING_SHOWN
    reason: str = ""
    obstacle: Obstacle | None = None
    """The reason why the recipients cannot be hidden although a rule says so."""
    edits: tuple[Edit, ...] = ()
    """The header edits of a rewrite, in the order in which they are applied."""
    body: BodySearch | None = None
    """The search of the body that decides: see `after_body`. None if nothing in it does."""

    @property
    def acts(self) -> bool:
        """Whether a rule does more with the message than to accept it: then it is an incident."""
        return self.rule is not None and self.action is not Action.ACCEPT

    def as_log(self) -> dict[str, Any]:
        """The decision as a log line has it: counts and reasons, and no address."""
        exposure = self.exposure
        line: dict[str, Any] = {
            "action": self.action.value,
            "scope": self.scope.value,
            "count": len(exposure.external),
            "organisations": exposure.organisations,
            "partner": len(exposure.partner),
            "internal": len(exposure.internal),
            "rule": self.rule,
            "reason": self.reason,
        }
        if exposure.per_field:
            line["fields"] = dict(exposure.per_field)
        if self.obstacle:
            line["obstacle"] = self.obstacle.text
        return line


def judge(policy: Policy, message: Message, body: Iterable[bytes]) -> Decision:
    """Decide on a message whose body is at hand, in pieces: no more of it is read than matters."""
    decision = decide(policy, message)
    if decision.body is None:
        return decision
    return after_body(policy, message, decision, decision.body.obstacle(body))


def decide(policy: Policy, message: Message) -> Decision:
    """Decide on a message at the end of its header. Every message gets a decision; nothing is raised."""
    return _held_if_bounce_is_lost(message, _by_rules(policy, message))


def _by_rules(policy: Policy, message: Message) -> Decision:
    scope = _scope(policy, message)
    if scope is Scope.NOT_OUTGOING:
        return Decision(scope, Action.ACCEPT, reason="not outgoing mail of this organisation")
    if scope is Scope.INTERNAL_ONLY:
        return Decision(scope, Action.ACCEPT, reason="every recipient of this transaction is internal")
    exposure = expose(policy, message.fields, message.addresses)
    for rule in policy.rules:
        if _matches(rule, message, exposure):
            decision = Decision(scope, rule.action, rule.name, exposure, _because(rule, exposure))
            return _hiding(policy, message, decision) if rule.action.effect.hides else decision
    return Decision(scope, Action.ACCEPT, exposure=exposure, reason="no rule matches")


def after_body(policy: Policy, message: Message, decision: Decision, obstacle: Obstacle | None) -> Decision:
    """The decision on a message whose recipients are to be hidden, once its body has been searched for an obstacle."""
    return decision if obstacle is None else _held_if_bounce_is_lost(message, _unsafe(policy, decision, obstacle))


def _held_if_bounce_is_lost(message: Message, decision: Decision) -> Decision:
    """The decision, but quarantine in place of a refusal that nobody would learn of: the message would be lost."""
    if decision.action is not Action.REJECT or not bounce_is_lost(message.sender, message.client):
        return decision
    return replace(decision, action=Action.QUARANTINE, reason=f"{decision.reason}; {BOUNCE_IS_LOST}")


def _hiding(policy: Policy, message: Message, decision: Decision) -> Decision:
    """The decision if the recipients can be hidden, else `rewrite.when_unsafe`.

    The steward could not carry out the rest: a message that must not be rewritten would be held for ever.
    """
    effect = decision.action.effect
    try:
        plan = rewrite.plan(policy, message, rule=decision.rule or "", split=effect.release_mode == "split")
    except rewrite.Unsafe as unsafe:
        return _unsafe(policy, decision, unsafe.obstacle)
    return replace(decision, edits=plan.edits if effect.delivers else (), body=plan.body)


def _unsafe(policy: Policy, decision: Decision, obstacle: Obstacle) -> Decision:
    action = Action(policy.rewrite.when_unsafe)
    return replace(decision, action=action, obstacle=obstacle, edits=(), body=None)


def _scope(policy: Policy, message: Message) -> Scope:
    if not _is_outgoing(policy, message):
        return Scope.NOT_OUTGOING
    if message.recipients and all(_stays_inside(policy, recipient) for recipient in message.recipients):
        return Scope.INTERNAL_ONLY
    return Scope.OUTGOING


def may_be_outgoing(policy: Policy, client: Client) -> bool:
    """Whether mail from this client can be outgoing: its header is read only then."""
    return bool(client.login and policy.scope.authenticated) or policy.scope.holds(client.address)


def _is_outgoing(policy: Policy, message: Message) -> bool:
    if message.client.login and policy.scope.authenticated:
        return True
    if not may_be_outgoing(policy, message.client):
        return False
    if not message.sender or policy.is_internal(message.sender):
        return True
    return any(
        policy.standing(author.domain) is Standing.INTERNAL
        for value in message.values("from")
        for author in message.addresses(value)
    )


def _stays_inside(policy: Policy, recipient: str) -> bool:
    """Whether an envelope recipient is certainly internal.

    Postfix also honours a source route `@inside:user@outside`: mail to such a recipient may leave.
    """
    local = recipient.rpartition("@")[0] if "@" in recipient else recipient
    return policy.is_internal(recipient) and not is_rerouted(local) and "@" not in local


def _matches(rule: Rule, message: Message, exposure: Exposure) -> bool:
    if rule.more_than_addresses is not None and exposure.count <= rule.more_than_addresses:
        return False
    if rule.more_than_organisations is not None and exposure.organisations <= rule.more_than_organisations:
        return False
    return rule.concerns(message.sender)


def _because(rule: Rule, exposure: Exposure) -> str:
    limits = [
        f"{count} {noun}, the limit is {limit}"
        for count, noun, limit in (
            (exposure.count, "external addresses", rule.more_than_addresses),
            (exposure.organisations, "organisations", rule.more_than_organisations),
        )
        if limit is not None
    ]
    return "; ".join(limits) or "the rule names the sender"
