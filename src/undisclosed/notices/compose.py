"""Composes a notice as a message (RFC 3834): text and HTML, addressed to the sender only."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, tzinfo
from email.errors import HeaderParseError
from email.headerregistry import Address as HeaderAddress
from email.headerregistry import HeaderRegistry, MessageIDHeader, UniqueAddressHeader
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Final

from jinja2 import TemplateError

from undisclosed.addresses import domains, mailboxes
from undisclosed.incidents.records import Incident, NoticeKind
from undisclosed.notices.eligibility import NOT_AN_ADDRESS, domain_of
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.template_files import TEMPLATE_ERRORS
from undisclosed.notices.templates import LanguagePart, Templates
from undisclosed.notices.variables import plain, variables_of
from undisclosed.policy import Policy

WIDTH: Final = 72
"""Columns of the text part."""

BETWEEN_LANGUAGES: Final = "-" * WIDTH

MAX_SUBJECT: Final = 200
"""Characters of the notice's own subject, without the reference."""

_DOT_ATOM: Final = r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*"
_MESSAGE_ID: Final = re.compile(
    rf"<(?=[^@]{{1,120}}@){_DOT_ATOM}@(?=.{{1,120}}>)(?:{_DOT_ATOM}|\[[\w.:-]+\])>", re.ASCII
)
"""A Message-ID for In-Reply-To: short enough for one line, and in none of RFC 5322's obsolete forms (3.6.4), some of
which make the standard library's parser raise IndexError."""


class _ToHeader(UniqueAddressHeader):
    """To, on one line: an address has 254 characters at most, and a line may have 998 (RFC 5322, section 2.1.1).

    Where `email` folds an address with a quoted local part, it loses the quotes: another address remains.
    """

    def fold(self, *, policy: EmailPolicy) -> str:
        return f"To: {self}{policy.linesep}"


def _registry() -> HeaderRegistry:
    registry = HeaderRegistry()
    registry.map_to_type("to", _ToHeader)  # type: ignore[arg-type]  # typeshed: no header
    # By default a Message-ID that is too long for one line is folded as an encoded word.
    for name in ("in-reply-to", "references"):
        registry.map_to_type(name, MessageIDHeader)  # type: ignore[arg-type]  # typeshed: no header
    return registry


_ASCII: Final = EmailPolicy(header_factory=_registry(), cte_type="7bit", max_line_length=78)
_UTF8: Final = _ASCII.clone(utf8=True)
"""For a sender whose address needs SMTPUTF8 (RFC 6532)."""


def render(
    policy: Policy,
    incident: Incident,
    kind: NoticeKind,
    *,
    now: datetime,
    templates: Templates,
    release_modes: Collection[str] = (),
    zone: tzinfo | None = None,
) -> EmailMessage:
    """Compose the notice about an incident to its sender. Line ends are LF, as sendmail(1) expects.

    `release_modes`: the modes of all parts that Postfix accepted.
    Instants are written in `zone`; None is the host's local time. The same incident and kind give the same Message-ID,
    so that duplicates can be recognised. Raises NoticeError.
    """
    if domain_of(incident.sender) is None:
        raise NoticeError(NOT_AN_ADDRESS)
    try:
        variables = variables_of(policy, incident, kind, release_modes=release_modes)
        parts = templates.parts(kind, variables, zone)
        html = templates.html(parts, plain(incident.reference))
    except (*TEMPLATE_ERRORS, TemplateError) as error:
        raise NoticeError(f"a template failed: {error}") from error
    first = min(copy.arrived for copy in incident.copies)  # a later notice of the kind is about other copies
    name = f"{kind}.{re.sub('[^A-Za-z0-9-]', '', incident.reference).lower()}.{first:%Y%m%d%H%M%S}"
    subject = _subject(parts, plain(incident.reference))
    message = _header(policy, incident, name, subject=subject, date=now.astimezone(zone))
    _add_body(message, text(parts), html)
    message["Content-Language"] = ", ".join(part.language for part in parts)
    message.set_boundary(f"=_{name}")  # "=_" occurs in no quoted-printable line
    return message


def _header(policy: Policy, incident: Incident, name: str, *, subject: str, date: datetime) -> EmailMessage:
    """A message without a body. `name` is the left part of its Message-ID."""
    sender = _from(policy)
    ascii_only = sender.username.isascii() and incident.sender.rpartition("@")[0].isascii()
    message = EmailMessage(policy=_ASCII if ascii_only else _UTF8)
    message["From"] = sender
    try:
        message["To"] = _address("", incident.sender)
    except (ValueError, HeaderParseError) as error:
        raise NoticeError(f"{NOT_AN_ADDRESS}: {error}") from error
    message["Subject"] = subject
    message["Date"] = date
    message["Message-ID"] = f"<{name}@{sender.domain}>"
    if incident.message_id is not None and _MESSAGE_ID.fullmatch(incident.message_id):
        message["In-Reply-To"] = message["References"] = incident.message_id
    message["Auto-Submitted"] = "auto-replied"
    message["X-Auto-Response-Suppress"] = "All"
    return message


def _add_body(message: EmailMessage, plain_text: str, html: str) -> None:
    """Add the two alternatives."""
    message.set_content(plain_text, cte="quoted-printable")
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    for part in message.iter_parts():
        del part["MIME-Version"]  # a part has none (RFC 2045, section 4)


def _subject(parts: Sequence[LanguagePart], reference: str) -> str:
    """The subjects of all languages, and the reference, so that the sender can quote it with every template."""
    return f"{plain(' / '.join(part.subject for part in parts))[:MAX_SUBJECT]} ({reference})"


def text(parts: Sequence[LanguagePart]) -> str:
    """The parts as plain text."""
    return f"\n\n{BETWEEN_LANGUAGES}\n\n".join("\n\n".join(_paragraphs(part)) for part in parts) + "\n"


def _paragraphs(part: LanguagePart) -> Iterator[str]:
    wrapper = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    entries = textwrap.TextWrapper(
        WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    yield wrapper.fill(part.subject)
    for block in part.blocks:
        yield "\n".join(map((entries if block.is_list else wrapper).fill, block.lines))


def _from(policy: Policy) -> HeaderAddress:
    """The author: `notices.from`, else the postmaster, which every domain has (RFC 5321, section 4.5.1)."""
    if configured := mailboxes(policy.notices.from_):
        name, address = configured[0]
        return _address(plain(name), address.text)
    internal = policy.organisation.internal_domains
    domain = next((name for name in internal if not name.startswith(".")), internal[0].removeprefix("."))
    return HeaderAddress(plain(policy.organisation.name), "postmaster", domain)


def _address(name: str, address: str) -> HeaderAddress:
    """An address for the header, from its parts: the parser of `email` refuses letters that are not ASCII."""
    local, _, domain = address.rpartition("@")
    if local.startswith('"'):
        local = local[1:-1]
    return HeaderAddress(name, local, domains.to_ascii(domain))
