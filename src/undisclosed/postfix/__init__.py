"""Attaches the milter in main.cf and master.cf, detaches it, and checks whether outgoing mail can bypass it.

The only room that reads or writes Postfix's configuration. May import policy.
"""

from undisclosed.postfix.attaching import ParameterChange, Plan, attach, detach, other_holders, status
from undisclosed.postfix.config_files import PostfixError
from undisclosed.postfix.model import Finding, Level

__all__ = ["Finding", "Level", "ParameterChange", "Plan", "PostfixError", "attach", "detach", "other_holders", "status"]
