"""A model of the zoo as a function of one number, how many times as wide as at base it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

from torch import nn

from mufx.inputs import Inputs
from mufx.source import Source
from tests.zoo.specs import Knobs, Spec

FACTORS: Final = (2, 4, 8, 16)
"""Measured widths, from a base that is half as wide as that of the row. The base itself is none of
them: a multiplier that the emitted module has elsewhere would count as another node there."""
_WIDTH: Final = "times"
# What only doubles in the specs, being the size of a head or of a part.
_SIZES: Final = ("head_dim", "d_kv", "dim_head", "kv_lora_rank")
_FIXED_SIZES: Final = ("head_dim", "v_head_dim")


def widened(spec: Spec) -> Source:
    """The source of a row with one knob, the factor."""
    source = spec.source()

    def knobs(times: int) -> Knobs:
        return {**spec.fixed, **knobs_at(spec, times)}

    def build(times: int) -> nn.Module:
        return source.build(**knobs(times))

    def inputs(batch: int, own: Knobs) -> Inputs:
        times = own[_WIDTH]
        assert isinstance(times, int)
        return source.inputs(batch, knobs(times))

    base, target = {_WIDTH: 1}, {_WIDTH: FACTORS[-1]}
    return replace(source, build=build, inputs=inputs, base=base, target=target, vary=())


def knobs_at(spec: Spec, times: int) -> Knobs:
    """The growing knobs.

    What grows by 4 or more from base to target follows the width. What only doubles is a number
    of heads or their size, and their size follows the width, or their number where the size is
    fixed: numbers that follow no power of the knob, such as heads that double at every other step,
    would be refused.
    """
    fixed = any(name in spec.fixed for name in _FIXED_SIZES)
    wide = times * spec.wide
    return {n: _at(n, value, spec.target[n], wide, fixed) for n, value in spec.base.items()}


def _at(name: str, base: object, target: object, times: int, fixed: bool) -> object:
    if isinstance(base, Mapping):
        wide = cast("Mapping[str, object]", target)
        items = cast("Mapping[str, object]", base).items()
        return {key: _at(key, value, wide[key], times, fixed) for key, value in items}
    if isinstance(base, list | tuple):
        pairs = zip(cast("Sequence[int]", base), cast("Sequence[int]", target), strict=True)
        return [_at(name, b, t, times, fixed) for b, t in pairs]
    assert isinstance(base, int)
    assert isinstance(target, int)
    grows = target >= 4 * base or (target > base and (fixed or name in _SIZES))
    return base // 2 * times if grows else base
