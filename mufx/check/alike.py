"""How alike the rows of a batch become: the cosine of two of them, through a model that starts."""

from __future__ import annotations

import math
from collections.abc import Iterable


def rectified(cosine: float) -> float:
    """After relu (Cho and Saul, 2009): rows that were independent share their mean.

    >>> round(rectified(0), 3), round(rectified(1), 3)
    (0.318, 1.0)
    """
    angle = math.acos(min(1.0, cosine))
    return (math.sin(angle) + (math.pi - angle) * cosine) / math.pi


def bent(cosine: float, size: float) -> float:
    """After gelu or silu: near 0 they are linear, far from it they are relu."""
    weight = min(1.0, size) ** 2
    return weight * rectified(cosine) + (1 - weight) * cosine


def summed(terms: Iterable[tuple[float, float]]) -> float:
    """Of a sum of independent terms, each with its size and its cosine.

    >>> summed([(1.0, 1.0), (1.0, 0.0)])
    0.5
    """
    squares = [(size**2, cosine) for size, cosine in terms]
    return sum(s * cosine for s, cosine in squares) / sum(s for s, _ in squares)


def averages(keys: int, rows: float, *, causal: bool) -> float:
    """Of even means over keys: all of one sequence share them, two thirds under a causal mask.

    `rows` come from several sequences, of which only one is a row's own.
    """
    return min(1.0, math.sqrt(keys / rows)) * (2 / 3 if causal else 1.0)
