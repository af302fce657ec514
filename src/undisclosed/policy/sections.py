"""The sections of the configuration: every setting with its type, bounds, default and purpose.

Each setting is described once, here: `settings_index.py` passes the descriptions to the reference page, and a test
compares the example file with them. `policy.py` checks the settings that depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property, lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator

from undisclosed.addresses import addresses
from undisclosed.policy.actions import Action
from undisclosed.policy.senders import Senders, is_glob
from undisclosed.policy.types import (
    BaseUrl,
    DatabaseUrl,
    Domain,
    Duration,
    Endpoint,
    EnhancedCode,
    FieldName,
    FileMode,
    Language,
    Line,
    Network,
    Refused,
    ReplyCode,
    SenderPattern,
    Socket,
    SocketText,
    Whole,
    WholePath,
    parse_socket,
)

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
"""The header fields that show a recipient the other recipients (RFC 5322, sections 3.6.3 and 3.6.6)."""


def _one_mailbox(text: str) -> str:
    if text and len(addresses(text)) != 1:
        raise Refused("not one address", 'write one, such as "Mail desk <postmaster@council.example>"')
    return text


MAX_LIMIT = 100_000
"""The highest limit of a rule: no header that Postfix takes shows more addresses than some ten thousand."""

MAX_REMEMBERED_CLIENTS = 8192
"""Client addresses for which the answer of `ScopeSection.holds` is remembered."""


class Section(BaseModel):
    """A table of the TOML file: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    def __getstate__(self) -> dict[Any, Any]:
        """The settings alone. Cached values are not pickled: the worker that gets the policy computes them again."""
        state = super().__getstate__()
        settings = {name: value for name, value in state["__dict__"].items() if name in type(self).model_fields}
        return {**state, "__dict__": settings}


class OrganisationSection(Section):
    """The organisation whose mail this is."""

    name: Annotated[Line, Field(min_length=1, max_length=200)] = Field(
        description="The organisation's name in replies and notices.",
        examples=["Exampleshire County Council"],
    )
    internal_domains: Annotated[tuple[Domain, ...], Field(min_length=1)] = Field(
        description="The organisation's own domains. `example.org` is that domain, `.example.org` every domain below"
        " it. A public suffix (`co.uk`) or a personal-mail provider is refused.",
        examples=[["council.example", ".council.example"]],
    )
    partner_domains: tuple[Domain, ...] = Field(
        default=(),
        description="Domains that the organisation trusts, written like internal domains: their addresses are not"
        " counted.",
    )
    help: Annotated[Line, Field(max_length=200)] = Field(
        default="your mail administrator",
        description="The person or team that replies and notices tell a sender to ask for help.",
    )
    languages: Annotated[tuple[Language, ...], Field(min_length=1)] = Field(
        default=("en",),
        description="Languages of replies and notices, the most important first. A reply has the first two that come"
        " with the program, or English.",
    )


class MilterSection(Section):
    """The connection from Postfix to the milter. Changes need a restart."""

    socket: SocketText = Field(
        default="unix:/var/spool/postfix/undisclosed/milter.sock",
        description="The socket to listen on, in libmilter's syntax: `unix:PATH` (faster) or `inet:PORT@HOST`. Any"
        " program that can connect to it can pose as Postfix: keep an inet socket on the loopback address.",
    )
    socket_mode: FileMode = Field(default="0660", description="The mode of a unix socket, in octal.")
    socket_group: Annotated[Line, Field(max_length=32)] = Field(
        default="",
        description="The group of a unix socket. Empty: the group of the directory, if its setgid bit is set.",
    )
    workers: Annotated[Whole, Field(ge=1, le=64)] = Field(default=2, description="Worker processes.")

    @property
    def endpoint(self) -> Socket:
        """The parsed socket."""
        return parse_socket(self.socket)


class PostfixSection(Section):
    """The Postfix instance that the commands work on."""

    config_dir: WholePath = Field(default=Path("/etc/postfix"), description="Its configuration directory.")


class ScopeSection(Section):
    """The mail that counts as the organisation's own outgoing mail. All other mail passes unchanged."""

    networks: tuple[Network, ...] = Field(
        default=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="Clients from which mail with an internal sender, a null sender or an internal From is outgoing:"
        " mail servers, applications and scanners that send without logging in.",
    )
    authenticated: StrictBool = Field(
        default=True, description="Whether mail from an authenticated client is outgoing."
    )

    def holds(self, client_address: str | None) -> bool:
        """Whether a client is in `networks`. An address that is unknown or cannot be parsed counts as in them."""
        if client_address is None:
            return True
        return self._remembered(client_address)

    @cached_property
    def _remembered(self) -> Callable[[str], bool]:
        """Parsing an address takes as long as reading a short To: the answers for known clients are kept."""
        return lru_cache(MAX_REMEMBERED_CLIENTS)(self._look_up)

    def _look_up(self, client_address: str) -> bool:
        try:
            address = ip_address(client_address.removeprefix("IPv6:").partition("%")[0])
        except ValueError:
            return True
        mapped = getattr(address, "ipv4_mapped", None)
        return any(address in network or (mapped is not None and mapped in network) for network in self.networks)


