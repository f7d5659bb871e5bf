"""A file without a model."""

WIDTH = 64
