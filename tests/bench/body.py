"""The cost of reading a body where recipients are to be hidden, in the milter's own code, without Postfix.

    .venv/bin/python tests/bench/body.py

Each body comes in the chunks that libmilter hands over, is read to its end, and hides 500 addresses. Processor time,
the least of five runs. A body with an obstacle costs less: the rest of it is not read.
"""

from __future__ import annotations

import base64
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from undisclosed.decision.body_scan import BodySearch

CHUNK = 65_535
"""Bytes that libmilter hands over at once."""

RUNS = 5
MEGABYTE = 1_000_000
HIDDEN = frozenset((f"parent{number}", f"family{number}.example") for number in range(500))
SEARCH = BodySearch(HIDDEN, may_show=3, has_parts=True, is_base64=False)

TEXT = b"Dear parents, the school is closed on Monday because of the snow.\r\n"
HTML = b'<p class=3D"body">Dear parents, the school is closed =E2=80=93 ask the off=\r\nice.</p>\r\n'


def attachment(size: int) -> bytes:
    """A multipart whose second part is a compressed file of this size, in base64."""
    data = base64.encodebytes(random.Random(1).randbytes(size)).replace(b"\n", b"\r\n")
    head = b"Content-Type: application/pdf; name=news.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return b"--b\r\nContent-Type: text/plain\r\n\r\n" + TEXT + b"--b\r\n" + head + data + b"--b--\r\n"


BODIES: Mapping[str, Callable[[], bytes]] = {
    "a letter of 1 kB": lambda: TEXT * 15,
    "a newsletter with 1.2 MB attached": lambda: attachment(1_200_000),
    "42 MB of base64": lambda: attachment(31_000_000),
    "10 MB of text": lambda: TEXT * (10 * MEGABYTE // len(TEXT)),
    "10 MB of HTML in quoted-printable": lambda: HTML * (10 * MEGABYTE // len(HTML)),
    "10 MB of one line": lambda: b"x" * (10 * MEGABYTE),
    "10 MB of other addresses": lambda: b"someone@elsewhere.example, " * (10 * MEGABYTE // 27),
}


def read(body: bytes) -> None:
    """Read a body in chunks. Raises ValueError if it has an obstacle: then it was not read to its end."""
    if obstacle := SEARCH.obstacle(body[start : start + CHUNK] for start in range(0, len(body), CHUNK)):
        raise ValueError(obstacle.text)


def milliseconds(body: bytes) -> float:
    """The processor time of one reading."""
    began = time.process_time()
    read(body)
    return (time.process_time() - began) * 1e3


def peak(body: bytes) -> int:
    """The most memory that one reading takes beside the body, in bytes."""
    tracemalloc.start()
    read(body)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return taken


def main() -> int:
    """Print the table."""
    print(f"{'':36}{'ms':>8} {'ms/MB':>6} {'peak MB':>8}")
    for name, make in BODIES.items():
        body = make()
        took = min(milliseconds(body) for _ in range(RUNS))
        print(f"{name:36}{took:8.2f} {took / len(body) * MEGABYTE:6.1f} {peak(body) / MEGABYTE:8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
