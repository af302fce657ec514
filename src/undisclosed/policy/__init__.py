"""Core: the configuration as frozen values: settings, rules, the table of actions, the policy in words.

No file is read here: `config` does that. May import addresses.
"""

from undisclosed.policy.actions import Action, Mode
from undisclosed.policy.policy import Policy, Standing
from undisclosed.policy.sections import Rule
from undisclosed.policy.types import Refused

__all__ = ["Action", "Mode", "Policy", "Refused", "Rule", "Standing"]
