"""Why nobody may be answered about a message: it is automatic or from a list (RFC 3834, section 2; RFC 2919)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from undisclosed.decision.message import Message


class Automatic(StrEnum):
    """The sign by which a message is automatic. Precedence is none: bulk mailers that people use set it."""

    NULL_SENDER = "null sender"
    AUTO_SUBMITTED = "Auto-Submitted"
    LIST = "List-Id"
    PROGRAM = "sender address of a program"
    VERP = "sender address with a recipient in it"


_PROGRAM: Final = re.compile(r"mailer-daemon|owner-.+|.+-(?:request|bounces?)(?:\+.*)?")
"""Local parts of programs (RFC 2142, section 6; RFC 5230, section 4.6; Mailman)."""

_VERP: Final = re.compile(r"(?!prvs=).+[+-].+=[^=]+\.[^=.]+")
"""A local part with a recipient in it, such as `news+parent=family.example`. `prvs=…=clerk` (BATV) is a person."""


def automatic(message: Message) -> Automatic | None:
    """The first sign by which a message is automatic or from a list; None if a person sent it."""
    local = message.sender.rpartition("@")[0].casefold()
    signs = {
        Automatic.NULL_SENDER: not message.sender,
        Automatic.AUTO_SUBMITTED: any(map(_is_automatic, message.values("auto-submitted"))),
        Automatic.LIST: bool(message.values("list-id")),
        Automatic.PROGRAM: bool(_PROGRAM.fullmatch(local)),
        Automatic.VERP: bool(_VERP.fullmatch(local)),
    }
    return next((sign for sign, is_there in signs.items() if is_there), None)


def _is_automatic(submitted: str) -> bool:
    """Whether a value of Auto-Submitted is another than `no` (RFC 3834, section 5)."""
    return re.match(r"\s*no\s*(?:[;(]|$)", submitted, re.IGNORECASE) is None
