"""The policy: what the TOML file may say, and what it says where it is silent.

Values only: no file is read here. `config.py` reads the file, puts the contents of `file:` lists in place, and turns
what is refused here into an error that names file, key, value and remedy. Every setting is described once, beside its
type; the reference page and the example file are held against these descriptions.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from fnmatch import translate
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from undisclosed import domains
from undisclosed.addresses import Address, addresses


class Mode(StrEnum):
    """What a decision does to a message."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class Action(StrEnum):
    """What a rule may ask for. `tempfail` is not among them: it answers a failure and is never a policy."""

    ACCEPT = "accept"
    WARN = "warn"
    REWRITE = "rewrite"
    SPLIT = "split"
    DELAY = "delay"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class Standing(StrEnum):
    """What a domain is to the organisation."""

    INTERNAL = "internal"
    PARTNER = "partner"
    EXTERNAL = "external"


NOT_YET_AVAILABLE = frozenset({Action.SPLIT, Action.DELAY})
"""Actions that the schema knows and this version cannot carry out: a rule that asks for one is refused."""

NOT_USED_YET = (
    "journal.url",
    "journal.addresses",
    "journal.subjects",
    "journal.retention_days",
    "hold",
    "notices",
    "console",
    "metrics",
)
"""Settings (or whole sections) that are validated and that nothing acts on in this version."""

COUNTED_FIELDS = (
    "To",
    "Cc",
    "Resent-To",
    "Resent-Cc",
    "Apparently-To",
    "Reply-To",
    "Mail-Followup-To",
    "Bcc",
    "Resent-Bcc",
)
"""The header fields in which a recipient reads who else received the message (RFC 5322, sections 3.6.3 and 3.6.6)."""


class Refused(ValueError):
    """A setting that cannot stand.

    `key` is the dotted setting (`rules[1].senders`), or empty where pydantic knows it; `value` what the file says
    (None where there is none); `fix` says what to write instead.
    """

    def __init__(self, problem: str, fix: str, key: str = "", value: object = None) -> None:
        super().__init__(problem)
        self.fix = fix
        self.key = key
        self.value = value


class Socket(NamedTuple):
    """Where the milter listens. A unix socket has a path; an inet or inet6 one a port, and a host unless it is any."""

    family: Literal["unix", "inet", "inet6"]
    path: Path | None = None
    port: int = 0
    host: str = ""


def parse_socket(text: str) -> Socket:
    """Read libmilter's socket syntax: `unix:PATH`, `local:PATH`, `inet:PORT@HOST`, `inet6:PORT@HOST`.

    The source is smfi_setconn in libmilter's documentation. Raises Refused.
    """
    fix = 'write "unix:/var/spool/postfix/undisclosed/milter.sock" or "inet:8899@127.0.0.1"'
    family, _, rest = text.partition(":")
    if family in ("unix", "local") and rest.startswith("/"):
        if len(rest.encode()) > 90:  # sun_path holds 108 bytes, and the temporary name is longer than the public one
            raise Refused("the path of a unix socket is limited to 90 bytes", "choose a shorter path")
        return Socket("unix", path=Path(rest))
    if (family == "inet" or family == "inet6") and (match := re.fullmatch(r"(\d{1,5})(?:@(\S+))?", rest)):
        port, host = int(match[1]), match[2] or ""
        if re.search(r"[A-Za-z]:\d|^\d+\.\d+\.\d+\.\d+:", host):
            raise Refused("the host must not carry a port: libmilter writes PORT@HOST", fix)
        if 0 < port < 65536:
            return Socket(family, port=port, host=host)
    raise Refused("not a socket in libmilter's syntax", fix)


def _socket(text: str) -> str:
    parse_socket(text)
    return text


def _domain_pattern(text: str) -> str:
    bare = domains.to_ascii(text.removeprefix("."))
    if not re.fullmatch(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", bare):
        fix = "write a domain alone, such as example.org, or .example.org for every domain below it"
        raise Refused("not a domain name", fix)
    return "." + bare if text.startswith(".") else bare


def _field_name(text: str) -> str:
    if not re.fullmatch(r"[!-9;-~]+", text):  # ftext, RFC 5322 section 3.6.8
        raise Refused("not a header field's name", 'write names such as "To", without the colon')
    if text.casefold() in ("from", "sender"):
        raise Refused("that field names the author, not the recipients", "leave From and Sender out of counting.fields")
    return text


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError as error:
        try:
            fix = f'write "{ip_network(value, strict=False)}"'
        except ValueError:
            fix = 'write an address or a network such as "192.0.2.0/24" or "2001:db8::/32"'
        raise Refused(str(error), fix) from error


def _duration(value: object) -> object:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,6}) ?([smhd])", value)):
        return timedelta(seconds=int(match[1]) * units[match[2]])
    if isinstance(value, timedelta):
        return value
    raise Refused("not a duration", 'write a number and s, m, h or d, such as "5m"')


