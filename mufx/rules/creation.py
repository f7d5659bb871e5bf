"""Tensors made from nothing but numbers, and random draws."""

from __future__ import annotations

from torch import fx

from mufx.magnitudes import ZERO, Magnitude, Value
from mufx.rules.table import Flow, RuleTable

CREATION = RuleTable()

_MADE = """
    ones empty full arange linspace eye tensor as_tensor scalar_tensor ones_like
    empty_like full_like new_ones new_empty new_full new_tensor meshgrid tril_indices
    triu_indices zero fill cartesian_prod logspace finfo hann_window
    fft_fftfreq fft_rfftfreq
""".split()
_DRAWN = """
    rand randn randint randperm rand_like randn_like randint_like bernoulli multinomial normal
    uniform exponential
""".split()


LIKE_ANOTHER = frozenset(
    """
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones
    new_full new_empty new_tensor
    """.split()
)
"""Of a tensor they take the shape and the type, and look at no entry."""


@CREATION.rule("zeros", "zeros_like", "new_zeros")
def zeros(flow: Flow, node: fx.Node) -> Value:
    """Nothing, which has no size."""
    return ZERO


@CREATION.rule(*_MADE, *_DRAWN)
def made(flow: Flow, node: fx.Node) -> Value:
    """A size that does not depend on width, unless a number in it does."""
    return Magnitude()
