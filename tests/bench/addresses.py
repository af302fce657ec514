#!/usr/bin/env python3
"""The cost of reading addresses: against the standard library, by the length of a field, and on hostile repeats.

Run `.venv/bin/python tests/bench/addresses.py`. Every line shows what was measured and what is demanded; the exit
status is 1 if a demand was missed. Times are processor time, the best of several runs, so that a busy machine changes
them little.
"""

from __future__ import annotations

import base64
import platform
import sys
import time
from collections.abc import Callable
from email.utils import getaddresses

from undisclosed.addresses import addresses, mailboxes

FASTER_THAN_LIBRARY = 8.0
TEN_TIMES_AS_LONG = 12.0
FOUR_TIMES_AS_MANY = 9.0


def _encoded_b(number: int) -> str:
    return f"=?utf-8?b?{base64.b64encode(f'Zoë Person {number}'.encode()).decode()}?="


FORMS: dict[str, Callable[[int], str]] = {
    "plain": lambda n: f"person{n}@family{n}.test",
    "named": lambda n: f"Ann Person{n} <person{n}@family{n}.test>",
    "quoted": lambda n: f'"Person{n}, Ann" <person{n}@family{n}.test>',
    "encoded (Q)": lambda n: f"=?utf-8?q?Zo=C3=AB_Person_{n}?= <person{n}@family{n}.test>",
    "encoded (B)": lambda n: f"{_encoded_b(n)} <person{n}@family{n}.test>",
    "address as name": lambda n: f'"person{n}@family{n}.test" <person{n}@family{n}.test>',
    "very short": lambda n: f"p{n}@x.test",
}
# No demand is set for these: they take the tolerant scan from their first character on.
TOLERANT: dict[str, Callable[[int], str]] = {
    "comments": lambda n: f"person{n}(Ann)@family{n}.test (Person)",
    "internationalised": lambda n: f"Zoë <zoë{n}@fämily{n}.test>",
    "quoted local part": lambda n: f'Ann <"ann person {n}"@family.test>',
    "at sign encoded": lambda n: f"=?utf-8?q?person{n}=40family{n}.test?= <person{n}@family{n}.test>",
}
REPEATED = [
    *("(", '"', "<", "a@", "=?utf-8?q?", "g:"),
    *(
        "\\",
        '\\"',
        '"\\"',
        "a@b(",
        "<a@",
        "<a@b",
        '"a" ',
        ",",
        ";",
        ".",
        "@",
        ")",
        "[",
        "]",
        "((",
        '("',
        "(\\)",
        "(a(b",
    ),
    *("=?", "?=", "=?utf-8?b?", "=?u?q?=40?=", "=?u?b?QA==?= ", "=?u?q? a_b@c ?=", "mailto:", "mailto:%40"),
    *("a.", "a. ", "a . ", ". . ", "@.", "a@b.", "a@b. ", "a @ ", "a@b\n ", "a@b@", "a\\@", "a\\b@c ", "'a@", '"a".'),
    *("()", "(a)", "(@", "(a@b)", "a@[", "a@[b]", "<@a,@b:", '"a@b" ', '"a@b', '"@"', 'a"@"b', 'a("@")@b '),
    *("\u0301\u0327", "a@\u0301", "é@é", "\x00", "\u200b@", "\udcff"),
]


def seconds(*jobs: tuple[Callable[[str], object], str], rounds: int = 7, calls: int = 1) -> list[float]:
    """Return what one call of each job takes: the shortest of several rounds, in which the jobs take turns."""
    best = [float("inf")] * len(jobs)
    for _ in range(rounds):
        for number, (function, value) in enumerate(jobs):
            start = time.thread_time()
            for _ in range(calls):
                function(value)
            best[number] = min(best[number], time.thread_time() - start)
    return [each / calls for each in best]


def library(value: str) -> object:
    """Read a field as the standard library does."""
    return getaddresses([value])


def field(form: Callable[[int], str], count: int) -> str:
    """Return an address list, folded as clients fold it."""
    return ",\n ".join(map(form, range(count)))


def met_or_missed(*met: bool) -> str:
    """Say whether the demands of a line are met."""
    return "ok" if all(met) else "MISSED"


def main() -> int:
    """Print every figure; return the exit status."""
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    missed = against_the_library() + by_hostile_repeats()
    print("all demands are met" if not missed else f"{missed} demands are MISSED")
    return 1 if missed else 0


def against_the_library() -> int:
    """Compare with email.utils.getaddresses, and a long field with a short one; return how many demands are missed."""
    missed = 0
    print(f"{'500 addresses':20s} {'here':>9s} {'getaddresses':>13s} {'faster':>8s} {'5,000/500':>10s}")
    for name, form in (FORMS | TOLERANT).items():
        short, long = field(form, 500), field(form, 5000)
        assert len(addresses(short)) == 500, name
        ours, longer, theirs = seconds((addresses, short), (addresses, long), (library, short), rounds=30)
        demanded = name in FORMS
        ok = met_or_missed(longer <= TEN_TIMES_AS_LONG * ours, not demanded or theirs >= FASTER_THAN_LIBRARY * ours)
        missed += ok != "ok"
        columns = f"{ours * 1e3:6.2f} ms {theirs * 1e3:10.2f} ms {theirs / ours:7.1f}x {longer / ours:10.1f}"
        print(f"{name:20s} {columns}   {ok}{'' if demanded else ' (no demand on the speed)'}")
    print(f"demanded: {FASTER_THAN_LIBRARY:.0f}x, {TEN_TIMES_AS_LONG:.0f}\n")

    print(f"{'an ordinary field':20s} {'addresses':>12s} {'mailboxes':>12s} {'getaddresses':>13s}")
    for name, form in FORMS.items():
        value = field(form, 2)
        ours, boxes, theirs = seconds((addresses, value), (mailboxes, value), (library, value), rounds=40, calls=100)
        print(f"{'2 ' + name:20s} {ours * 1e6:9.1f} µs {boxes * 1e6:9.1f} µs {theirs * 1e6:10.1f} µs")
    return missed


def by_hostile_repeats() -> int:
    """Compare 20,000 of what costs a careless parser the square with 5,000; return how many demands are missed."""
    missed = 0
    print(f"\n{'hostile repeats':20s} {'5,000':>9s} {'20,000':>10s} {'ratio':>7s}   the worse of addresses, mailboxes")
    for unit in REPEATED:
        pairs = (seconds((call, unit * 5000), (call, unit * 20000), rounds=3) for call in (addresses, mailboxes))
        few, many = max(pairs, key=lambda pair: pair[1] / pair[0])
        ok = met_or_missed(many <= FOUR_TIMES_AS_MANY * few)
        missed += ok != "ok"
        print(f"{ascii(unit)[1:-1]:20s} {few * 1e3:6.1f} ms {many * 1e3:7.1f} ms {many / few:7.1f}   {ok}")
    print(f"demanded: {FOUR_TIMES_AS_MANY:.0f}\n")
    return missed


if __name__ == "__main__":
    sys.exit(main())
