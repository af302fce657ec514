"""The lines that attach writes into master.cf: the private listener for released mail, and a cleanup service for it.

Values only. The lines form a block between two comments, so that detach leaves every other byte as it was. The listener
turns off all that could refuse or change mail which was accepted once (smtpd(8), cleanup(8), postconf(5)). The milters
after ours see released mail, and so does a content_filter. Only root and Postfix's own user can connect, since the
socket is private (master(5)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from undisclosed.postfix.model import Finding, Level

LISTENER: Final = "undisclosed-release"
"""The private listener for released mail. `attach` writes it, the steward connects to it."""

CLEANUP: Final = "undisclosed-cleanup"
MILTERS: Final = "undisclosed_release_milters"
"""The parameter of main.cf with the milters that see released mail: all but ours."""

BEGIN: Final = b"# -- undisclosed: written by `undisclosed postfix attach` --\n"
END: Final = b"# -- undisclosed: end --\n"
NO_LINE_END: Final = b"# (the line above this block had no line end)\n"
"""Follows BEGIN where attach had to end the last line, so that detach takes that line end back."""

OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    LISTENER: {
        "syslog_name": "postfix/undisclosed-release",
        # All milters but ours, which has seen this mail.
        "smtpd_milters": f"${MILTERS}",
        "smtpd_milter_maps": "",
        "smtpd_proxy_filter": "",
        # Recipients are already expanded and headers checked: doing it again would repeat what they add.
        "receive_override_options": "no_address_mappings,no_header_body_checks",
        "cleanup_service_name": CLEANUP,
        "local_header_rewrite_clients": "",
        # Access: the permissions of private/.
        "mynetworks": "127.0.0.0/8",
        "smtpd_relay_restrictions": "permit_mynetworks,reject",
        "smtpd_client_restrictions": "",
        "smtpd_helo_restrictions": "",
        "smtpd_sender_restrictions": "",
        "smtpd_recipient_restrictions": "",
        "smtpd_data_restrictions": "",
        "smtpd_end_of_data_restrictions": "",
        "smtpd_reject_unlisted_sender": "no",
        "smtpd_reject_unlisted_recipient": "no",
        "smtpd_helo_required": "no",
        "smtpd_peername_lookup": "no",
        "smtpd_command_filter": "",
        "smtpd_upstream_proxy_protocol": "",
        "strict_rfc821_envelopes": "no",
        "soft_bounce": "no",
        # No TLS, no SASL, every ESMTP keyword.
        "smtpd_tls_security_level": "none",
        "smtpd_tls_wrappermode": "no",
        "smtpd_sasl_auth_enable": "no",
        "smtpd_discard_ehlo_keywords": "",
        "smtpd_discard_ehlo_keyword_address_maps": "",
        # No limits: the mail was accepted once.
        "message_size_limit": "0",
        "smtpd_recipient_limit": "1000000",
        "smtpd_client_connection_count_limit": "0",
        "smtpd_client_connection_rate_limit": "0",
        "smtpd_client_message_rate_limit": "0",
        "smtpd_client_recipient_rate_limit": "0",
        "smtpd_error_sleep_time": "0",
    },
    CLEANUP: {"syslog_name": "postfix/undisclosed-release", "message_size_limit": "0"},
}
"""The `-o` options of each service."""

COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    LISTENER: {"private": "-", "unprivileged": "-", "chroot": "n", "command": "smtpd"},
    CLEANUP: {"private": "n", "unprivileged": "-", "chroot": "n", "command": "cleanup"},
}


@dataclass(frozen=True)
class MasterLine:
    """A line of master.cf as postconf(1) shows it: its columns, and its `-o` options as they are written."""

    columns: Mapping[str, str]
    options: Mapping[str, str]

    def besides(self, other: MasterLine | None) -> str:
        """Where this line differs from another, in one line; the whole in short if there is no other."""
        # postconf prints the options behind the program in the column `command`.
        mine, theirs = (
            {**line.columns, "command": line.columns.get("command", "").partition(" ")[0]}
            for line in (self, other or self)
        )
        if other is None:
            return f"{mine['command']}, with {len(self.options)} options (-o)"
        columns = [f"{name} {value}" for name, value in mine.items() if theirs.get(name) != value]
        options = [f"-o {name}={value}" for name, value in self.options.items() if other.options.get(name) != value]
        return ", ".join([*columns, *options])


def _block(note: bytes) -> bytes:
    lines = []
    for name, options in OPTIONS.items():
        private, unprivileged, chroot, command = COLUMNS[name].values()
        lines.append(f"{name} unix {private} {unprivileged} {chroot} - {'0' if name == CLEANUP else '-'} {command}")
        lines += [f"  -o {option}={value}" for option, value in options.items()]
    return BEGIN + note + "".join(f"{line}\n" for line in lines).encode("ascii") + END


def with_listener(master_cf: bytes) -> bytes:
    """master.cf with our block at its end, in place of an older one."""
    rest = without_listener(master_cf)
    ended = rest.endswith(b"\n") or not rest
    return rest + (_block(b"") if ended else b"\n" + _block(NO_LINE_END))


def without_listener(master_cf: bytes) -> bytes:
    """master.cf without our block, which may be anywhere in it."""
    before, end, after = master_cf.rpartition(END)
    before, begin, block = before.rpartition(BEGIN)
    if not begin or not end:
        return master_cf
    return (before.removesuffix(b"\n") if block.startswith(NO_LINE_END) else before) + after


def findings(
    lines: Mapping[str, MasterLine], milters: str, wanted: str, looping: bool, directory: str
) -> Iterator[Finding]:
    """Whether held mail can be released.

    `lines` are the services of OPTIONS that master.cf has; `milters` is the value of MILTERS, `wanted` what it should
    be; `looping`: a content_filter returns mail to our milter.
    """
    fix = f"run: undisclosed postfix attach --config-dir {directory}"
    missing = [name for name in OPTIONS if name not in lines]
    if missing:
        text = f"master.cf has no {' and no '.join(missing)}: held mail cannot be released."
        yield Finding(Level.NOTE, text, fix)
        return
    changed = list(_drift(lines))
    if lines[LISTENER].columns.get("private") == "n":
        text = f"{LISTENER}/unix in master.cf is not private: mail that comes in there bypasses our milter."
        yield Finding(Level.PROBLEM, text, fix)
    for text in changed:
        yield Finding(Level.NOTE, text, fix)
    if milters.split() != wanted.split():
        text = f"{MILTERS} differs from smtpd_milters without ours: released mail passes other milters than other mail."
        yield Finding(Level.NOTE, text, fix)
    if looping:
        text = "content_filter returns released mail to our milter: mail released unchanged is held again."
        yield Finding(Level.NOTE, text, "add to the listener that it returns to: receive_override_options=no_milters")
    if not changed:
        yield Finding(Level.OK, f"{LISTENER}/unix takes released mail.")


def _drift(lines: Mapping[str, MasterLine]) -> Iterator[str]:
    for name, line in lines.items():
        for column, value in COLUMNS[name].items():
            if column != "private" and line.columns.get(column, "").split()[:1] != [value]:
                yield f"{name}/unix in master.cf: {column} is {line.columns.get(column)} instead of {value}."
        for option in sorted({*OPTIONS[name], *line.options}):
            there, wanted = line.options.get(option), OPTIONS[name].get(option)
            if there != wanted:
                state = "is not set" if there is None else f"is {there or '(empty)'}"
                wanted_text = "no such option" if wanted is None else wanted or "an empty value"
                yield f"{name}/unix in master.cf: {option} {state}; attach writes {wanted_text}."
