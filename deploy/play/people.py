"""Invented people: names that are common in Wales, and mail addresses below reserved domains."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from email.header import Header
from typing import NamedTuple

GIVEN = """
    Aled Alun Amina Angharad Anwen Arwel Bethan Bronwen Callum Carys Catrin Ceri Chloe Daniel Delyth Dewi Dylan Eirian
    Eleri Elin Emyr Fatima Ffion Gareth Gemma Geraint Glenys Gwenllïan Gwyn Hannah Hefin Heledd Huw Ioan Iwan Joanna
    Karen Kevin Llinos Lowri Mair Mared Marek Meinir Meleri Menna Mohammed Nia Nerys Non Oksana Olwen Owain Paul Priya
    Rhian Rhodri Rhŷs Sara Seán Sharon Siân Siôn Steffan Tegwen Tŵm Zoë
""".split()  # noqa: SIM905  one name a line in a list literal would be 70 lines

FAMILY = """
    Ahmed Begum Bevan Bowen Clarke Davies Edwards Ellis Evans Griffiths Gruffydd Harris Hughes Humphreys James Jenkins
    Jones Kowalska Lewis Llewelyn Lloyd Morgan Morris O'Brien Owen Parry Patel Powell Price Pritchard Pugh Rees Rhys
    Richards Roberts Rowlands Smith Thomas Vaughan Walters Watkins Williams
""".split()  # noqa: SIM905  as above

PERSONAL_MAIL = (
    "mail-one.example",
    "inbox-two.example",
    "post-three.example",
    "letters.example",
    "broadband.example",
)
"""Invented providers of personal mail, for `counting.personal_mail_add`."""


class Person(NamedTuple):
    """A name, a mail address at a provider or at the family's own domain, and how an address book writes the two."""

    name: str
    address: str
    entry: str


def strangers(seed: int) -> Iterator[Person]:
    """An endless sequence of people with distinct addresses; the same one for the same seed."""
    choose = random.Random(seed)
    taken: set[str] = set()
    while True:
        given, family = choose.choice(GIVEN), choose.choice(FAMILY)
        address = _address(choose, given, family)
        if address not in taken:
            taken.add(address)
            name = f"{given} {family}"
            yield Person(name, address, _entry(choose, given, family, address))


def _address(choose: random.Random, given: str, family: str) -> str:
    first, last = _ascii(given), _ascii(family)
    year = choose.randrange(70, 99)
    if choose.random() < 0.06:
        return f"{first}@{last}-{choose.choice(('family', 'home', 'crafts', 'farm'))}{year}.example"
    local = choose.choice((f"{first}.{last}", f"{first}.{last}{year}", f"{first[0]}{last}{year}", f"{last}{year}"))
    return f"{local}@{choose.choice(PERSONAL_MAIL)}"


def _ascii(name: str) -> str:
    """A name as part of a mail address: no accents, no apostrophe, lower case."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "".join(filter(str.isalpha, letters)).lower()


def _entry(choose: random.Random, given: str, family: str, address: str) -> str:
    """One entry of a recipient field, in one of the forms that address books and spreadsheets produce."""
    form = choose.random()
    if form < 0.35:
        return address
    if form < 0.42:
        return f"'{address}' <{address}>"
    if form < 0.65:
        return f"{_phrase(f'{family}, {given}')} <{address}>"
    return f"{_phrase(f'{given} {family}')} <{address}>"


def _phrase(text: str) -> str:
    """A display name: an encoded word if it is not ASCII (RFC 2047), quoted if it is not only letters and blanks."""
    if not text.isascii():
        return Header(text, "utf-8").encode()
    return text if text.replace(" ", "").isalpha() else f'"{text}"'
