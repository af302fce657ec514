"""main.cf and master.cf: what they must say for the milter to see every outgoing message; attach, detach, status.

The only room that reads or writes Postfix's configuration. May import policy.
"""

from undisclosed.postfix.attaching import Change, Plan, attach, detach, status
from undisclosed.postfix.model import Finding, Level
from undisclosed.postfix.postconf import PostfixError

__all__ = ["Change", "Finding", "Level", "Plan", "PostfixError", "attach", "detach", "status"]
