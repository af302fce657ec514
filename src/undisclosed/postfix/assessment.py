"""Whether outgoing mail can bypass our milter, as findings about a Postfix configuration.

Values in, values out. Sources: postconf(5), master(5), MILTER_README, FILTER_README and SMTPD_PROXY_README of Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from undisclosed.postfix.milter_lists import ListError, Milter, OurMilter, milters
from undisclosed.postfix.model import Finding, Level, PostfixConfig, Service, ServiceGroup, names
from undisclosed.postfix.mynetworks import Network, relaying
from undisclosed.postfix.reachability import Account, Place, check_reachability


@dataclass(frozen=True)
class Expected:
    """The requirements of the policy for Postfix."""

    ours: OurMilter
    enforce: bool
    networks: tuple[Network, ...]
    authenticated: bool


SIGNERS = r"dkim|:8891\b|:8892\b|rspamd|:11332\b"
"""Milters that make DKIM signatures, or may."""

KNOWN_MILTERS = {
    r"opendkim|:8891\b": "OpenDKIM, which signs",
    r"dkimpy|:8892\b": "dkimpy-milter, which signs",
    r"dkim": "a DKIM signer",
    r"rspamd|:11332\b": "rspamd, which may sign or quarantine",
    r"openarc|:8894\b": "OpenARC, which seals",
    r"opendmarc|:8893\b": "OpenDMARC",
    r"clamav|clamd": "ClamAV",
    r"spamass": "SpamAssassin",
    r"amavis": "amavis",
}
"""Names of other milters, by a pattern of their endpoint: customary names, and the ports of the packages."""


def assess(
    config: PostfixConfig,
    expected: Expected,
    places: Mapping[str, Place],
    account: Account | None,
) -> list[Finding]:
    """All findings but those about releases. `places`: the result of `probe` for each of `reachability.targets()`."""
    return [
        *_lists(config, expected),
        *_switched_off(config),
        *_protocol(config, expected),
        *check_reachability(config, expected.ours, places, account),
        *_networks(config, expected),
        *_other_settings(config, expected),
    ]


def check_mode(enforce: bool) -> Iterator[Finding]:
    """Whether the milter stops anything at all."""
    if not enforce:
        text = 'mode = "monitor": the milter only records. Mail passes unchanged, whatever the rules say.'
        yield Finding(Level.NOTE, text, 'set mode = "enforce" when the rules are right')


# -- the lists ---------------------------------------------------------------------------------------------------------


def _lists(config: PostfixConfig, expected: Expected) -> Iterator[Finding]:
    for parameter in ("smtpd_milters", "non_smtpd_milters"):
        services = [service for service, list_name in config.entrances if list_name == parameter]
        if not services:
            absent = "no smtpd runs" if parameter == "smtpd_milters" else "no pickup or qmqpd runs"
            yield Finding(Level.OK, f"{parameter}: {absent} here, so no mail comes in that way.")
        returning = [service for service in services if _takes_mail_back(config, service)]
        for group in config.groups(parameter, [service for service in services if service not in returning]):
            yield from _list(config, expected, group)
        yield from (_filtered_mail(expected, service) for service in returning)


def _list(config: PostfixConfig, expected: Expected, group: ServiceGroup) -> Iterator[Finding]:
    where = f"{group.parameter} in {group.where}"
    fix = group.remedy(f"run: undisclosed postfix attach --config-dir {config.directory}")
    if not group.inherited:
        fix += f"; or put {expected.ours.element} first in it"
    try:
        elements = milters(group.value)
    except ListError as error:
        yield Finding(
            Level.PROBLEM,
            f"{where} cannot be read: {error}.",
            "correct the value, then run: undisclosed postfix attach",
        )
        return
    ours = [place for place, milter in enumerate(elements) if expected.ours.matches(milter)]
    if not ours:
        yield Finding(Level.PROBLEM, f"{where} does not name our milter: mail that comes in there bypasses it.", fix)
        return
    if ours[0] > 0:
        before = ", ".join(_called(milter) for milter in elements[: ours[0]])
        harm = "A message that one of them signs or quarantines reaches ours too late or never"
        yield Finding(Level.PROBLEM, f"{where} has other milters before ours: {before}. {harm}.", fix)
    else:
        yield Finding(Level.OK, f"{where} has our milter first.")
    if len(ours) > 1:
        yield Finding(Level.NOTE, f"{where} names our milter {len(ours)} times.", fix)
    own = elements[ours[0]].attribute("default_action")
    general = config.groups("milter_default_action", group.services)
    for action in general[:1] if own else general:  # its own default_action overrides
        yield from _action(expected, elements[ours[0]], where, action, fix)
    if own and own != "accept" and any(action.value == "accept" for action in general):
        text = f"{where}: milter_default_action is accept. It applies to other milters; ours has default_action={own}."
        yield Finding(Level.NOTE, text, "keep the default_action in our milter's group")


def _called(milter: Milter) -> str:
    for pattern, name in KNOWN_MILTERS.items():
        if re.search(pattern, milter.endpoint, re.IGNORECASE):
            return f"{milter.endpoint} ({name})"
    return milter.endpoint


def _action(expected: Expected, milter: Milter, where: str, general: ServiceGroup, fix: str) -> Iterator[Finding]:
    own = milter.attribute("default_action")
    action = own or general.value
    if own:
        text = f"{where}: our milter has default_action={own}"
    else:
        text = f"{where}: our milter has no default_action, and milter_default_action is {action} for {general.names}"
    if expected.enforce and action in ("accept", "quarantine"):
        harm = {
            "accept": "while it does not answer, mail goes out unchecked",
            "quarantine": "while it does not answer, mail is held unchecked, and postsuper -H releases it unchanged",
        }[action]
        yield Finding(Level.PROBLEM, f"{text}: {harm}.", fix)
    elif not expected.enforce and action != "accept":
        yield Finding(Level.NOTE, f"{text}: in monitor mode mail should pass even while it does not answer.", fix)
    elif expected.enforce and action != "tempfail":
        yield Finding(Level.NOTE, f"{text}: while it does not answer, clients are not told to try again later.", fix)
    elif own is None:
        yield Finding(Level.NOTE, f"{text}: changing that for another milter would change it for ours.", fix)


# -- mail returned by a content filter ---------------------------------------------------------------------------------


def _takes_mail_back(config: PostfixConfig, service: Service) -> bool:
    """Whether a service is the listener to which a content_filter returns mail (FILTER_README)."""
    filtering = [other for other in config.services if other.settings.get("content_filter")]
    if service.program != "smtpd" or not service.local_only or not filtering:
        return False
    parameters = ("smtpd_milters", "receive_override_options", "content_filter")
    return any(service.settings.get(name, "") != config.main.get(name, "") for name in parameters)


def filter_returns_mail_to_us(config: PostfixConfig, expected: Expected) -> bool:
    """Whether a content_filter returns mail to our milter. `_lists` reports lists that cannot be read."""
    for service in config.running("smtpd"):
        try:
            elements = milters(service.settings["smtpd_milters"])
        except ListError:
            continue
        if (
            _takes_mail_back(config, service)
            and any(map(expected.ours.matches, elements))
            and not _without_milters(service)
        ):
            return True
    return False


def _without_milters(service: Service) -> bool:
    return "no_milters" in re.split(r"[\s,]+", service.settings.get("receive_override_options", ""))


def _filtered_mail(expected: Expected, service: Service) -> Finding:
    listener = f"master.cf, {service.label} takes mail back from content_filter"
    try:
        named = any(expected.ours.matches(milter) for milter in milters(service.settings["smtpd_milters"]))
    except ListError as error:
        return Finding(Level.PROBLEM, f"{listener}; its smtpd_milters cannot be read: {error}.", "correct the value")
    if named and not _without_milters(service):
        text = f"{listener} and passes it to our milter a second time, as mail from this host."
        return Finding(Level.NOTE, text, f"add to {service.label}: -o receive_override_options=no_milters")
    text = f"{listener} and does not pass it to our milter again. Mail from any other client of it bypasses ours."
    return Finding(Level.NOTE, text, "make sure that only the filter can connect to it")


# -- settings that turn milters off ------------------------------------------------------------------------------------


class Switch(NamedTuple):
    """A setting that takes mail past the milters: the programs that read it, when it acts, and the words."""

    parameter: str
    programs: tuple[str, ...]
    acts: Callable[[Service], bool]
    text: str
    remedy: str


def _is_set(parameter: str) -> Callable[[Service], bool]:
    return lambda service: bool(service.settings.get(parameter))


SWITCHES = (
    Switch(
        "receive_override_options",
        ("smtpd", "pickup", "qmqpd"),
        _without_milters,
        "receive_override_options has no_milters: mail that comes in there bypasses our milter.",
        "remove no_milters from receive_override_options",
    ),
    Switch(
        "smtpd_milter_maps",
        ("smtpd",),
        _is_set("smtpd_milter_maps"),
        "smtpd_milter_maps is set: for the clients in that table it replaces smtpd_milters, or turns milters off.",
        "empty smtpd_milter_maps: a table can take any client past our milter, and this command cannot read it",
    ),
    Switch(
        "smtpd_proxy_filter",
        ("smtpd",),
        _is_set("smtpd_proxy_filter"),
        "smtpd_proxy_filter is set: Postfix then shows milters the envelope only, and never the message.",
        "run that filter after the queue (content_filter), or as a milter",
    ),
)


def _switched_off(config: PostfixConfig) -> Iterator[Finding]:
    for switch in SWITCHES:
        acting = [service for service in config.running(*switch.programs) if switch.acts(service)]
        if switch.acts is _without_milters:  # `_filtered_mail` reports the listeners that take mail back
            acting = [service for service in acting if not _takes_mail_back(config, service)]
        for group in config.groups(switch.parameter, acting):
            yield Finding(Level.PROBLEM, f"{group.where}: {switch.text}", group.remedy(switch.remedy))


# -- the protocol ------------------------------------------------------------------------------------------------------


def _protocol(config: PostfixConfig, expected: Expected) -> Iterator[Finding]:
    reset = f"postconf -c {config.directory} -X"
    services = [service for service, _ in config.entrances]
    for group in config.groups("milter_protocol", services):
        version = re.match(r"\d+", group.value)
        if version is None or int(version[0]) < 6:
            text = f"milter_protocol in {group.where} is {group.value}: our milter needs 6."
            yield Finding(Level.PROBLEM, text, group.remedy(f"{reset} milter_protocol"))
    logins = [service for service in config.running("smtpd") if _yes(service.settings, "smtpd_sasl_auth_enable")]
    for group in config.groups("milter_mail_macros", logins if expected.authenticated else ()):
        if "auth_authen" not in re.split(r"[\s,{}]+", group.value):
            text = f"milter_mail_macros in {group.where} lacks {{auth_authen}}: our milter cannot see who has logged in"
            fix = group.remedy(f"{reset} milter_mail_macros")
            yield Finding(Level.PROBLEM, f"{text} and treats their mail as incoming.", fix)
    if logins and not expected.authenticated:
        text = f"{names(logins)}: clients may log in, but scope.authenticated is false:"
        fix = "set it to true, unless all of them send from scope.networks"
        yield Finding(Level.NOTE, f"{text} their mail passes unchecked unless it comes from scope.networks.", fix)


def _yes(values: Mapping[str, str], parameter: str) -> bool:
    return values.get(parameter, "").strip().casefold() == "yes"


# -- networks and other settings ---------------------------------------------------------------------------------------


def _networks(config: PostfixConfig, expected: Expected) -> Iterator[Finding]:
    for group in config.groups("mynetworks", config.running("smtpd")):
        found = relaying([service.settings for service in group.services], expected.networks)
        if found.outside:
            outside = ", ".join(str(network) for network in found.outside)
            text = f"mynetworks in {group.where} lets these relay, and scope.networks does not have them: {outside}."
            fix = "add them to scope.networks in the policy, or remove them from mynetworks"
            yield Finding(Level.PROBLEM, f"{text} Mail from there bypasses our milter.", fix)
        elif found.by_network and not found.unreadable:
            yield Finding(Level.OK, f"mynetworks in {group.where}: scope.networks has every network that may relay.")
        if found.unreadable:
            text = f"mynetworks in {group.where} names {', '.join(found.unreadable)}, which this command cannot read."
            yield Finding(Level.NOTE, text, "make sure that scope.networks has every network in it")
        if found.other_ways:
            text = f"{group.names}: clients may also relay by {', '.join(found.other_ways)}."
            yield Finding(Level.NOTE, text, "make sure that scope.networks has those clients")


def _other_settings(config: PostfixConfig, expected: Expected) -> Iterator[Finding]:
    if _yes(config.main, "enable_long_queue_ids"):
        yield Finding(Level.OK, "enable_long_queue_ids = yes: queue ids are not reused.")
    else:
        text = "enable_long_queue_ids is not yes: Postfix may later give the queue id of a held message to another one."
        yield Finding(Level.NOTE, text, f"run: undisclosed postfix attach --config-dir {config.directory}")
    if classes := config.main.get("internal_mail_filter_classes"):
        text = f"internal_mail_filter_classes = {classes}: Postfix's own notifications go through our milter too."
        yield Finding(Level.NOTE, text, "leave it empty unless that is intended")
    soft = [service for service, _ in config.entrances if _yes(service.settings, "soft_bounce")]
    if soft and expected.enforce:
        text = f"soft_bounce = yes ({names(soft)}): our refusals become temporary, and senders do not see them."
        yield Finding(Level.NOTE, text, "set soft_bounce = no")


def check_signer(release_milters: str, content_filter: str, enforce: bool) -> Iterator[Finding]:
    """Whether a milter behind ours signs: a rewrite and a release take out the signatures of our own domains."""
    if not enforce or re.search(SIGNERS, release_milters, re.IGNORECASE):
        return
    text = "no milter behind ours makes DKIM signatures (OpenDKIM, rspamd): mail whose addresses were hidden"
    signs = "the content filter or the next host" if content_filter else "the next host"
    yield Finding(
        Level.NOTE,
        f"{text} leaves unsigned, since hiding them takes out the signatures of your own domains.",
        f"add one behind ours in smtpd_milters, then run: undisclosed postfix attach; nothing, if {signs} signs",
    )
