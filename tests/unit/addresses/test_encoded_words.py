"""encoded_words.py: the text that clients show for an encoded word (RFC 2047), valid or broken."""

from __future__ import annotations

import pytest

from undisclosed.addresses.encoded_words import decoded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ann <ann@x.test>", "Ann <ann@x.test>"),
        ("=?utf-8?q?Zo=C3=AB_Lee?= <x>", "Zo\xeb Lee <x>"),
        ("=?UTF-8?Q?Zo=c3=ab?= <x>", "Zo\xeb <x>"),
        ("=?utf-8?B?Wm/Dqw==?= <x>", "Zo\xeb <x>"),
        ("=?utf-8?b?Wm/Dqw?= <x>", "Zo\xeb <x>"),
        ("=?iso-8859-1?q?Zo=EB?=", "Zo\xeb"),
        ("=?iso-8859-1?q?=93Ann=94?=", "\u201cAnn\u201d"),
        ("=?koi8-r?b?4c7OwQ==?=", "\u0410\u043d\u043d\u0430"),
        ("=?gb2312?b?1tDOxA==?=", "\u4e2d\u6587"),
        ("=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "\u65e5\u672c"),
        ("=?windows-874?q?=A1?=", "\u0e01"),
        ("=?utf-8*en?q?Ann?=", "Ann"),
        ("=?x-nobody-knows?q?Zo=C3=AB?=", "Zo\xeb"),
        ("=?x-nobody-knows?q?Zo=EB?=", "Zo\xeb"),
        ("=??q?Ann?=", "Ann"),
        ("=?hex?q?Ann?= =?rot13?q?Lee?= =?punycode?q?Bob?=", "AnnLeeBob"),
        ("=?utf-8?q?Ann?= =?utf-8?q?_Lee?=", "Ann Lee"),
        ("=?utf-8?q?Ann?=\n =?iso-8859-1?b?IExlZQ==?=", "Ann Lee"),
        ("=?utf-8?q?Zo=C3?= =?utf-8?b?qw==?=", "Zo\xeb"),
        ("=?utf-8?q?Ann?= and =?utf-8?q?Bob?=", "Ann and Bob"),
        ("=?utf-8?q?Ann?==?utf-8?q?Lee?=", "AnnLee"),
        ('"=?utf-8?q?Zo=C3=AB?="', '"Zo\xeb"'),
        ("Dr=?utf-8?q?=2E?=Lee", "Dr.Lee"),
    ],
)
def test_words_are_decoded_where_they_stand(text: str, expected: str) -> None:
    """Either encoding, any charset that clients know, in quotes and within words; neighbours are joined."""
    assert expected == decoded(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=?utf-8?q?Ann Lee?= <x>", "Ann Lee <x>"),
        ("=?utf-8?q?Who?Me?=", "Who?Me"),
        ("=?utf-8?q?=G1=20?=", "=G1 "),
        ("=?utf-8?q?Ann <x>, =?utf-8?q?Bob?= <y>", "Ann <x>, Bob <y>"),
        ("<x>, =?utf-8?q?Zo=C3=AB", "<x>, Zo\xeb"),
        ("<x>, =?utf-8?b?Wm/Dqw", "<x>, Zo\xeb"),
        ("<x>, =?utf-8?b?Wm/Dq", "<x>, Zo\ufffd"),
        ("=?utf-8?b?Wm/Dqw==IExlZQ==?=", "Zo\xeb Lee"),
        ("=?utf-8?b?====?= =?utf-8?q??=", ""),
        ("=?utf-8?q?=\r\n ann@x.test?=", "=   ann@x.test"),
        ("=?utf-8?q?Zo\xeb_=C3=AB?=", "Zo\xeb \xeb Zo\xeb_\xeb"),
        ("=?utf-8?q?b\udcf6b?=", "b\udcf6b"),
        *((text, text) for text in ("=?", "?=", "=?utf-8?", "=?utf-8?x?Ann?=", "=? utf-8?q?Ann?=", "a=?b?=c")),
    ],
)
def test_broken_words_are_shown_as_clients_show_them(text: str, expected: str) -> None:
    """Blanks and question marks inside, no end, wrong letters: the readable text is in the result."""
    assert expected == decoded(text)


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("=?utf-8?q?first_last@x.test?=", {"first last@x.test", "first_last@x.test"}),
        ("=?utf-8?b?ann@x.test?=", {"ann@x.test"}),
        ("=?utf-7?q?ann@x.test+AEA-y?=", {"ann@x.test@y", "ann@x.test+AEA-y"}),
        ("=?iso-2022-jp?q?=1B$B ann@x.test?=", {"=1B$B ann@x.test"}),
        ("=?cp037?q?ann@x.test?= =?cp037?q?.example?=", {"ann@x.test.example"}),
    ],
)
def test_where_clients_disagree_both_readings_are_given(text: str, readings: set[str]) -> None:
    """Bytes that one client decodes and another shows raw: the result has both, each in one piece."""
    shown = decoded(text)
    assert set() == {reading for reading in readings if reading not in shown}
