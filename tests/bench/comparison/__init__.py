"""The comparison of this milter with its alternatives; `python -m bench.comparison` runs it."""
