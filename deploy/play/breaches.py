"""The two breaches that this project exists for, as the messages that caused them.

Both happened; the numbers are real, all else is invented. A county council wrote to the parents of ten schools,
one message a school, every address in To. A city council wrote to its home-educating families, every address in Cc.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from email.header import Header
from typing import NamedTuple

from play import people
from play.people import Person

SCHOOLS = {
    "Ysgol y Bryn": 95,
    "Ysgol Glan-yr-afon": 94,
    "Ysgol y Dderwen": 92,
    "Ysgol Pen-y-groes": 90,
    "Ysgol Maes-y-coed": 88,
    "Ysgol y Garreg Lwyd": 87,
    "Ysgol Tan-y-castell": 84,
    "Ysgol Bro Dŵr": 81,
    "Ysgol Cae'r Felin": 79,
    "Ysgol y Traeth": 76,
}
"""Each school and the number of parents' addresses in To: 866 in all."""

FAMILIES = 500


class Letter(NamedTuple):
    """One message: its envelope, the external people in its header, and the message itself (with LF)."""

    sender: str
    recipients: tuple[str, ...]
    people: tuple[Person, ...]
    message: bytes


class Breach(NamedTuple):
    """One breach: the organisation, a title, and all of its messages."""

    organisation: str
    domain: str
    title: str
    letters: tuple[Letter, ...]


def schools() -> Breach:
    """Ten messages of council.test, 866 parents in To, each parent in one of them."""
    parents = people.strangers(1)
    letters = tuple(
        _letter(
            sender="school.admissions@council.test",
            name="School Admissions",
            field="To",
            people=tuple(itertools.islice(parents, size)),
            colleague="education.welfare@council.test",
            subject=f"{school}: changes to school transport from Monday",
            number=number,
            body=TRANSPORT.format(school=school),
        )
        for number, (school, size) in enumerate(SCHOOLS.items(), 1)
    )
    return Breach(
        "Llŷn County Council", "council.test", "A county council writes to the parents of ten schools", letters
    )


def families() -> Breach:
    """One message of city.test, 500 home-educating families in Cc."""
    letter = _letter(
        sender="home.education@city.test",
        name="Home Education Team",
        field="Cc",
        people=tuple(itertools.islice(people.strangers(2), FAMILIES)),
        colleague="home.education@city.test",
        subject="New guidance for families who educate at home",
        number=1,
        body=GUIDANCE,
    )
    title = "A city council sends guidance to its home-educating families"
    return Breach("Example City Council", "city.test", title, (letter,))


def _letter(
    *,
    sender: str,
    name: str,
    field: str,
    people: Sequence[Person],
    colleague: str,
    subject: str,
    number: int,
    body: str,
) -> Letter:
    """A message as a mail client sends it: the external people in `field`, a colleague in the other of To and Cc."""
    fields = {field: ",\n ".join(person.entry for person in people), "Cc" if field == "To" else "To": colleague}
    header = [
        f"From: {name} <{sender}>",
        f"To: {fields['To']}",
        f"Cc: {fields['Cc']}",
        f"Subject: {_encoded(subject)}",
        f"Message-ID: <{name.lower().replace(' ', '-')}.{number}@{sender.partition('@')[2]}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    ]
    message = "\n".join([*header, "", body]).encode()
    return Letter(sender, (*(person.address for person in people), colleague), tuple(people), message)


def _encoded(subject: str) -> str:
    return subject if subject.isascii() else Header(subject, "utf-8").encode()


TRANSPORT = """\
Annwyl rieni a gwarcheidwaid / Dear parents and carers,

The school transport contract for {school} changes on Monday. Buses will leave
ten minutes earlier than before. Please bring the new pass, which your child
receives this week.

Yn gywir / Yours faithfully,
School Admissions
"""

GUIDANCE = """\
Dear families,

Please find below the new guidance on elective home education, and whom to ask
if you would like a visit.

Yours faithfully,
Home Education Team
"""
