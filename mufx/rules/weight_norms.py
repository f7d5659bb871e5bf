"""Weights that are divided by their own size: weight norm, weight standardization, cosines.

What is left of such a weight is its direction. It learns like the weight, and how large it starts
makes no difference (`Weight.normed`). Written in single steps, it is a quotient of the weight and
a power of its size:

    w / w.norm(dim=1, keepdim=True)
    (w - w.mean(1, keepdim=True)) * (w.var(1, keepdim=True) + 1e-5).rsqrt()
"""

from __future__ import annotations

import math
from dataclasses import replace

from mufx.magnitudes import Magnitude, Power, Value, Weight, multiplied, powered
from mufx.sizes import Axis, same


def averaged(value: Value, axes: tuple[Axis, ...], degree: float = 1.0) -> Weight | None:
    """A mean of a parameter's entries, or of their power, over `axes`; `None` of another value."""
    known = _power(value)
    if known is None:
        return None
    power = Power((*known.axes, *axes), known.degree * degree)
    return replace(_as_weight(value), linear=False, power=power)


def raised(value: Value, degree: float) -> Weight | None:
    """A power of a parameter's entries, or of their mean; `None` of another value."""
    known = _power(value)
    if known is None:
        return None
    weight = _as_weight(value)
    size = powered(Magnitude(weight.ratio, weight.ways), degree)
    power = Power(known.axes, known.degree * degree)
    return replace(weight, linear=False, ratio=size.ratio, ways=size.ways, power=power)


def longer(weight: Weight, factor: float) -> Weight:
    """So many times as large: a sum of ever more entries, where a mean is meant."""
    return replace(weight, ratio=weight.ratio * factor)


def directed(value: Value, axes: tuple[Axis, ...]) -> Weight | None:
    """A parameter over its length along `axes`; `None` of another value."""
    known = _power(value)
    if known is None or known != _ITSELF:
        return None
    return replace(_as_weight(value), normed=axes)


def standardized(value: Value, axes: tuple[Axis, ...]) -> Weight | None:
    """A parameter over the root mean square of its entries along `axes`."""
    weight = directed(value, axes)
    return None if weight is None else longer(weight, math.sqrt(entries(axes)))


def over_its_size(weight: Weight, size: Weight, power: float) -> Weight | None:
    """A parameter times a power of its size that takes its own away; `None` for another product."""
    if size.power is None or weight.names != size.names or not size.power.axes:
        return None
    whole = standardized(replace(weight, gains=frozenset()), size.power.axes)
    if whole is None or not same(size.power.degree * power, -1.0):
        return None
    sizes = (Magnitude(whole.ratio, whole.ways), powered(Magnitude(size.ratio, size.ways), power))
    found = multiplied(*sizes)
    return replace(whole, gains=weight.gains, ratio=found.ratio, ways=found.ways)


def centred(a: Value, b: Value) -> Weight | None:
    """A parameter less its mean: where it is contracted it is the same parameter."""
    if not isinstance(a, Weight) or not isinstance(b, Weight) or a.names != b.names:
        return None
    mean = b.power is not None and b.power.degree == 1 and bool(b.power.axes)
    return a if mean and _power(a) == _ITSELF else None


def entries(axes: tuple[Axis, ...]) -> float:
    """How many times as many entries there are along these axes."""
    return math.prod(axis.m for axis in axes if axis.grows)


_ITSELF = Power((), 1.0)


def _power(value: Value) -> Power | None:
    """Of one parameter as it is, or of its size: which power of it this is."""
    if not isinstance(value, Weight) or len(value.names) != 1:
        return None
    if value.gains or value.normed or value.factors:
        return None
    return value.power or (_ITSELF if value.linear else None)


def _as_weight(value: Value) -> Weight:
    assert isinstance(value, Weight)
    return value
