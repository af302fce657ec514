"""One target under atheris (libFuzzer): `engine.py TARGET [libFuzzer's arguments]`. `run` starts it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def main() -> None:
    """Instrument the product, and let libFuzzer call the target's check until its time is over."""
    sys.path[:0] = [str(TESTS), str(TESTS.parent / "deploy")]
    atheris = importlib.import_module("atheris")  # by name: no test needs it, and it is not there where they run
    target, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["undisclosed"]):
        check = importlib.import_module(f"fuzz.{target}").check
    atheris.Setup([sys.argv[0], *arguments], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
