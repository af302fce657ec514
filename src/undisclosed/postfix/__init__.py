"""What main.cf and master.cf must say for the milter to see every outgoing message: attach, detach, status."""

from undisclosed.postfix.attachment import Change, Plan, attach, detach, status
from undisclosed.postfix.postconf import PostfixError
from undisclosed.postfix.settings import Finding, Level

__all__ = ["Change", "Finding", "Level", "Plan", "PostfixError", "attach", "detach", "status"]
