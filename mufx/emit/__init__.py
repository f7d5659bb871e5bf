"""The writer of `model_mup.py`: from rewritten recordings to Python that reads like a person wrote it."""
