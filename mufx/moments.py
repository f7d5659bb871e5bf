"""The distribution that a constructor gives each parameter and buffer.

The init tape is walked once with means and standard deviations in the place of tensors, so the
answer is exact and takes no memory, at any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import fx

from mufx.construction import Construction, is_random
from mufx.diagnostics import MufxError, error
from mufx.rules.table import argument, operation

_SMALL = 2**20  # elements that are drawn for real where no rule knows the distribution


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of the entries of one tensor.

    Attributes:
        mean: Of all entries.
        std: Of all entries; 0 for a constant.
        random: Whether the entries are drawn.
        kind: "uniform", "normal", "truncated normal", "constant", "table" for other deterministic
            values, "orthogonal", "measured" for a sample of an unknown distribution.
        constant: The value, where all entries are equal.
        partial: Whether some entries were overwritten with another value than zero.
    """

    mean: float
    std: float
    random: bool
    kind: str
    constant: float | None = None
    partial: bool = False


_TABLE = Moments(math.nan, math.nan, False, "table")
_UNKNOWN = Moments(math.nan, math.nan, True, "measured")


def moments(construction: Construction, name: str) -> Moments:
    """The distribution of one parameter or buffer.

    Raises:
        MufxError: `MUF109`: a large tensor with random entries made by an operation that no rule
            here knows.
    """
    node = construction.tensors[name]
    found = _walk(construction)[construction.storages[node]]
    if found.kind not in ("table", "measured") or not math.isnan(found.mean):
        return found
    return _measured(construction, name, found)


def _measured(construction: Construction, name: str, found: Moments) -> Moments:
    node = construction.tensors[name]
    value = construction.values[node]
    assert value is not None
    if found.random and math.prod(value.sizes) > _SMALL:
        raise MufxError(
            error(
                "MUF109",
                f"how {name} is drawn is not known to mufx",
                hint="draw it with torch.nn.init, or with normal_ or uniform_ times a number",
                place=construction.origins[node].place,
            )
        )
    values = construction.value(name).double()
    if values.numel() and bool((values == values.flatten()[0]).all()):
        return _constant(float(values.flatten()[0]))
    std = float(values.std(correction=0)) if values.numel() > 1 else 0.0
    return replace(found, mean=float(values.mean()), std=std)


def _constant(value: float) -> Moments:
    return Moments(value, 0.0, False, "constant", value)


@lru_cache(maxsize=16)
def _walk(construction: Construction) -> Mapping[int, Moments]:
    """By storage: the distribution after the whole constructor has run."""
    states: dict[int, Moments] = {}
    for node in construction.graph.nodes:
        storage = construction.storages.get(node.name)
        if storage is None:
            continue
        if node.op == "get_attr":
            states[storage] = _TABLE
            continue
        first = node.args[0] if node.args else None
        target = construction.storages.get(first.name) if isinstance(first, fx.Node) else None
        inputs = [
            states[construction.storages[n.name]]
            for n in node.all_input_nodes
            if n.name in construction.storages
        ]
        after = _step(node, inputs)
        in_place = storage == target
        if not in_place:
            states[storage] = after if after is not None else _fallback(node, inputs)
        elif after is not None:
            whole = _covers(construction, node, storage)
            states[storage] = after if whole else _overwritten(states[storage], after)
        elif operation(node) not in _SAME and not _is_view(node):
            states[storage] = _fallback(node, inputs)
    return states


def _fallback(node: fx.Node, inputs: list[Moments]) -> Moments:
    random = is_random(node) or any(m.random for m in inputs)
    return _UNKNOWN if random else _TABLE


def _covers(construction: Construction, node: fx.Node, storage: int) -> bool:
    """Whether an in-place operation writes all entries of its memory."""
    if operation(node) == "setitem":
        return False
    first = node.args[0]
    assert isinstance(first, fx.Node)
    sizes = [
        math.prod(v.sizes)
        for n in (first, construction.nodes[_maker(construction, storage)])
        if (v := construction.values[n.name]) is not None
    ]
    return len(sizes) < 2 or sizes[0] == sizes[1]


def _maker(construction: Construction, storage: int) -> str:
    return next(name for name, s in construction.storages.items() if s == storage)


def _overwritten(before: Moments, part: Moments) -> Moments:
    """Zeros in some rows (a padding row) leave the rest as it is; so does a part of a table."""
    return before if part.constant == 0 else replace(before, partial=True)


_SAME = frozenset(
    "view reshape transpose t permute contiguous clone detach data requires_grad to float double "
    "half bfloat16 type squeeze unsqueeze expand flatten getitem select narrow chunk split "
    "as_strided swapaxes clamp clip alias setattr".split()
)


def _is_view(node: fx.Node) -> bool:
    return operation(node) in _SAME


Step = Callable[[fx.Node, list[Moments]], Moments | None]


