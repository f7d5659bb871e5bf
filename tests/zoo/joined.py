"""The parts of an axis, found by building a model at other sizes: knows nothing of mufx.

The rows of a fused projection may grow unlike. How they do shows where one knob moves alone:

    rows of falcon's queries, keys and values     96 at a width of 64 and 4 heads
                                                 192 at a width of 128
                                                  80 with 8 heads
    what explains them                           width + 2 * width / heads
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from torch.utils import _pytree as pytree

Knobs = Mapping[str, Any]
Sizes = tuple[int, ...]
"""Of the knobs that grow, in their order."""
Powers = tuple[int, ...]
"""One for each knob: (1, -1) is width / heads."""


class Part(NamedTuple):
    """So many entries of an axis at the target, and how many times as many as at base."""

    entries: int
    growth: float


def elsewhere(base: Knobs, target: Knobs) -> list[Knobs]:
    """Base, target, all knobs that grow moved together, and each of them alone.

    Args:
        base: The knobs that grow, whole numbers in any structure.
        target: How far.
    """
    start, structure = pytree.tree_flatten(base)
    grown = [i for i, (n, m) in enumerate(zip(start, _sizes(target), strict=True)) if n != m]
    moves = [(knobs, factor) for factor in (2, 4) for knobs in (grown, *([i] for i in grown))]
    moved = [[n * k if i in knobs else n for i, n in enumerate(start)] for knobs, k in moves]
    return [base, target, *(pytree.tree_unflatten(sizes, structure) for sizes in moved)]


def parts(lengths: Iterable[tuple[Knobs, int]], base: Knobs, target: Knobs) -> frozenset[Part]:
    """What an axis is joined of, by how it grows.

    Args:
        lengths: How long the axis is `elsewhere`, as far as there are such models.
        base: The knobs that grow, whole numbers in any structure.
        target: How far.

    Raises:
        ValueError: No sum of three products of knobs or fewer explains the lengths, or several do.
    """
    seen = {_sizes(knobs): length for knobs, length in lengths}
    start, end = _sizes(base), _sizes(target)
    explained = {_by_growth(fit, start, end) for fit in _simplest(seen, start)}
    if len(explained) != 1:
        raise ValueError(f"{len(explained)} ways to explain {seen}")
    return explained.pop()


def _sizes(knobs: Knobs) -> Sizes:
    return tuple(pytree.tree_leaves(knobs))


def _simplest(seen: Mapping[Sizes, int], base: Sizes) -> list[Mapping[Powers, float]]:
    """The sums of fewest terms that explain all lengths: how many there are of each product."""
    candidates = list(itertools.product(*((-1, 0, 1) if m else (0,) for m in _moving(seen, base))))
    for terms in (1, 2, 3):
        fits = [_fitted(chosen, seen) for chosen in itertools.combinations(candidates, terms)]
        if any(fits):
            return [fit for fit in fits if fit]
    return []


def _moving(seen: Mapping[Sizes, int], base: Sizes) -> list[bool]:
    """Which knobs move the length alone; all that grow where none can be moved alone."""
    alone, together = [False] * len(base), [False] * len(base)
    for sizes, length in seen.items():
        moved = [n != m for n, m in zip(sizes, base, strict=True)]
        if sum(moved) == 1 and length != seen[base]:
            alone[moved.index(True)] = True
        together = [a or b for a, b in zip(moved, together, strict=True)]
    return alone if any(alone) else together


def _fitted(products: Sequence[Powers], seen: Mapping[Sizes, int]) -> Mapping[Powers, float]:
    """How many of each; nothing where they do not explain what was seen."""
    values = np.array([[_value(powers, sizes) for powers in products] for sizes in seen])
    lengths = np.array(list(seen.values()), dtype=float)
    numbers = np.linalg.lstsq(values, lengths)[0]
    if not np.allclose(values @ numbers, lengths, rtol=1e-9) or (numbers < 1e-6).any():
        return {}
    return dict(zip(products, map(float, numbers), strict=True))


def _value(powers: Powers, sizes: Sizes) -> float:
    return prod(float(n) ** power for n, power in zip(sizes, powers, strict=True))


def _by_growth(fit: Mapping[Powers, float], base: Sizes, target: Sizes) -> frozenset[Part]:
    entries: dict[float, float] = {}
    for powers, number in fit.items():
        at_target = _value(powers, target)
        growth = round(at_target / _value(powers, base), 9)
        entries[growth] = entries.get(growth, 0.0) + number * at_target
    return frozenset(Part(round(n), growth) for growth, n in entries.items())
