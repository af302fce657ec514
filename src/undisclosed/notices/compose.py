"""A notice as a message: RFC 3834, in text and HTML, to the sender and nobody else."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, tzinfo
from email.errors import HeaderParseError
from email.headerregistry import Address as HeaderAddress
from email.headerregistry import HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Final

from jinja2 import TemplateError

from undisclosed.addresses import domains, mailboxes
from undisclosed.incidents.records import Incident, NoticeKind
from undisclosed.notices.eligibility import domain_of
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.template_files import MADE_BY_TEMPLATES, shipped
from undisclosed.notices.templates import Part, Words
from undisclosed.notices.variables import facts, plain
from undisclosed.policy import Policy

WIDTH: Final = 72
"""Columns of the text part."""

BETWEEN_LANGUAGES: Final = "-" * WIDTH

LONGEST_SUBJECT: Final = 200
"""Characters of the notice's own subject, whatever its templates make of it."""

_WORDS: Final = r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*"
_MESSAGE_ID: Final = re.compile(rf"<(?=[^@]{{1,120}}@){_WORDS}@(?=.{{1,120}}>)(?:{_WORDS}|\[[\w.:-]+\])>", re.ASCII)
"""A Message-ID that can be repeated: short enough for one line, and none of RFC 5322's obsolete forms (3.6.4), on some
of which the standard library's parser fails with an IndexError."""


def _registry() -> HeaderRegistry:
    # Without this, a Message-ID that is too long for a line with the field's name is folded as an encoded word.
    registry = HeaderRegistry()
    for name in ("in-reply-to", "references"):
        registry.map_to_type(name, MessageIDHeader)  # type: ignore[arg-type]  # typeshed: no header
    return registry


_ASCII: Final = EmailPolicy(header_factory=_registry(), cte_type="7bit", max_line_length=78)
_UTF8: Final = _ASCII.clone(utf8=True)
"""For a sender whose own address needs SMTPUTF8 (RFC 6532)."""


def render(
    policy: Policy,
    incident: Incident,
    kind: NoticeKind,
    *,
    now: datetime,
    words: Words | None = None,
    taken: Collection[str] = (),
    zone: tzinfo | None = None,
) -> EmailMessage:
    """The notice about an incident, to its sender; line ends are LF, as sendmail(1) wants them.

    `words` are the organisation's (without them, those that come with the program); `taken` the parts of a release that
    were taken, such as `bcc:0-94`. Instants are written in `zone`; None is the host's local time. The same incident and
    kind give the same Message-ID, so that a notice sent twice can be known as one. Raises NoticeError.
    """
    if domain_of(incident.sender) is None:
        raise NoticeError("the envelope sender is no address that can be written to")
    words = words or shipped(policy.organisation.languages)
    try:
        parts = words.parts(kind, facts(policy, incident, kind, taken=taken), zone)
        html = words.html(parts, plain(incident.reference))
    except (*MADE_BY_TEMPLATES, TemplateError) as error:
        raise NoticeError(f"a template failed: {error}") from error
    sender = _from(policy)
    ascii_only = sender.username.isascii() and incident.sender.rpartition("@")[0].isascii()
    message = EmailMessage(policy=_ASCII if ascii_only else _UTF8)
    message["From"] = sender
    try:
        message["To"] = _address("", incident.sender)
    except (ValueError, HeaderParseError) as error:
        raise NoticeError(f"the envelope sender is no address that can be written to: {error}") from error
    message["Subject"] = _subject(parts, plain(incident.reference))
    message["Date"] = now.astimezone(zone)
    name = f"{kind}.{re.sub('[^A-Za-z0-9-]', '', incident.reference).lower()}.{incident.at:%Y%m%d%H%M%S}"
    message["Message-ID"] = f"<{name}@{sender.domain}>"
    if incident.message_id is not None and _MESSAGE_ID.fullmatch(incident.message_id):
        message["In-Reply-To"] = message["References"] = incident.message_id
    message["Auto-Submitted"] = "auto-replied"
    message["X-Auto-Response-Suppress"] = "All"
    message.set_content(text(parts), cte="quoted-printable")
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    message["Content-Language"] = ", ".join(part.language for part in parts)
    for part in message.iter_parts():
        del part["MIME-Version"]  # a part has none (RFC 2045, section 4)
    message.set_boundary(f"=_{name}")  # "=_" stands in no quoted-printable line
    return message


def _subject(parts: Sequence[Part], reference: str) -> str:
    """What the templates say, in every language, and the reference, so that it can be quoted whatever they say."""
    return f"{plain(' / '.join(part.subject for part in parts))[:LONGEST_SUBJECT]} ({reference})"


def text(parts: Sequence[Part]) -> str:
    """The parts as plain text."""
    return f"\n\n{BETWEEN_LANGUAGES}\n\n".join("\n\n".join(_paragraphs(part)) for part in parts) + "\n"


def _paragraphs(part: Part) -> Iterator[str]:
    wrapper = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    entries = textwrap.TextWrapper(
        WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    yield wrapper.fill(part.subject)
    for block in part.blocks:
        yield "\n".join(map((entries if block.is_list else wrapper).fill, block.lines))


def _from(policy: Policy) -> HeaderAddress:
    """Who writes: `notices.from`, else the postmaster whom every domain has (RFC 5321, section 4.5.1)."""
    if configured := mailboxes(policy.notices.from_):
        name, address = configured[0]
        return _address(plain(name), address.text)
    internal = policy.organisation.internal_domains
    domain = next((one for one in internal if not one.startswith(".")), internal[0].removeprefix("."))
    return HeaderAddress(plain(policy.organisation.name), "postmaster", domain)


def _address(name: str, address: str) -> HeaderAddress:
    """An address for the header. Its parts are given one by one: parsed, letters that are not ASCII are refused."""
    local, _, domain = address.rpartition("@")
    if local.startswith('"'):
        local = local[1:-1]
    return HeaderAddress(name, local, domains.to_ascii(domain))
