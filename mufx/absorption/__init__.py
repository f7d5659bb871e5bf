"""Factors of the forward pass, moved into the parameters."""
