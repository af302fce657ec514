"""The records under the name that those who use a Journal know them by."""

from undisclosed.records import *  # noqa: F403  every public name
