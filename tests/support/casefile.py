"""Cases: one message each, a policy, and the expected result, which is the same for every player.

A case is a short text file. It begins with a sentence about its subject. These sections follow, in this order:

    -- policy --      TOML, laid over default.toml: section by section, key by key; [[rules]] replace the rules
    -- file NAME --   a file beside the configuration, such as a list of senders
    -- envelope --    `sender`, `recipients`, `client` (its address), `port` (0: sendmail(1)), `login`, MAIL's `options`
    -- message --     what the client sends, byte by byte
    -- expected --    `action`, `stage` (eoh or eom: when the milter answers), `rule`, `count`; if they differ from the
                      default: `scope`, `obstacle`, `outcome`, `organisations`, `author` (an address that may stay in
                      Reply-To), `internal` (the domains whose addresses may stay visible)
    -- reply --       every line of the reply to a rejected message, with {reference} in its place
    -- outgoing --    the delivered message after a rewrite: the header line by line, then the body

All but message and expected may be left out; without `outgoing` a message that is not rejected stays unchanged.
In a message `{{byte FC}}` is that byte, and a line `{{repeat 9 text}}` is nine lines.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import toml
from support.paths import DATA
from undisclosed.decision.edits import Edit, apply
from undisclosed.decision.message import Field

FOLDER = DATA / "cases"

SECTIONS = ("policy", "file", "envelope", "message", "expected", "reply", "outgoing")
ENVELOPE = {
    "sender": "clerk@council.test",
    "recipients": "parent@family.test",
    "client": "127.0.0.1",
    "port": "40000",
    "login": "",
    "options": "",
}
EXPECTED = ("action", "stage", "rule", "count")
DEFAULTS = {"scope": "outgoing", "obstacle": "none", "author": "", "internal": "council.test"}
OUTCOMES = {
    "accept": "accepted",
    "warn": "accepted",
    "rewrite": "rewritten",
    "split": "held",
    "delay": "held",
    "quarantine": "held",
    "reject": "rejected",
}
ADDED_BY_POSTFIX = ("received", "message-id", "date", "from")

_SECTION = re.compile(rb"^-- ([a-z]+)(?: ([\w.-]+))? --$", re.MULTILINE)


class CaseError(ValueError):
    """A case file that lacks something, or has something unknown."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case; the attributes are the sections of its file."""

    name: str
    about: str
    policy: Mapping[str, Any]
    files: Mapping[str, bytes]
    sender: str
    recipients: tuple[str, ...]
    client: str
    port: int
    login: str
    options: tuple[str, ...]
    message: bytes
    expected: Mapping[str, str]
    reply: tuple[str, ...]
    outgoing: bytes | None
    """The delivered or held message, with LF line ends; None if the message is rejected."""

    @property
    def setting(self) -> tuple[str, tuple[tuple[str, bytes], ...]]:
        """The configuration of this case, for comparison with another's."""
        return toml.dumps(self.policy), tuple(self.files.items())

    def configure(self, path: Path, **over: Mapping[str, Any]) -> None:
        """Write the configuration, with the sections `over` on top of it, and the files that it names."""
        path.write_text(toml.dumps(merged(self.policy, over)))
        for name, text in self.files.items():
            path.with_name(name).write_bytes(text)


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of a case, expected or observed: compared as a whole."""

    facts: Mapping[str, object]
    """Values from the log line of the message."""
    stage: str
    outcome: str
    reply: tuple[str, ...]
    header: tuple[str, ...]
    body: bytes


def load(path: Path) -> Case:
    """Read a case file. Raises CaseError."""
    try:
        return _parse(path)
    except (CaseError, ValueError, KeyError) as error:
        raise CaseError(f"{path.name}: {error}") from error


def every_case() -> list[Case]:
    """All cases, those with the same configuration next to each other."""
    return sorted(map(load, sorted(FOLDER.glob("*.case"))), key=lambda case: case.setting)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration laid over another: sections key by key, all else replaced."""
    result = dict(below)
    for key, value in above.items():
        result[key] = {**result.get(key, {}), **value} if isinstance(value, Mapping) else value
    return result


