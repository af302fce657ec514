"""`addresses.visible`: any bytes as a field's value."""

from __future__ import annotations

import re
import time
import zlib

from fuzz.readers import plain
from undisclosed.addresses import addresses, mailboxes, visible
from undisclosed.addresses.domains import to_ascii

LONG = 10_000
"""Characters of a field that is repeated text: what is not linear shows."""
SECONDS = 1.0
"""Of processor time for one: many times what it takes under instrumentation, far below the square of the length."""

_ORDINARY = re.compile(r"[ -~\n\t]*")


def check(data: bytes) -> None:
    """Read one value, and raise AssertionError if a property of all values does not hold."""
    value = data.decode("utf-8", "surrogateescape")
    found = addresses(value)
    keys = {each.key for each in found}
    assert len(found) == len(keys), "an address counted twice"
    assert visible(value) == [each.text for each in found]
    for each in found:
        assert "@" in each.text
        assert each.domain
        assert "@" not in each.domain
        assert each.domain == to_ascii(each.domain), "a domain with two spellings"
        assert not {"\n", "\r"} & set(each.text)
    for box in mailboxes(value):
        assert box.address.key in keys, "an entry that was not counted"
        assert not any(mark < " " or mark == "\x7f" for mark in box.name), "a control in a name"
    if _ORDINARY.fullmatch(value) and "=?" not in value:
        for local, domain in plain(value):
            # `Smith. ann@x.test` is an obsolete way to write "Smith.ann"@x.test, and one address either way.
            assert any(domain == there and key.endswith(local) for key, there in keys), f"not seen: {local}@{domain}"
    _goes_on(value)
    if zlib.crc32(data) % 1024 == 0:
        _is_linear(value)


def _goes_on(value: str) -> None:
    """Text before or after an entry of a list does not hide the entry."""
    wanted = ("zed", "last.test")
    for whole in (f"zed@last.test, {value}", f"{value} , zed@last.test"):
        assert wanted in {each.key for each in addresses(whole)}, f"hidden by what stands beside it: {whole!r}"


def _is_linear(value: str) -> None:
    unit = value[:200]
    if not unit:
        return
    long = unit * (LONG // len(unit))
    for function in (addresses, mailboxes):
        began = time.process_time()
        function(long)
        took = time.process_time() - began
        assert took < SECONDS, f"{function.__name__} took {took:.1f} s for {len(long)} characters"