class CountingSection(Section):
    """The fields and the personal-mail providers that counting uses."""

    fields: Annotated[tuple[FieldName, ...], Field(min_length=1)] = Field(
        default=COUNTED_FIELDS,
        description="The header fields in which addresses are counted and hidden. The author's own address in"
        " Reply-To is not counted.",
    )
    personal_mail_add: tuple[Domain, ...] = Field(
        default=(),
        description="Further personal-mail providers: each address there is an organisation of its own, and the domain"
        " can be neither internal nor partner.",
    )
    personal_mail_remove: tuple[Domain, ...] = Field(
        default=(), description="Domains in the list of personal-mail providers that are none."
    )


class ReplySection(Section):
    """The SMTP reply to a rejected message."""

    code: ReplyCode = Field(
        default=550,
        description="The reply code, of class 5, but not 521 or 552, which have other meanings for clients.",
    )
    enhanced: EnhancedCode = Field(
        default="5.7.0",
        description="The enhanced status code (RFC 3463), of class 5. Some systems choose their own headline by it:"
        " 5.7.1 reads as a lack of permission.",
    )


class RewriteSection(Section):
    """The way in which recipients are hidden."""

    to: Annotated[Line, Field(min_length=1, max_length=200)] = Field(
        default="{from}",
        description="The value of To when no address may stay in it: `{from}` is the author's own address if it is"
        " internal, else `undisclosed-recipients:;`. Also an internal address, or an empty group such as `parents:;`.",
    )
    keep_internal: StrictBool = Field(default=True, description="Whether internal addresses stay visible.")
    when_unsafe: Literal[Action.QUARANTINE, Action.REJECT] = Field(
        default=Action.QUARANTINE,
        description="The action in place of `rewrite`, `split` or `delay` for a message whose recipients cannot be"
        " hidden: it is signed or encrypted, an invitation, has `winmail.dat`, or repeats the list: its text,"
        " attached messages and text files show more than three of the hidden external addresses (or more than the"
        " rule's `more_than_addresses`, if that is one or two; one for 0), or its trace fields (such as Received)"
        " show so many, or another header field shows one. Compressed attachments (PDF, office documents, archives)"
        " are not searched. The size of a message does not matter. DKIM signatures of"
        " internal domains are removed instead, so that a milter behind this one signs anew.",
    )


MAY_SHOW: Final = 3
"""Hidden addresses that a text may show, unless the rule allows fewer."""