# -- reading


def _parse(path: Path) -> Case:
    about, sections, files = _sections(path.read_bytes())
    given = _pairs(sections.get("envelope", b""), known=ENVELOPE)
    envelope = {**ENVELOPE, **given}
    default = tomllib.loads((FOLDER / "default.toml").read_text())
    policy = merged(default, tomllib.loads(sections.get("policy", b"").decode()))
    expected = DEFAULTS | _pairs(
        sections["expected"], known=(*EXPECTED, *DEFAULTS, "outcome", "organisations"), needed=EXPECTED
    )
    if expected["stage"] not in ("eoh", "eom"):
        raise CaseError("stage is eoh or eom")
    usual = OUTCOMES[expected["action"]] if policy.get("mode") != "monitor" else "accepted"
    expected.setdefault("outcome", usual)
    message = _expand(sections["message"])
    if ("outgoing" in sections) != (expected["outcome"] == "rewritten"):
        raise CaseError("a rewrite, and nothing else, has an outgoing section")
    unchanged = message if expected["outcome"] in ("accepted", "held") else None
    return Case(
        name=path.stem,
        about=about,
        policy=policy,
        files=files,
        sender=envelope["sender"].removeprefix("<").removesuffix(">"),
        recipients=tuple(envelope["recipients"].split(", ")),
        client=envelope["client"],
        port=int(envelope["port"]),
        login=envelope["login"],
        options=tuple(envelope["options"].split()),
        message=message,
        expected=expected,
        reply=tuple(sections.get("reply", b"").decode("ascii").split("\n")[:-1]),
        outgoing=_expand(sections["outgoing"]) if "outgoing" in sections else unchanged,
    )


def _sections(raw: bytes) -> tuple[str, dict[str, bytes], dict[str, bytes]]:
    """The first sentence, the sections, and the files beside the configuration."""
    about, *rest = _SECTION.split(raw)
    sections: dict[str, bytes] = {}
    files: dict[str, bytes] = {}
    for word, name, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        section, content = word.decode(), text.strip(b"\n") + b"\n"
        if section not in SECTIONS or (name is None) == (section == "file"):
            raise CaseError(f"no such section: {section}")
        if section in sections:
            raise CaseError(f"two sections {section}")
        if section == "file":
            files[name.decode()] = content
        else:
            sections[section] = content
    if not about.strip():
        raise CaseError("it does not say what it shows")
    if list(sections) != [section for section in SECTIONS if section in sections]:
        raise CaseError("its sections are in another order than all the others'")
    return " ".join(about.decode().split()), sections, files


def _pairs(text: bytes, *, known: Iterable[str], needed: Iterable[str] = ()) -> dict[str, str]:
    """`key: value` lines."""
    pairs = {key: value.strip() for key, _, value in (line.partition(":") for line in text.decode().splitlines())}
    pairs.pop("", None)
    if unknown := pairs.keys() - set(known):
        raise CaseError(f"unknown: {', '.join(sorted(unknown))}")
    if missing := set(needed) - pairs.keys():
        raise CaseError(f"missing: {', '.join(sorted(missing))}")
    return pairs


def _expand(text: bytes) -> bytes:
    text = re.sub(rb"^\{\{repeat (\d+) (.*)\}\}\n", lambda m: (m[2] + b"\n") * int(m[1]), text, flags=re.MULTILINE)
    return re.sub(rb"\{\{byte ([0-9A-F]{2})\}\}", lambda m: bytes.fromhex(m[1].decode()), text)


# -- comparing


def internal(case: Case) -> tuple[str, ...]:
    """The domains whose addresses may stay visible."""
    return tuple(case.expected["internal"].split(", "))