def _mode_bits(text: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise Refused("not a file mode", 'write it in octal, in quotes, such as "0660"')
    if int(text, 8) & 0o002:
        raise Refused("a socket that everybody can write to lets everybody speak as Postfix", 'write "0660"')
    return text


def _endpoint(text: str) -> str:
    if text and not re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5}|unix:/\S+", text):
        raise Refused("not a place to listen at", 'write "127.0.0.1:8080", "[::1]:8080" or "unix:/run/…"')
    return text


def _one_line(text: str) -> str:
    if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029" for char in text):
        raise Refused("a line end or control character in a name", "write it in one line")
    return text


Domain = Annotated[str, AfterValidator(_domain_pattern)]
FieldName = Annotated[str, AfterValidator(_field_name)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Line = Annotated[str, AfterValidator(_one_line)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
Whole = Annotated[int, Field(strict=True)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))


class Organisation(_Section):
    """Whose mail this is."""

    name: Annotated[Line, Field(min_length=1, max_length=200)] = Field(
        description="The organisation's name, as the sender is to read it in replies and notices."
    )
    internal_domains: Annotated[tuple[Domain, ...], Field(min_length=1)] = Field(
        description="The organisation's own domains. `example.org` is that domain, `.example.org` every domain below."
    )
    partner_domains: tuple[Domain, ...] = Field(
        (), description="Domains that the organisation trusts: their addresses are not counted."
    )
    help: Annotated[Line, Field(max_length=200)] = Field(
        "your mail administrator", description="Whom a sender asks for help, as it is to stand in replies."
    )
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("en",), description="Languages of what senders read, the first one first."
    )


class Milter(_Section):
    """How Postfix reaches the milter."""

    socket: Annotated[str, AfterValidator(_socket)] = Field(
        "unix:/var/spool/postfix/undisclosed/milter.sock",
        description="Where to listen, in libmilter's syntax: `unix:PATH` (the faster) or `inet:PORT@HOST`.",
    )
    socket_mode: Annotated[str, AfterValidator(_mode_bits)] = Field(
        "0660", description="The mode of a unix socket, in octal."
    )
    socket_group: str = Field(
        "", description="The group of a unix socket. Empty: the one that the directory's setgid bit gives."
    )
    workers: Annotated[Whole, Field(ge=1, le=64)] = Field(2, description="Worker processes.")

    @property
    def endpoint(self) -> Socket:
        """The socket in its parts."""
        return parse_socket(self.socket)


class Postfix(_Section):
    """The Postfix instance that the commands work on."""

    config_dir: Path = Field(Path("/etc/postfix"), description="Its configuration directory.")


