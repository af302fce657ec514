"""The comparison of this milter with what people would use instead; `python -m bench.comparison` runs it."""