def _step(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    """The distribution after one operation; `None` if no rule knows it."""
    name = operation(node)
    if name in _SAME:
        return inputs[0] if inputs else None
    step = _STEPS.get(name)
    return step(node, inputs) if step is not None else None


def _uniform(node: fx.Node, inputs: list[Moments]) -> Moments:
    low, high = _number(node, 1, "from", 0.0), _number(node, 2, "to", 1.0)
    return Moments((low + high) / 2, (high - low) / math.sqrt(12), True, "uniform")


def _normal(node: fx.Node, inputs: list[Moments]) -> Moments:
    return Moments(_number(node, 1, "mean", 0.0), _number(node, 2, "std", 1.0), True, "normal")


def _trunc_normal(node: fx.Node, inputs: list[Moments]) -> Moments:
    mean, std = _number(node, 1, "mean", 0.0), _number(node, 2, "std", 1.0)
    a, b = _number(node, 3, "a", -2.0), _number(node, 4, "b", 2.0)
    return truncated_normal(mean, std, a, b)


def truncated_normal(mean: float, std: float, a: float, b: float) -> Moments:
    """Moments of a normal distribution cut off at a and b."""
    low, high = (a - mean) / std, (b - mean) / std

    def pdf(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    shift = (pdf(low) - pdf(high)) / mass
    variance = 1 + (low * pdf(low) - high * pdf(high)) / mass - shift * shift
    return Moments(mean + std * shift, std * math.sqrt(variance), True, "truncated normal")


def _orthogonal(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    return None


def _zeros(node: fx.Node, inputs: list[Moments]) -> Moments:
    return _constant(0.0)


def _ones(node: fx.Node, inputs: list[Moments]) -> Moments:
    return _constant(1.0)


def _fill(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    value = argument(node, 1, "value")[1]
    return _constant(float(value)) if isinstance(value, (int, float)) else None


def _full(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    value = argument(node, 1, "fill_value")[1]
    return _constant(float(value)) if isinstance(value, (int, float)) else None


def _copy(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    return inputs[1] if len(inputs) > 1 else None


def _randn(node: fx.Node, inputs: list[Moments]) -> Moments:
    return Moments(0.0, 1.0, True, "normal")


def _rand(node: fx.Node, inputs: list[Moments]) -> Moments:
    return Moments(0.5, 12**-0.5, True, "uniform")


def _scaled(by: float, value: Moments) -> Moments:
    constant = None if value.constant is None else value.constant * by
    return replace(value, mean=value.mean * by, std=value.std * abs(by), constant=constant)


def _mul(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    numbers = [a for a in node.args if isinstance(a, (int, float))]
    return _scaled(numbers[0], inputs[0]) if numbers and inputs else None


def _div(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    by = node.args[1]
    return _scaled(1 / by, inputs[0]) if isinstance(by, (int, float)) and inputs else None


def _neg(node: fx.Node, inputs: list[Moments]) -> Moments:
    return _scaled(-1.0, inputs[0])


def _add(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    numbers = [a for a in node.args if isinstance(a, (int, float))]
    if not numbers or not inputs:
        return None
    sign = -1 if operation(node) == "sub" else 1
    value = inputs[0]
    if sign < 0 and isinstance(node.args[0], (int, float)):
        value, sign = _scaled(-1.0, value), 1
    by = sign * numbers[0]
    constant = None if value.constant is None else value.constant + by
    return replace(value, mean=value.mean + by, constant=constant)


def _erfinv(node: fx.Node, inputs: list[Moments]) -> Moments | None:
    """`erfinv` of a uniform draw is a truncated normal of standard deviation 1/sqrt(2)."""
    value = inputs[0]
    if value.kind != "uniform":
        return None
    half = value.std * math.sqrt(3)
    low, high = (_quantile((1 + value.mean + s * half) / 2) for s in (-1, 1))
    return _scaled(math.sqrt(0.5), truncated_normal(0.0, 1.0, low, high))


def _quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(min(max(p, 1e-300), 1 - 1e-16))


def _number(node: fx.Node, position: int, name: str, default: float) -> float:
    value: Any = argument(node, position, name)[1]
    return default if value is None else float(value)


_STEPS: Mapping[str, Step] = {
    "uniform": _uniform,
    "normal": _normal,
    "trunc_normal": _trunc_normal,
    "zeros": _zeros,
    "zeros_like": _zeros,
    "new_zeros": _zeros,
    "zero": _zeros,
    "empty": _zeros,
    "empty_like": _zeros,
    "ones": _ones,
    "ones_like": _ones,
    "new_ones": _ones,
    "fill": _fill,
    "full": _full,
    "copy": _copy,
    "randn": _randn,
    "randn_like": _randn,
    "rand": _rand,
    "rand_like": _rand,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "add": _add,
    "sub": _add,
    "erfinv": _erfinv,
}
