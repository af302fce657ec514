"""Notices (RFC 3834): eligibility, templates, composition, and sending by sendmail(1).

No SMTP of its own: sendmail(1) alone sends. May import journal, incidents, policy, addresses, config and service.
"""

from undisclosed.notices.dispatch import Dispatched, Dispatcher, DispatchStatus
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.sendmail import send
from undisclosed.notices.template_files import load
from undisclosed.notices.templates import Templates

__all__ = [
    "DispatchStatus",
    "Dispatched",
    "Dispatcher",
    "NoticeError",
    "Templates",
    "load",
    "send",
]