class Scope(_Section):
    """Which mail is the organisation's own outgoing mail."""

    networks: tuple[Network, ...] = Field(
        (ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="Clients from which mail with an internal sender, a null sender or an internal From is outgoing.",
    )
    authenticated: StrictBool = Field(True, description="Whether mail from an authenticated client is outgoing.")

    def holds(self, client_address: str | None) -> bool:
        """Whether a client is in `networks`; one whose address is unknown or unreadable counts as in."""
        if client_address is None:
            return True
        try:
            address = ip_address(client_address.removeprefix("IPv6:"))
        except ValueError:
            return True
        mapped = getattr(address, "ipv4_mapped", None)
        return any(address in network or (mapped is not None and mapped in network) for network in self.networks)


class Counting(_Section):
    """What is counted."""

    fields: Annotated[tuple[FieldName, ...], Field(min_length=1)] = Field(
        COUNTED_FIELDS, description="The header fields in which addresses are counted and hidden."
    )
    personal_mail_add: tuple[Domain, ...] = Field(
        (), description="Further personal-mail providers: each address there is an organisation of its own."
    )
    personal_mail_remove: tuple[Domain, ...] = Field((), description="Domains that are no personal-mail providers.")


class Reply(_Section):
    """The SMTP reply to a rejected message."""

    code: Annotated[Whole, Field(ge=500, le=599)] = Field(550, description="The reply code, of class 5.")
    enhanced: Annotated[str, Field(pattern=r"^5\.\d{1,3}\.\d{1,3}$")] = Field(
        "5.7.0", description="The enhanced status code (RFC 3463), of class 5."
    )


class Rewrite(_Section):
    """How recipients are hidden."""

    to: Annotated[Line, Field(min_length=1, max_length=200)] = Field(
        "{from}",
        description="What To shows when nobody may stay in it: `{from}` is the author's own address where it is"
        " internal, else `undisclosed-recipients:;`. Also an internal address, or an empty group such as `parents:;`.",
    )
    keep_internal: StrictBool = Field(True, description="Whether internal addresses stay visible.")
    when_unsafe: Literal[Action.QUARANTINE, Action.REJECT] = Field(
        Action.QUARANTINE,
        description="What happens to a message that must not be rewritten (signed, encrypted, an invitation, …).",
    )


class Rule(_Section):
    """When to do what. The first rule that matches decides; where none does, the message is accepted."""

    name: Annotated[Line, Field(min_length=1, max_length=100)] = Field(description="Its name, as it stands in the log.")
    senders: tuple[str, ...] = Field(
        (),
        description="Envelope senders it applies to, as case-insensitive globs; `<>` is the null sender;"
        " `file:PATH` takes one a line from a file. Empty: everybody.",
    )
    except_senders: tuple[str, ...] = Field((), description="Envelope senders it does not apply to.")
    more_than_addresses: Annotated[Whole, Field(ge=0)] | None = Field(
        None, description="Matches when more distinct external addresses than this would be visible."
    )
    more_than_organisations: Annotated[Whole, Field(ge=0)] | None = Field(
        None, description="Matches when they belong to more organisations than this. With both, both must hold."
    )
    action: Action = Field(description="`accept`, `warn`, `rewrite`, `quarantine` or `reject`.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.action in NOT_YET_AVAILABLE:
            available = ", ".join(action for action in Action if action not in NOT_YET_AVAILABLE)
            raise Refused(f"the action {self.action} is not yet available", f"write one of {available}", "action")
        if self.action is not Action.ACCEPT and self.more_than_addresses is None is self.more_than_organisations:
            fix = "add more_than_addresses, more_than_organisations or both"
            raise Refused("a rule that acts needs a threshold", fix, "more_than_addresses")
        for key in ("senders", "except_senders"):
            for pattern in getattr(self, key):
                if "@" not in pattern and "*" not in pattern and pattern != "<>":
                    fix = 'write an address or a glob such as "*@lists.example.org", or "<>" for the null sender'
                    raise Refused(f"{pattern!r} can match no envelope sender", fix, key, pattern)
        return self

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
        return _globs(self.senders), _globs(self.except_senders)

    def concerns(self, sender: str) -> bool:
        """Whether the rule applies to an envelope sender (an addr-spec; empty for the null sender)."""
        only, but = self._patterns
        name = sender.casefold() or "<>"
        return (only is None or only.match(name) is not None) and (but is None or but.match(name) is None)

    def covers(self, later: Rule) -> bool:
        """Whether every message that a later rule could match is matched by this one already."""
        mine, theirs = ({glob.casefold() for glob in rule.senders} for rule in (self, later))
        but_mine, but_theirs = ({glob.casefold() for glob in rule.except_senders} for rule in (self, later))
        if mine and "*" not in mine and not (theirs and theirs <= mine):
            return False
        return but_mine <= but_theirs and all(
            limit is None or (other is not None and limit <= other)
            for limit, other in (
                (self.more_than_addresses, later.more_than_addresses),
                (self.more_than_organisations, later.more_than_organisations),
            )
        )


def _globs(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(translate(pattern.casefold()) for pattern in patterns))


class Journal(_Section):
    """The record of incidents."""

    url: str = Field("sqlite:////var/lib/undisclosed/journal.db", description="SQLAlchemy's URL of the database.")
    key_file: Path = Field(
        Path("/var/lib/undisclosed/key"),
        description="The key of hashes and references, made at first start; the same file on every gateway.",
    )
    addresses: Literal["hashed", "plain", "none"] = Field("hashed", description="How addresses are recorded.")
    subjects: StrictBool = Field(True, description="Whether subjects are recorded.")
    retention_days: Annotated[Whole, Field(ge=1)] = Field(365, description="Days after which records are deleted.")


class Hold(_Section):
    """Held mail."""

    expire_days: Annotated[Whole, Field(ge=1)] = Field(14, description="Days after which held mail expires.")
    on_expiry: Literal["delete", "keep"] = Field("delete", description="What happens to it then.")
    delay: Duration = Field(timedelta(minutes=5), description="How long `delay` holds a message.")
    sender_may: tuple[Literal["bcc", "split", "unchanged", "delete"], ...] = Field(
        ("bcc", "split", "delete"), description="What the sender may choose for a held message."
    )


class Notices(_Section):
    """Messages to senders."""

    from_: Line = Field("", alias="from", description="Their From. Empty: postmaster at the first internal domain.")
    after: tuple[Action, ...] = Field(
        (Action.WARN, Action.REWRITE, Action.SPLIT, Action.DELAY, Action.QUARANTINE),
        description="The actions that cause one.",
    )


class Console(_Section):
    """The web pages."""

    listen: Endpoint = Field("127.0.0.1:8026", description="Where to listen.")
    base_url: str = Field("", description="The address under which people reach it.")


class Metrics(_Section):
    """Figures for monitoring."""

    listen: Endpoint = Field("", description="Where to listen. Empty: nowhere.")


class Log(_Section):
    """The log."""

    format: Literal["json", "console"] = Field("json", description="One JSON object a line, or text for a person.")


class Policy(_Section):
    """The whole configuration: a snapshot, swapped at reload and never changed."""

    mode: Mode = Field(Mode.ENFORCE, description="`enforce`, or `monitor`: decide, record, deliver unchanged.")
    organisation: Organisation
    milter: Milter = Milter()
    postfix: Postfix = Postfix()
    scope: Scope = Scope()
    counting: Counting = Counting()
    reply: Reply = Reply()
    rewrite: Rewrite = Rewrite()
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)] = Field(description="The rules, in order.")
    journal: Journal = Journal()
    hold: Hold = Hold()
    notices: Notices = Notices()
    console: Console = Console()
    metrics: Metrics = Metrics()
    log: Log = Log()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("internal_domains", "partner_domains"):
            for domain in getattr(self.organisation, key):
                self._check_domain(f"organisation.{key}", domain)
        self._check_rules()
        self._check_rewrite_to()
        return self

    def _check_domain(self, key: str, domain: str) -> None:
        bare = domain.removeprefix(".")
        if domains.is_public_suffix(bare):
            fix = f"write a domain that is registered below it, such as council.{bare}"
            raise Refused("anybody can register a domain below a public suffix", fix, key, domain)
        if self.is_personal_mail(bare):
            fix = "leave it out, or, if the list is wrong, name it in counting.personal_mail_remove"
            raise Refused("a personal-mail provider: strangers have addresses there", fix, key, domain)

    def _check_rules(self) -> None:
        names = [rule.name for rule in self.rules]
        for number, rule in enumerate(self.rules):
            if rule.name in names[:number]:
                fix = "give each rule a name of its own, so that the log tells them apart"
                raise Refused("two rules have this name", fix, f"rules[{number}].name", rule.name)
            for earlier in self.rules[:number]:
                if earlier.covers(rule):
                    fix = f"move it above {earlier.name!r}, narrow that rule, or remove this one"
                    problem = f"never reached: every message it could match is matched by {earlier.name!r} before it"
                    raise Refused(problem, fix, f"rules[{number}].name", rule.name)

    def _check_rewrite_to(self) -> None:
        to = self.rewrite.to
        if to == "{from}":
            return
        found = addresses(to)
        group = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _-]*:\s*;", to)
        mailbox = len(found) == 1 and to.isascii() and self.standing(found[0].domain) is Standing.INTERNAL
        if not (group or (mailbox and to.endswith((found[0].text, f"<{found[0].text}>")))):
            fix = 'write "{from}", an empty group such as "undisclosed-recipients:;", or an internal address'
            raise Refused("To would name nobody, or somebody outside", fix, "rewrite.to", to)

    @cached_property
    def _internal(self) -> _DomainSet:
        return _DomainSet(self.organisation.internal_domains)

    @cached_property
    def _partner(self) -> _DomainSet:
        return _DomainSet(self.organisation.partner_domains)

    @cached_property
    def _personal(self) -> frozenset[str]:
        add, remove = (
            {domain.removeprefix(".") for domain in listed}
            for listed in (self.counting.personal_mail_add, self.counting.personal_mail_remove)
        )
        return domains.PERSONAL_MAIL.union(add) - remove

    @cached_property
    def counted_fields(self) -> frozenset[str]:
        """The names of the counted header fields, case-folded."""
        return frozenset(name.casefold() for name in self.counting.fields)

    def standing(self, domain: str) -> Standing:
        """What a domain (A-label, lower case) is to the organisation."""
        if domain in self._internal:
            return Standing.INTERNAL
        return Standing.PARTNER if domain in self._partner else Standing.EXTERNAL

    def is_personal_mail(self, domain: str) -> bool:
        """Whether a domain (A-label, lower case) belongs to a provider of mailboxes to private persons."""
        return domain in self._personal or domains.registrable(domain) in self._personal

    def organisation_of(self, address: Address) -> str:
        """The organisation of an Address: its registrable domain, or itself at a personal-mail provider."""
        if self.is_personal_mail(address.domain):
            return f"{address.local}@{address.domain}"
        return domains.registrable(address.domain)


class _DomainSet:
    """Domains as the configuration names them: `example.org` itself, `.example.org` every one below."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._exact = frozenset(pattern for pattern in patterns if not pattern.startswith("."))
        self._below = tuple(pattern for pattern in patterns if pattern.startswith("."))

    def __contains__(self, domain: str) -> bool:
        return domain in self._exact or (bool(self._below) and domain.endswith(self._below))
