"""Notices (RFC 3834): who is told what happened to a message, in which words, and sending them by sendmail(1).

May import journal, incidents, decision, policy, addresses and config.
"""

from undisclosed.notices.compose import render
from undisclosed.notices.dispatch import Courier, Fate, Outcome
from undisclosed.notices.eligibility import FIRST_KIND, suppressed
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.sendmail import send
from undisclosed.notices.template_files import load
from undisclosed.notices.templates import Words

__all__ = [
    "FIRST_KIND",
    "Courier",
    "Fate",
    "NoticeError",
    "Outcome",
    "Words",
    "load",
    "render",
    "send",
    "suppressed",
]
