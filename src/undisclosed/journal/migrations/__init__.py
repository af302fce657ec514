"""The migrations of the journal's tables, run by `undisclosed journal upgrade`."""
