"""A file that raises."""

raise RuntimeError("no luck today")
