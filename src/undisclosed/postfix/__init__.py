"""main.cf and master.cf: what they must say for the milter to see every outgoing message; attach, detach, status.

The only room that reads or writes Postfix's configuration. May import policy.
"""

from undisclosed.postfix.attaching import ParameterChange, Plan, attach, detach, status
from undisclosed.postfix.config_files import PostfixError
from undisclosed.postfix.model import Finding, Level

__all__ = ["Finding", "Level", "ParameterChange", "Plan", "PostfixError", "attach", "detach", "status"]
