"""What can go wrong with a notice."""


class NoticeError(Exception):
    """A notice that cannot be made or handed over. The text says why, and where it can be told, what to do."""
