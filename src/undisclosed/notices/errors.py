"""The error of a notice."""


class NoticeError(Exception):
    """A notice cannot be composed or sent. The text says why."""