class Rule(Section):
    """A limit and an action. The first rule that matches decides; if none matches, the message is accepted."""

    name: Annotated[Line, Field(min_length=1, max_length=100)] = Field(
        description="The name of the rule in log and commands.", examples=["too many in sight"]
    )
    senders: Annotated[tuple[SenderPattern, ...], Field(min_length=1)] = Field(
        default=("*",),
        description="Envelope senders that the rule applies to, in any case: `*` stands for anything, `?` for one"
        " character, `<>` is the null sender, and `file:PATH` takes one a line from a file (`#` begins a comment;"
        " the path is relative to the configuration). A client may write any envelope sender that Postfix lets it.",
    )
    except_senders: tuple[SenderPattern, ...] = Field(
        default=(), description="Envelope senders that the rule does not apply to."
    )
    more_than_addresses: Annotated[Whole, Field(ge=0, le=MAX_LIMIT)] | None = Field(
        default=None,
        description="Matches when more distinct external addresses than this would be visible.",
        examples=[10],
    )
    more_than_organisations: Annotated[Whole, Field(ge=0, le=MAX_LIMIT)] | None = Field(
        default=None,
        description="Matches when those addresses belong to more organisations than this; an address at a"
        " personal-mail provider is an organisation of its own. With both limits, both must be exceeded.",
        examples=[3],
    )
    action: Action = Field(
        description="`accept`, `warn` (deliver, tell the sender), `rewrite` (deliver with the external addresses"
        " hidden), `split` (send each external recipient a separate message that shows only their own address), `delay`"
        " (hold for hold.delay, then deliver with the external addresses hidden), `quarantine` (hold until someone"
        " decides) or `reject`. Each but `accept` needs a threshold.",
        examples=["reject"],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.action is not Action.ACCEPT and self.more_than_addresses is None is self.more_than_organisations:
            fix = "add more_than_addresses, more_than_organisations or both, such as more_than_addresses = 10"
            raise Refused(f"a rule with the action {self.action} needs a threshold", fix)
        if not self._senders.difference(self._but).patterns:
            raise Refused("except_senders takes away every sender that the rule names", "narrow it", ["except_senders"])
        return self

    @cached_property
    def _senders(self) -> Senders:
        return Senders(self.senders)

    @cached_property
    def _but(self) -> Senders:
        return Senders(self.except_senders)

    def concerns(self, sender: str) -> bool:
        """Whether the rule applies to an envelope sender (an addr-spec; empty for the null sender)."""
        return sender in self._senders and sender not in self._but

    @property
    def may_show(self) -> int:
        """How many of the hidden addresses a text may show: more would repeat the list.

        A reply quotes the authors before it. One address is a contact, or the person who is answered: never a list.
        """
        limit = MAY_SHOW if self.more_than_addresses is None else self.more_than_addresses
        return max(1, min(limit, MAY_SHOW))

    def covers(self, later: Rule) -> bool:
        """Whether this rule matches every message that a later rule could match.

        True only if that is certain, so that no rule that a message can reach is refused. A message shows at least as
        many addresses as organisations, and no addresses if and only if it shows no organisations.
        """
        least_addresses, least_organisations = (
            0 if limit is None else limit + 1 for limit in (later.more_than_addresses, later.more_than_organisations)
        )
        least_addresses = max(least_addresses, least_organisations)
        least_organisations = max(least_organisations, min(least_addresses, 1))
        return (
            (self.more_than_addresses is None or least_addresses > self.more_than_addresses)
            and (self.more_than_organisations is None or least_organisations > self.more_than_organisations)
            and all(self._covers_sender(pattern, later) for pattern in later._senders.patterns)
        )

    def _covers_sender(self, pattern: str, later: Rule) -> bool:
        if is_glob(pattern):
            return self._senders.include(Senders([pattern])) and later._but.include(self._but)
        return self.concerns(pattern) or not later.concerns(pattern)


class JournalSection(Section):
    """The record of incidents."""

    url: DatabaseUrl = Field(
        default="sqlite:////var/lib/undisclosed/journal.db",
        description="The database: an SQLite file by its whole path"
        " (`sqlite:////…`), or `postgresql+psycopg://user@host/database`, one for all gateways. `undisclosed journal"
        " upgrade` makes its tables.",
    )
    key_file: WholePath = Field(
        default=Path("/var/lib/undisclosed/key"),
        description="The key of hashes and of the references in replies and log, created at the first start; copy it to"
        " every gateway.",
    )
    addresses: Literal["hashed", "plain", "none"] = Field(
        default="hashed",
        description="The form in which visible addresses are recorded: keyed hashes, plain, or not at all.",
    )
    subjects: StrictBool = Field(default=True, description="Whether subjects are recorded.")
    retention_days: Annotated[Whole, Field(ge=1, le=36500)] = Field(
        default=365, description="Days after which records are deleted."
    )


class HoldSection(Section):
    """Held mail."""

    expire_days: Annotated[Whole, Field(ge=1, le=3650)] = Field(
        default=14, description="Days after which held mail expires."
    )
    on_expiry: Literal["delete", "keep"] = Field(
        default="delete", description="Whether held mail is deleted or kept when it expires."
    )
    delay: Duration = Field(
        default=timedelta(minutes=5),
        description="The time for which `delay` holds a message: a number and `s`, `m`, `h` or `d`.",
    )
    sender_may: tuple[Literal["bcc", "split", "unchanged", "delete"], ...] = Field(
        default=("bcc", "split", "delete"), description="The choices of the sender of a held message."
    )


class NoticesSection(Section):
    """Notices: messages to senders."""

    from_: Annotated[Line, Field(max_length=320), AfterValidator(_one_mailbox)] = Field(
        default="", alias="from", description="The From of notices. Empty: postmaster at the first internal domain."
    )
    administrator: Annotated[Line, Field(max_length=254)] = Field(
        default="",
        description="The address that is told, once a day, of mail whose sender cannot be told; answers to notices go"
        " there too. Internal, or at a partner. Empty: postmaster at the first internal domain.",
    )
    templates: Annotated[Line, Field(max_length=4096)] = Field(
        default="",
        description="A directory with your own templates, relative to the configuration: `LANGUAGE/KIND.txt`, such as"
        " `en/held.txt`, and `LANGUAGE/reply.txt`, the words of refusals. Empty: those that come with the program.",
    )
    after: tuple[Action, ...] = Field(
        default=tuple(action for action in Action if action.effect.first_notice),
        description="The actions after which the sender is told what became of a message. That a message is on hold, a"
        " reminder of it, and that it left the hold queue with its addresses visible is always told.",
    )


class ConsoleSection(Section):
    """The web pages."""

    listen: Endpoint = Field(default="127.0.0.1:8026", description="The address to listen on.")
    base_url: BaseUrl = Field(default="", description="The web address of the pages.")


class MetricsSection(Section):
    """Figures for monitoring."""

    listen: Endpoint = Field(default="", description="The address to listen on. Empty: metrics are off.")


class LogSection(Section):
    """The log."""

    format: Literal["json", "console"] = Field(
        default="json", description="`json`: one JSON object a line; `console`: text for people."
    )
