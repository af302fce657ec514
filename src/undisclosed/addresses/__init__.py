"""Core: a header field's text -> the addresses that a person can read in it, and the owners of their domains.

Values in, values out: no clock, file, socket or log. Imports no other room.
`domains` reads a list in this package at import.
"""

from undisclosed.addresses.reader import Mailbox, addresses, mailboxes, visible
from undisclosed.addresses.scanner import Address

__all__ = ["Address", "Mailbox", "addresses", "mailboxes", "visible"]
