"""What every test shares. Tests import their factories by name: `from factories import message, policy`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