def wanted(case: Case) -> Seen:
    """The expected result, for every player."""
    facts: dict[str, object] = {
        key: None if case.expected[key] == "none" else case.expected[key]
        for key in ("action", "rule", "scope", "obstacle")
    }
    facts |= {key: int(case.expected[key]) for key in ("count", "organisations") if key in case.expected}
    reply = case.reply
    if case.expected["outcome"] == "rejected" and not reply:
        reply = _outline(case, ["550 {reference}"])
    header, body = _halves(case, case.outgoing)
    return Seen(facts, case.expected["stage"], case.expected["outcome"], reply, header, body)


def seen(
    case: Case, line: Mapping[str, Any], *, outcome: str, stage: str, reply: Iterable[str] = (), message: bytes | None
) -> Seen:
    """The observed result: the log line, the outcome, its stage, the reply lines, and the message afterwards."""
    facts = {key: line.get(key) for key in wanted(case).facts}
    lines = [text.replace(line.get("reference") or "\0", "{reference}") for text in reply]
    header, body = _halves(case, message)
    # If log line and outcome differ, the comparison shows both.
    outcome = outcome if outcome == line.get("outcome") else f"{outcome}, and the log says {line.get('outcome')}"
    return Seen(facts, stage, outcome, tuple(lines) if case.reply else _outline(case, lines), header, body)


def _outline(case: Case, reply: list[str]) -> tuple[str, ...]:
    """Of a reply whose words are another case's: its codes, and whether it ends with the reference."""
    return (*sorted({line[:3] for line in reply}), *(line[-11:] for line in reply[-1:]))


def _halves(case: Case, message: bytes | None) -> tuple[tuple[str, ...], bytes]:
    """The lines of the header and the body of a message."""
    if message is None:
        return (), b""
    return header_lines(message, case.message), message.replace(b"\r\n", b"\n").partition(b"\n\n")[2]


def header_lines(message: bytes, sent: bytes) -> tuple[str, ...]:
    """The lines of a message's header, without the fields that Postfix added to the one that was sent."""
    names = {name for name, _ in raw_fields(sent)}
    lines = [line for name, line in raw_fields(message) if name in names or name not in ADDED_BY_POSTFIX]
    return tuple(b"\n".join(lines).decode("utf-8", "surrogateescape").split("\n"))


def raw_fields(message: bytes) -> Iterator[tuple[str, bytes]]:
    """The fields of a header: the name in lower case, and the whole field as it stands, with LF in its folds."""
    header = message.replace(b"\r\n", b"\n").partition(b"\n\n")[0].removesuffix(b"\n")
    for line in re.split(rb"\n(?![ \t])", header):
        yield line.partition(b":")[0].strip().lower().decode("ascii", "backslashreplace"), line


# -- for the players that have no Postfix


def header_events(message: bytes) -> list[tuple[bytes, bytes]]:
    """The header as Postfix tells it to a milter: no blanks around names, none before values, folds with LF."""
    fields = []
    for _, line in raw_fields(message):
        name, _, value = line.partition(b":")
        fields.append((name.strip(), value.lstrip()))
    return fields


def body_events(message: bytes, size: int = 65535) -> list[bytes]:
    """The body as Postfix tells it: with CRLF line ends, in pieces."""
    body = message.partition(b"\n\n")[2].replace(b"\n", b"\r\n")
    return [body[start : start + size] for start in range(0, len(body), size)]


def edited(message: bytes, edits: Iterable[Edit]) -> bytes:
    """The message with its header edited, what no edit touches byte by byte as it was."""
    lines = {}
    fields = []
    for (name, value), (_, line) in zip(header_events(message), raw_fields(message), strict=True):
        field = Field(name.decode("ascii"), value.decode("utf-8", "surrogateescape"))
        fields.append(field)
        lines[id(field)] = line
    after = [lines.get(id(field)) or f"{field.name}: {field.value}".encode("ascii") for field in apply(fields, edits)]
    return b"\n".join(after) + b"\n\n" + message.partition(b"\n\n")[2]
