"""Postfix configurations as data, and what is found in them: sound where a test does not say otherwise."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from undisclosed.policy.types import parse_socket
from undisclosed.postfix.assessment import Expected, assess
from undisclosed.postfix.milter_lists import our_milter
from undisclosed.postfix.model import Finding, Level, PostfixConfig, Service
from undisclosed.postfix.reachability import Account, Place, Step, targets

QUEUE = "/var/spool/postfix"
SOCKET = f"{QUEUE}/undisclosed/milter.sock"
OURS = our_milter(parse_socket(f"unix:{SOCKET}"), [QUEUE], "tempfail")
US = OURS.element
POSTFIX = Account("postfix", 101, frozenset({108}))
REACHED = Place(
    "socket",
    (
        Step(QUEUE, 0o755, 0, 0),
        Step(f"{QUEUE}/undisclosed", 0o2750, 990, 108),
        Step(SOCKET, 0o660, 990, 108),
    ),
    answers=True,
)

MAIN: dict[str, str] = {
    "smtpd_milters": US,
    "non_smtpd_milters": US,
    "cleanup_service_name": "cleanup",
    "content_filter": "",
    "enable_long_queue_ids": "yes",
    "internal_mail_filter_classes": "",
    "mail_owner": "postfix",
    "milter_default_action": "tempfail",
    "milter_mail_macros": "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
    "milter_protocol": "6",
    "mynetworks": "127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128",
    "queue_directory": QUEUE,
    "receive_override_options": "",
    "smtpd_milter_maps": "",
    "smtpd_proxy_filter": "",
    "smtpd_recipient_restrictions": "",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
    "smtpd_restriction_classes": "",
    "smtpd_sasl_auth_enable": "no",
    "soft_bounce": "no",
}
"""A sound main.cf of Debian's making, with our milter attached."""

SERVICES = ("smtp/inet/smtpd", "submission/inet/smtpd", "pickup/unix/pickup", "cleanup/unix/cleanup")


def postfix_config(
    main: dict[str, str] | None = None,
    services: dict[str, dict[str, str]] | None = None,
    chroot: bool = True,
) -> PostfixConfig:
    """A sound configuration with some values of main.cf, and of services, laid over it.

    A service is named `name/type/program`; an unknown one is added.
    """
    values = MAIN | (main or {})
    own: dict[str, dict[str, str]] = {label: {} for label in SERVICES} | (services or {})
    made = []
    for label, overrides in own.items():
        name, kind, program = label.split("/")
        made.append(Service(name, kind, program, chroot, values | overrides, frozenset(overrides)))
    return PostfixConfig("/etc/postfix", values, tuple(made))


def findings(
    configuration: PostfixConfig,
    *,
    enforce: bool = True,
    networks: str = "127.0.0.0/8 ::1/128",
    authenticated: bool = True,
    place: Place = REACHED,
    account: Account | None = POSTFIX,
) -> list[Finding]:
    """The findings for a configuration, with every socket in the same state."""
    ours = OURS if enforce else replace(OURS, default_action="accept")
    expected = Expected(ours, enforce, tuple(ip_network(word) for word in networks.split()), authenticated)
    return assess(configuration, expected, dict.fromkeys(targets(configuration, ours), place), account)


def texts(found: list[Finding], level: Level) -> list[str]:
    """The sentences of one level."""
    return [finding.text for finding in found if finding.level is level]


def accepting() -> dict[str, str]:
    """Both lists as attach writes them in monitor mode."""
    element = replace(OURS, default_action="accept").element
    return {"smtpd_milters": element, "non_smtpd_milters": element}
