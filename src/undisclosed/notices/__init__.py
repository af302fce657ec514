"""Notices to senders: what happened to their message, and what they can do now."""

from undisclosed.notices.errors import NoticeError
from undisclosed.notices.loading import load
from undisclosed.notices.rendering import render
from undisclosed.notices.suppression import FIRST_KIND, suppressed
from undisclosed.notices.words import Words

__all__ = ["FIRST_KIND", "NoticeError", "Words", "load", "render", "suppressed"]
