"""Composes a notice as a message (RFC 3834): text and HTML, addressed to one internal person only."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from email.errors import HeaderParseError
from email.header import Header
from email.headerregistry import Address as HeaderAddress
from email.headerregistry import HeaderRegistry, MessageIDHeader, UniqueAddressHeader, UniqueUnstructuredHeader
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Final

from jinja2 import TemplateError

from undisclosed.addresses import domains, mailboxes
from undisclosed.notices.addressee import NOT_AN_ADDRESS, domain_of
from undisclosed.notices.errors import NoticeError
from undisclosed.notices.template_files import TEMPLATE_ERRORS
from undisclosed.notices.templates import LanguagePart, SeveralName, TemplateName, Templates
from undisclosed.notices.variables import Facts, Value, plain, variables_of, variables_of_many
from undisclosed.policy import Policy

WIDTH: Final = 72
"""Columns of the text part."""

BETWEEN_LANGUAGES: Final = "-" * WIDTH

MAX_SUBJECT: Final = 300
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


class _SubjectHeader(UniqueUnstructuredHeader):
    """Subject, in encoded words throughout, unless it is ASCII.

    Where `email` (Python 3.13.5) encodes single words, it may put two encoded words side by side without a blank:
    programs then show the second one as it is written.
    """

    def fold(self, *, policy: EmailPolicy) -> str:
        subject = str(self)
        if policy.utf8 or subject.isascii():
            # BaseHeader's, which the registry adds to this class.
            return super().fold(policy=policy)  # type: ignore[misc, no-any-return]
        encoded = Header(subject, "utf-8", header_name="Subject").encode(linesep=policy.linesep)
        return f"Subject: {encoded}{policy.linesep}"


def _registry() -> HeaderRegistry:
    registry = HeaderRegistry()
    registry.map_to_type("subject", _SubjectHeader)  # type: ignore[arg-type]  # typeshed: no header
    registry.map_to_type("to", _ToHeader)  # type: ignore[arg-type]  # typeshed: no header
    # By default a Message-ID that is too long for one line is folded as an encoded word.
    for name in ("in-reply-to", "references"):
        registry.map_to_type(name, MessageIDHeader)  # type: ignore[arg-type]  # typeshed: no header
    return registry


_ASCII: Final = EmailPolicy(header_factory=_registry(), cte_type="7bit", max_line_length=78)
_UTF8: Final = _ASCII.clone(utf8=True)
"""For a sender whose address needs SMTPUTF8 (RFC 6532)."""


def render(
    policy: Policy, facts: Facts, to: str, *, now: datetime, templates: Templates, zone: tzinfo | None = None
) -> EmailMessage:
    """Compose the notice about one message to an internal address. Line ends are LF, as sendmail(1) expects.

    Instants are written in `zone`; None is the host's local time. The same facts give the same Message-ID, so that
    duplicates can be recognised. Raises NoticeError.
    """
    incident = facts.incident
    reference = plain(incident.reference)
    first = min((copy.id for copy in facts.copies), default=0)
    name = f"{facts.kind}.{_for_id(reference)}.{incident.at:%Y%m%d%H%M%S}.{first}"
    if facts.kind == "reminder":
        name += f".{now:%Y%m%d}"  # one that was sent too early is sent again, and is no duplicate
    parts = _parts(templates, facts.kind, lambda: variables_of(policy, facts, now), zone)
    message = _header(policy, to, name, subject=_subject(parts, reference), date=now.astimezone(zone))
    if incident.message_id is not None and _MESSAGE_ID.fullmatch(incident.message_id):
        message["In-Reply-To"] = message["References"] = incident.message_id
    message["Auto-Submitted"] = "auto-replied"
    _add_body(message, templates, parts, [reference], name)
    return message


def render_many(
    policy: Policy,
    told: Sequence[Facts],
    to: str,
    *,
    name: SeveralName,
    now: datetime,
    templates: Templates,
    zone: tzinfo | None = None,
) -> EmailMessage:
    """Compose one notice about several messages: a summary to their sender, or the administrator's digest."""
    first = told[0].incident
    left = f"{name}.{_for_id(plain(first.reference))}.{now:%Y%m%d%H%M%S}"
    parts = _parts(templates, name, lambda: variables_of_many(policy, told, now), zone)
    message = _header(policy, to, left, subject=_subject(parts, ""), date=now.astimezone(zone))
    message["Auto-Submitted"] = "auto-generated"
    _add_body(message, templates, parts, [plain(facts.incident.reference) for facts in told], left)
    return message


def _for_id(reference: str) -> str:
    return re.sub("[^A-Za-z0-9-]", "", reference).lower()


def _parts(
    templates: Templates,
    name: TemplateName,
    variables: Callable[[], Mapping[str, Value]],
    zone: tzinfo | None,
) -> tuple[LanguagePart, ...]:
    try:
        return templates.parts(name, variables(), zone)
    except (*TEMPLATE_ERRORS, TemplateError) as error:
        raise NoticeError(f"a template failed: {error}") from error


def _header(policy: Policy, to: str, name: str, *, subject: str, date: datetime) -> EmailMessage:
    """A message without a body. `name` is the left part of its Message-ID."""
    if domain_of(to) is None:
        raise NoticeError(NOT_AN_ADDRESS)
    sender = _from(policy)
    ascii_only = sender.username.isascii() and to.rpartition("@")[0].isascii()
    message = EmailMessage(policy=_ASCII if ascii_only else _UTF8)
    message["From"] = sender
    try:
        message["To"] = _address("", to)
    except (ValueError, HeaderParseError) as error:
        raise NoticeError(f"{NOT_AN_ADDRESS}: {error}") from error
    message["Reply-To"] = _address("", policy.administrator)
    message["Subject"] = subject
    message["Date"] = date
    message["Message-ID"] = f"<{name}@{sender.domain}>"
    message["X-Auto-Response-Suppress"] = "All"
    return message


def _add_body(
    message: EmailMessage, templates: Templates, parts: Sequence[LanguagePart], references: Sequence[str], name: str
) -> None:
    """Add the two alternatives."""
    try:
        html = templates.html(parts, references)
    except (*TEMPLATE_ERRORS, TemplateError) as error:
        raise NoticeError(f"a template failed: {error}") from error
    message.set_content(text(parts), cte="quoted-printable")
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    for part in message.iter_parts():
        del part["MIME-Version"]  # a part has none (RFC 2045, section 4)
    message["Content-Language"] = ", ".join(part.language for part in parts)
    message.set_boundary(f"=_{name}"[:70])  # "=_" occurs in no quoted-printable line; RFC 2046 allows 70 characters


def _subject(parts: Sequence[LanguagePart], reference: str) -> str:
    """The subjects of all languages, and the reference, so that the sender can quote it with every template."""
    subject = plain(" / ".join(part.subject for part in parts))[:MAX_SUBJECT]
    return f"{subject} ({reference})" if reference else subject


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
    local, _, domain = policy.postmaster.partition("@")
    return HeaderAddress(plain(policy.organisation.name), local, domain)


def _address(name: str, address: str) -> HeaderAddress:
    """An address for the header, from its parts: the parser of `email` refuses letters that are not ASCII."""
    local, _, domain = address.rpartition("@")
    if local.startswith('"'):
        local = local[1:-1]
    return HeaderAddress(name, local, domains.to_ascii(domain))
