"""Notices to senders: what happened to their message, and what they can do now."""

from undisclosed.notices.courier import Courier, Fate, Outcome
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.loading import load
from undisclosed.notices.rendering import render
from undisclosed.notices.sending import send
from undisclosed.notices.suppression import FIRST_KIND, suppressed
from undisclosed.notices.words import Words

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
