"""The dynamic coordinate check: how activations, and what they learn, depend on width."""
