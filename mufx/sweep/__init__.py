"""Learning rate against loss over widths: the standard parametrization beside μP."""
