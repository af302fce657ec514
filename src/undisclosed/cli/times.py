"""Times as people type and read them.

For people: this host's time zone, with its offset from UTC unless only hours are shown. For programs (JSON, CSV): UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DAYS_AGO: Final = {"today": 0, "yesterday": 1}
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_AGES: Final = ((timedelta(days=2), "days"), (timedelta(hours=2), "hours"), (timedelta(minutes=2), "minutes"))
"""The shortest age that is given in each unit; below them, seconds."""

_WEEK: Final = timedelta(days=6)
"""Within it the name of a day is not ambiguous."""


def parse_time(text: str, now: datetime) -> datetime:
    """A date, a date and time (local unless it has an offset), `today`, `yesterday` or an age. Raises ValueError."""
    if (days := _DAYS_AGO.get(text.strip().casefold())) is not None:
        day = now.astimezone().date() - timedelta(days=days)
        return datetime(day.year, day.month, day.day).astimezone(UTC)
    if match := re.fullmatch(r"([0-9]{1,6}) ?([mhdw])", text.strip()):
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except ValueError:
        known = 'write "today", "2026-03-01", "2026-03-01 14:30" or "7d"'
        raise ValueError(f"{text!r} is not a time: {known}") from None


def local_time(moment: datetime | None, timespec: str = "minutes") -> str:
    """A time as this host's clock shows it, with the offset from UTC; "-" where there is none."""
    return "-" if moment is None else moment.astimezone().isoformat(sep=" ", timespec=timespec)


def utc_time(moment: datetime | None) -> str:
    """A time in UTC, to the second, in a form that spreadsheets read as a time; empty where there is none."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def near_time(moment: datetime, now: datetime) -> str:
    """A time as briefly as it can be told from others: `14:55`, `Tue 14:55`, `2026-03-14`; local."""
    local, today = moment.astimezone(), now.astimezone()
    if local.date() == today.date():
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if abs(local.date() - today.date()) <= _WEEK else f"{local:%Y-%m-%d}"


def at_time(moment: datetime, now: datetime) -> str:
    """A time in a sentence: `at 14:50`, or `on 2026-03-01 at 14:50`; local."""
    local = moment.astimezone()
    return f"at {local:%H:%M}" if local.date() == now.astimezone().date() else f"on {local:%Y-%m-%d} at {local:%H:%M}"


def age(span: timedelta) -> str:
    """A length of time in words, in one unit: `3 minutes`."""
    unit = next((unit for least, unit in _AGES if span >= least), "seconds")
    return f"{int(span / timedelta(**{unit: 1}))} {unit}"
