"""The writer of `model_mup.py`: rewritten recordings as Python that a person would write."""
