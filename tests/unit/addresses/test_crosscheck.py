"""The second reader of a value: at signs with the text around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undisclosed.addresses.crosscheck import candidates


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Ann <ann@x.test>, bob@Y.Test.", {("ann", "x.test"), ("bob", "y.test")}),
        ('"ann@x.test" (bob@y.test)', {("ann", "x.test"), ("bob", "y.test")}),
        ('"a b"@x.test', {("", "x.test")}),
        ("ann @\n x.test", {("ann", "x.test")}),
        ("ann@(home) x.test", {("ann", "x.test")}),
        ("ann@[192.0.2.1]", {("ann", "[192.0.2.1]")}),
        ("ann@bücher.test", {("ann", "xn--bcher-kva.test")}),
        ("ann\uff20x.test", {("ann", "x.test")}),
        ("ann\\@x.test", {("", "x.test"), ("ann", "x.test")}),
        ("\u2018ann@x.test\u2019", {("ann", "x.test")}),
        ("https://x.test/?who=ann%40y.test", {("//x.test/?who=ann", "y.test")}),
        ("=?utf-8?q?ann=40x=2Etest?=", {("ann", "x.test")}),
        ("=?utf-8?b?YW5uQHgudGVzdA==?=", {("ann", "x.test")}),
        ("=?utf-8*en?Q?ann=40x?=\n =?utf-8?q?=2Etest?=", {("ann", "x.test"), ("=?utf-8*en?q?ann", "x")}),
        ("=?no-such?q?ann=40x.test?=", {("ann", "x.test")}),
        ("=?utf-8?q?ann=40x.test", {("=?utf-8?q?ann", "x.test")}),
        ("=?utf-7?q?ann+AEA-x.test?=", {("ann", "x.test")}),
        ("ann@x.test at\n home, bob@y.test", {("ann", "x.test"), ("ann", "x.testathome"), ("bob", "y.test")}),
        ("=?utf-8?b?A?=", set()),
        ("Team @ Council", set()),
        ("@", set()),
        ("ann at x.test", set()),
        ("", set()),
    ],
)
def test_what_stands_around_at_signs(value: str, expected: set[tuple[str, str]]) -> None:
    """Quotes, comments, encodings and broken syntax hide no address."""
    seen = candidates(value)
    assert seen >= expected
    assert {domain for _, domain in seen} == {domain for _, domain in expected}


@given(st.text(alphabet='ab@.<>()[]"\\,;: \n=?qQbB_40%\udce9\uff20\u00e9-'))
def test_any_text_can_be_looked_at(value: str) -> None:
    """No text raises an exception, and no domain has blanks or at signs."""
    for _, domain in candidates(value):
        assert domain == "".join(domain.split())
        assert "@" not in domain
