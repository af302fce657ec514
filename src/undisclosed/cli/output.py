"""Text that somebody else wrote, as a terminal or a spreadsheet may be given it."""

from __future__ import annotations


def visible(text: str) -> str:
    """The text as a terminal may be given it: line ends and blanks as one blank, all else that is no sign spelled out.

    A message's author must not move the cursor, change colours or turn the direction of the reader's text.
    """
    return "".join(_visible(char) for char in text)


def cell(text: str) -> str:
    """The text as a cell of a CSV file: visible, and no formula to the spreadsheet that opens it.

    A cell that begins with one of these signs is computed, and may fetch or send something; an apostrophe before it
    makes it text (OWASP, "CSV Injection"). Blanks before the sign do not protect.
    """
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else shown  # noqa: RUF001  their wide forms count too


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    if char.isspace():
        return " "
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a raw byte that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
