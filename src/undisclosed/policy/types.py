"""The types of settings: each checks its value, and its error says what to write instead.

pydantic checks plain types and bounds; these check domains, globs, sockets, networks, file modes and the like.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from undisclosed.addresses import domains
from undisclosed.policy.senders import NULL_SENDER


class Refused(ValueError):
    """A setting that is not accepted.

    `fix` says what to write instead. `where` is the path to the setting from the section that refuses it, such as
    `("rules", 1, "senders")`; it is empty if pydantic knows the path. `value` is the value in the file; None: the path
    leads to it.
    """

    def __init__(self, problem: str, fix: str, where: Sequence[str | int] = (), value: object = None) -> None:
        super().__init__(problem)
        self.fix = fix
        self.where = tuple(where)
        self.value = value


class RefusedTogether(ValueError):
    """Several settings that are not accepted: the administrator can correct all of them at once."""

    def __init__(self, refused: Sequence[Refused]) -> None:
        super().__init__("; ".join(map(str, refused)))
        self.refused = tuple(refused)


class Socket(NamedTuple):
    """A socket to listen on: a unix socket with a path, or inet or inet6 with a port and a host (empty: any)."""

    family: Literal["unix", "inet", "inet6"]
    path: Path | None = None
    port: int = 0
    host: str = ""


def parse_socket(text: str) -> Socket:
    """Read libmilter's socket syntax: `unix:PATH`, `local:PATH`, `inet:PORT@HOST`, `inet6:PORT@HOST`.

    The source is smfi_setconn in libmilter's documentation. Raises Refused.
    """
    family, _, rest = text.partition(":")
    if family in ("unix", "local") and rest.startswith("/"):
        if len(rest.encode()) > 90:  # sun_path holds 108 bytes, and the temporary name is longer than the public one
            raise Refused("the path of a unix socket is limited to 90 bytes", "choose a shorter path")
        if rest.endswith("/"):
            raise Refused("the path of a unix socket ends in a name, not in /", f'write "unix:{rest}milter.sock"')
        return Socket("unix", path=Path(rest))
    if family in ("unix", "local"):
        fix = 'write the whole path, such as "unix:/var/spool/postfix/undisclosed/milter.sock"'
        raise Refused("a relative path would depend on where the daemon is started", fix)
    if family in ("inet", "inet6") and (match := re.fullmatch(r"([0-9]{1,5})(?:@(\S+))?", rest)):
        port, host = int(match[1]), match[2] or ""
        if re.search(r"[A-Za-z]:[0-9]|^[0-9]+(?:\.[0-9]+){3}:", host):
            raise Refused("libmilter writes PORT@HOST: the host carries no port", f'write "{family}:{port}@127.0.0.1"')
        if 0 < port < 65536:
            return Socket("inet6" if family == "inet6" else "inet", port=port, host=host)
        raise Refused("there is no such port", f'write a port from 1 to 65535, such as "{family}:8899@127.0.0.1"')
    if match := re.fullmatch(r"(?:inet6?:)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]+)", text):  # as Postfix writes it
        fix = f'write the port first: "inet:{match[2]}@{match[1]}"'
        raise Refused("that is Postfix's way to write a socket, this setting takes libmilter's", fix)
    fix = 'write "unix:/var/spool/postfix/undisclosed/milter.sock" or "inet:8899@127.0.0.1"'
    raise Refused("not a socket in libmilter's syntax", fix)


def _socket(text: str) -> str:
    parse_socket(text)
    return text


_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"


def _domain_pattern(text: str) -> str:
    pattern = text.strip()
    if pattern.startswith("*."):
        raise Refused("stars are for senders", f'write "{pattern[1:]}" for every domain below {pattern[2:]}')
    if "@" in pattern:
        raise Refused("an address is no domain", f'write "{pattern.rpartition("@")[2]}"')
    bare = domains.to_ascii(pattern.removeprefix("."))
    if len(bare) > domains.MAX_NAME or not re.fullmatch(rf"(?:{_LABEL}\.)*{_LABEL}", bare):
        fix = 'write a domain alone: "example.org", or ".example.org" for every domain below it'
        raise Refused("not a domain name", fix)
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+){3}", bare):
        raise Refused("an IP address is no domain", "leave it out: clients are named in scope.networks")
    return "." + bare if pattern.startswith(".") else bare


def _sender_pattern(text: str) -> str:
    """An envelope sender or a glob. One that could never match is refused: the rule would silently do nothing."""
    pattern = text.strip()
    if pattern == NULL_SENDER:
        return pattern
    if not pattern:
        raise Refused("an empty sender", f'write "{NULL_SENDER}" for the null sender, or "*" for all senders')
    if match := re.search(r"<([^<>]*)>\s*$", pattern):
        raise Refused("envelope senders are written without name and angle brackets", f'write "{match[1]}"')
    if re.search(r'^[^"]*[\s,;]', pattern):
        raise Refused("a blank, comma or semicolon: one entry is one sender", 'write several as ["…", "…"]')
    if pattern.startswith("@"):
        raise Refused("no sender begins with @", f'write "*{pattern}" for all senders there')
    if "@" not in pattern and "*" not in pattern:
        fix = f'write an address such as "newsletter@{pattern}", or "*@{pattern}" for all senders there'
        raise Refused("can match no envelope sender: there is no @ in it", fix)
    if any(not label.isascii() and re.search(r"[*?]", label) for label in pattern.rpartition("@")[2].split(".")):
        fix = 'write that part of the domain as DNS has it ("xn--…"), or replace it by "*"'
        raise Refused("a star in a part of a domain with letters that are not ASCII", fix)
    return pattern


def _field_name(text: str) -> str:
    if not re.fullmatch(r"[!-9;-~]+", text):  # ftext, RFC 5322 section 3.6.8
        raise Refused("not a header field's name", 'write names such as "To", without the colon')
    if text.casefold() in ("from", "sender"):
        raise Refused("that field names the author, not the recipients", "leave From and Sender out of counting.fields")
    return text


def _network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    fix = 'write an address or a network in quotes, such as "192.0.2.0/24" or "2001:db8::/32"'
    if not isinstance(value, str):  # ipaddress accepts a number as an address, which is never meant
        raise Refused("not a network", fix)
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        wider = ip_network(value, strict=False)
    except ValueError:
        raise Refused("not an address or network", fix) from None
    raise Refused("the address has bits set beyond the prefix", f'write "{wider}", or the address without a prefix')


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,4}) ?([smhd])", value)):
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    raise Refused("not a duration", 'write a number of at most four digits and s, m, h or d, such as "5m"')


def duration_text(duration: timedelta) -> str:
    """A duration as the configuration writes it, in the largest unit that it is a multiple of."""
    seconds = int(duration.total_seconds())
    unit = next(unit for unit, size in reversed(_UNITS.items()) if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def _mode_bits(text: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise Refused("not a file mode", 'write it in octal, in quotes, such as "0660"')
    if int(text, 8) & 0o002:
        raise Refused("any local user could connect as Postfix", 'write "0660"')
    if int(text, 8) & 0o600 != 0o600:
        raise Refused("its owner could not use the socket", 'write "0660"')
    return text


def _endpoint(text: str) -> str:
    match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})|unix:/\S+", text)
    if text and not (match and (match[1] is None or 0 < int(match[1]) < 65536)):
        raise Refused("not a place to listen at", 'write "127.0.0.1:8080", "[::1]:8080" or "unix:/run/…"')
    return text


def _one_line(text: str) -> str:
    if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029" for char in text):
        raise Refused("a line end or control character", "write it in one line")
    return text


def _whole_path(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise Refused("a relative path would depend on where the daemon is started", 'write the whole path, from "/"')
    return path


def _reply_code(code: int) -> int:
    # 521 makes Postfix hang up on the client (smtpd_chat.c); clients take 552 for "too many recipients" and send the
    # message again in parts (RFC 5321, 4.5.3.1.10).
    if code in (521, 552):
        raise Refused(f"clients do not take {code} for the refusal of one message", "write 550 or 554")
    return code


def _database_url(text: str) -> str:
    if not re.fullmatch(r"sqlite:////\S+|postgresql(?:\+psycopg)?://\S*", text):
        fix = 'write "sqlite:////var/lib/undisclosed/journal.db" or "postgresql+psycopg://user@host/database"'
        raise Refused("not the URL of a database that the journal can use", fix)
    return text


def _base_url(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", text):
        raise Refused("not a web address", 'write "https://" and the name under which people reach the console')
    return text


def _language(text: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*", text):
        raise Refused("not a language tag", 'write tags such as "en" or "cy"')
    return text


def _enhanced_code(text: str) -> str:
    if not re.fullmatch(r"5\.(?:0|[1-9][0-9]{0,2})\.(?:0|[1-9][0-9]{0,2})", text):
        # Of another class, it would reach the client as "451 Server configuration problem".
        raise Refused("not an enhanced status code of class 5 (RFC 3463)", 'write one such as "5.7.0"')
    return text


Domain = Annotated[str, AfterValidator(_domain_pattern)]
SenderPattern = Annotated[str, Field(max_length=320), AfterValidator(_sender_pattern)]
FieldName = Annotated[str, Field(max_length=78), AfterValidator(_field_name)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Line = Annotated[str, AfterValidator(_one_line)]
Endpoint = Annotated[str, Field(max_length=200), AfterValidator(_endpoint)]
Whole = Annotated[int, Field(strict=True)]
WholePath = Annotated[Path, AfterValidator(_whole_path)]
SocketText = Annotated[str, AfterValidator(_one_line), AfterValidator(_socket)]
FileMode = Annotated[str, AfterValidator(_mode_bits)]
ReplyCode = Annotated[Whole, Field(ge=500, le=559), AfterValidator(_reply_code)]
EnhancedCode = Annotated[str, AfterValidator(_enhanced_code)]
DatabaseUrl = Annotated[str, Field(max_length=1000), AfterValidator(_database_url)]
BaseUrl = Annotated[str, Field(max_length=500), AfterValidator(_base_url)]
Language = Annotated[str, AfterValidator(_language)]
