"""The distribution that a constructor gives each parameter and buffer.

The init tape is walked once with distributions in the place of tensors, so the answer is exact
and takes no memory, at any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import torch
from torch import fx

from mufx.construction import Construction, Span, is_in_place, is_random, run_nodes
from mufx.diagnostics import MufxError, error
from mufx.rules.table import argument, operation

_SMALL = 2**24  # elements that are computed for real where no rule knows the distribution
_SAMPLE = 2**12  # entries that are drawn at least
DEVIATIONS = 4.0  # standard errors of a sample: what differs by less may be chance


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of the entries of one tensor.

    Attributes:
        mean: Of all entries.
        std: Of all entries; 0 for a constant.
        random: Whether the entries are drawn.
        kind: "uniform", "normal", "truncated normal", "orthogonal", "sparse" or "norm" (of drawn
            rows); "constant", or "table" for other deterministic values; "measured" for a sample
            of an unknown distribution.
        constant: The value, where all entries are equal.
        partial: Whether some entries of a random tensor were overwritten with a value other than
            zero. The moments are then those of the entries that are still random.
        error: Of a sample: the standard error of its root mean square, relative to that.
    """

    mean: float
    std: float
    random: bool
    kind: str
    constant: float | None = None
    partial: bool = False
    error: float = 0.0

    @property
    def size(self) -> float:
        """The root mean square of the entries: the standard deviation where the mean is zero."""
        return math.hypot(self.mean, self.std)


def moments(construction: Construction, name: str) -> Moments:
    """The distribution of one parameter or buffer.

    Raises:
        MufxError: `MUF109`: a large tensor made by an operation that no rule here knows.
    """
    node = construction.tensors[name]
    pieces = _walk(construction)[construction.storages[node]]
    found = _summary(_within(pieces, construction.spans[node]))
    return found if not math.isnan(found.mean) else _measured(construction, name, found)


def moments_of_rows(
    construction: Construction, name: str, rows: Iterable[tuple[int, int]]
) -> Moments | None:
    """The distribution of some rows, (start, stop) on the first axis; `None` where unknown."""
    node = construction.tensors[name]
    span, shape = construction.spans[node], construction.model.get_parameter(name).shape
    if not span.dense:
        return None
    width = math.prod(shape[1:])
    pieces = _walk(construction)[construction.storages[node]]
    parts = (
        Span(span.start + start * width, span.start + stop * width, True) for start, stop in rows
    )
    found = _summary(tuple(piece for part in parts for piece in _within(pieces, part)))
    return None if math.isnan(found.mean) else found


def _measured(construction: Construction, name: str, found: Moments) -> Moments:
    """The moments of the tensor itself, computed for real."""
    node = construction.tensors[name]
    program = construction.program(name)
    values = [v for n in program if (v := construction.values.get(n.name)) is not None]
    if max(math.prod(v.sizes) for v in values) > _SMALL:
        raise MufxError(
            error(
                "MUF109",
                f"how {name} is {'drawn' if found.random else 'computed'} is not known to mufx",
                hint="draw it with torch.nn.init, or with normal_ or uniform_ times a number",
                place=construction.origins[node].place,
            )
        )
    entries = _drawn(construction, name, found.random)
    if not entries.numel():
        return Moments(0.0, 0.0, False, "constant", 0.0)
    mean, std = float(entries.mean()), float(entries.std(correction=0))
    first = float(entries[0])
    if not found.random and bool((entries == first).all()):
        return Moments(first, 0.0, False, "constant", first)
    if not found.random:
        return replace(found, mean=mean, std=std, error=0.0)
    is_chance = abs(mean) < DEVIATIONS * std / math.sqrt(len(entries))
    return replace(found, mean=0.0 if is_chance else mean, std=std, error=_error(entries))


def _drawn(construction: Construction, name: str, random: bool) -> torch.Tensor:
    """The tensor for real; a small one is drawn often enough to tell its distribution.

    Real and imaginary parts are entries alike.
    """
    node = construction.nodes[construction.tensors[name]]
    program, entries = construction.program(name), list[torch.Tensor]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        while not entries or (random and 0 < sum(map(len, entries)) < _SAMPLE):
            made: torch.Tensor = run_nodes(program, construction.constants, "cpu")[node]
            parts = torch.view_as_real(made) if made.is_complex() else made
            entries.append(parts.double().flatten())
    return torch.cat(entries)


def _error(entries: torch.Tensor) -> float:
    """How far the root mean square of independent entries is off, by the spread of the squares."""
    squares = entries**2
    mean = float(squares.mean())
    spread = float(squares.std(correction=0)) / math.sqrt(len(squares))
    return spread / (2 * mean) if mean else 0.0


# -- the walk ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Law:
    """The distribution of every entry of a piece of memory; mean NaN where it is unknown."""

    mean: float
    std: float
    random: bool
    kind: str
    low: float = -math.inf
    high: float = math.inf

    @property
    def value(self) -> float | None:
        """The number that all entries are, if it is known."""
        return self.mean if self.kind == "constant" else None


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    stop: int
    law: _Law


_TABLE = _Law(math.nan, math.nan, False, "table")
_UNKNOWN = _Law(math.nan, math.nan, True, "measured")
_WRITES = frozenset({
    "uniform", "normal", "fill", "zero", "copy", "trunc_normal", "orthogonal", "sparse",
    "dirac", "eye", "setitem", "random", "bernoulli", "exponential", "cauchy", "geometric",
    "log_normal",
})  # fmt: skip
"""In-place operations whose result does not depend on what was there."""


@lru_cache(maxsize=8)
def _walk(construction: Construction) -> Mapping[int, tuple[_Piece, ...]]:
    """By storage: the distributions after the whole constructor has run."""
    memory: dict[int, tuple[_Piece, ...]] = {}
    for node in construction.graph.nodes:
        storage = construction.storages.get(node.name)
        if storage is None:
            continue
        span = construction.spans[node.name]
        before = memory.get(storage)
        if before is None:
            memory[storage] = (_Piece(0, span.stop, _made(_Step(construction, memory, node))),)
        elif is_in_place(node):
            step = _Step(construction, memory, node)
            memory[storage] = _write(before, span, _changed(step, _within(before, span), span))
    return memory


def _made(step: _Step) -> _Law:
    """The distribution of a new tensor."""
    if step.node.op == "get_attr":
        return _TABLE
    return _ruled(step) or step.unknown()


def _changed(step: _Step, pieces: tuple[_Piece, ...], span: Span) -> tuple[_Piece, ...]:
    """The pieces that an in-place operation leaves behind, within `span`."""
    name = operation(step.node)
    if name in _WRITES:
        return (_Piece(span.start, span.stop, _ruled(step) or step.unknown(before=False)),)
    steps = [(p, replace(step, first=p.law)) for p in pieces]
    return tuple(replace(p, law=_ruled(s) or s.unknown()) for p, s in steps)


def _ruled(step: _Step) -> _Law | None:
    name = operation(step.node)
    if name in _SAME:
        return step.law(0)
    rule = _RULES.get(name)
    return rule(step) if rule is not None else None


def _write(
    before: tuple[_Piece, ...], span: Span, pieces: tuple[_Piece, ...]
) -> tuple[_Piece, ...]:
    """`before` with `pieces` in the place of `span`."""
    if not span.dense:
        return tuple(_mixed(p, span, pieces) for p in before)
    kept = [_Piece(p.start, min(p.stop, span.start), p.law) for p in before]
    kept += pieces
    kept += [_Piece(max(p.start, span.stop), p.stop, p.law) for p in before]
    merged: list[_Piece] = []
    for piece in (p for p in kept if p.start < p.stop):
        if merged and merged[-1].law == piece.law:
            merged[-1] = replace(merged[-1], stop=piece.stop)
        else:
            merged.append(piece)
    return tuple(merged)


def _mixed(piece: _Piece, span: Span, written: tuple[_Piece, ...]) -> _Piece:
    """`piece` after some of the entries between the bounds of `span` were written."""
    if piece.stop <= span.start or span.stop <= piece.start:
        return piece
    laws = {p.law for p in written} | {piece.law}
    if len(laws) == 1 or (piece.law.random and all(p.law.value == 0 for p in written)):
        return piece
    return replace(piece, law=_UNKNOWN if any(law.random for law in laws) else _TABLE)


def _within(pieces: Iterable[_Piece], span: Span) -> tuple[_Piece, ...]:
    clipped = (_Piece(max(p.start, span.start), min(p.stop, span.stop), p.law) for p in pieces)
    return tuple(p for p in clipped if p.start < p.stop)


def _summary(pieces: tuple[_Piece, ...]) -> Moments:
    """The moments over several pieces; zeros in a random tensor (a padding row) do not count."""
    if not pieces:
        return Moments(0.0, 0.0, False, "constant", 0.0)
    drawn = [p for p in pieces if p.law.random]
    counted = drawn or list(pieces)
    partial = any(p.law.value != 0 for p in pieces if not p.law.random) and bool(drawn)
    first = counted[0].law
    if all(p.law == first for p in counted):
        return Moments(first.mean, first.std, first.random, first.kind, first.value, partial)
    total = sum(p.stop - p.start for p in counted)
    weights = [(p.stop - p.start) / total for p in counted]
    mean = sum(w * p.law.mean for w, p in zip(weights, counted, strict=True))
    square = sum(
        w * (p.law.std**2 + (p.law.mean - mean) ** 2) for w, p in zip(weights, counted, strict=True)
    )
    kinds = {p.law.kind for p in counted}
    kind = ("mixture" if len(kinds) > 1 else kinds.pop()) if drawn else "table"
    return Moments(mean, math.sqrt(square), bool(drawn), kind, None, partial)


# -- the rules --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """One operation, and what is known of its operands."""

    construction: Construction
    memory: Mapping[int, tuple[_Piece, ...]]
    node: fx.Node
    first: _Law | None = None

    def law(self, position: int) -> _Law | None:
        """The distribution of an operand; a number is a constant."""
        if position == 0 and self.first is not None:
            return self.first
        value = self.node.args[position] if position < len(self.node.args) else None
        if isinstance(value, (int, float)):
            return _constant(float(value))
        return self._of(value) if isinstance(value, fx.Node) else None

    def _of(self, node: fx.Node) -> _Law | None:
        storage = self.construction.storages.get(node.name)
        if storage is None:
            return None
        pieces = _within(self.memory[storage], self.construction.spans[node.name])
        laws = {p.law for p in pieces}
        if len(laws) == 1:
            return laws.pop()
        return _UNKNOWN if any(law.random for law in laws) else _TABLE

    def number(self, position: int, name: str, default: float) -> float:
        """A number among the arguments."""
        value: Any = argument(self.node, position, name)[1]
        if isinstance(value, fx.Node):
            return math.nan
        return default if value is None else float(value)

    def sizes(self) -> tuple[int, ...]:
        """The shape of the first operand."""
        value = self.construction.values[self.node.all_input_nodes[0].name]
        assert value is not None
        return value.sizes

    def unknown(self, before: bool = True) -> _Law:
        """The result of an operation without a rule."""
        sources = self.node.all_input_nodes if before else self.node.all_input_nodes[1:]
        laws = [self._of(n) for n in sources]
        random = is_random(self.node) or any(law.random for law in laws if law is not None)
        return _UNKNOWN if random else _TABLE


_Rule = Callable[[_Step], _Law | None]


def _constant(value: float) -> _Law:
    return _Law(value, 0.0, False, "constant", value, value)


def _uniform(step: _Step) -> _Law:
    low, high = step.number(1, "from", 0.0), step.number(2, "to", 1.0)
    return _Law((low + high) / 2, (high - low) / math.sqrt(12), True, "uniform", low, high)


def _normal(step: _Step) -> _Law:
    """`tensor.normal_(mean, std)`, and `torch.normal(mean, std, size)`."""
    first = 0 if step.node.target is torch.normal else 1
    mean, std = step.number(first, "mean", 0.0), step.number(first + 1, "std", 1.0)
    return _Law(mean, std, True, "normal")


def _trunc_normal(step: _Step) -> _Law:
    mean, std = step.number(1, "mean", 0.0), step.number(2, "std", 1.0)
    return _truncated(mean, std, step.number(3, "a", -2.0), step.number(4, "b", 2.0))


def truncated_normal(mean: float, std: float, a: float, b: float) -> Moments:
    """Moments of a normal distribution cut off at a and b.

    At two standard deviations on both sides the standard deviation is 0.8796 of the normal's.
    """
    law = _truncated(mean, std, a, b)
    return Moments(law.mean, law.std, law.random, law.kind)


def _truncated(mean: float, std: float, a: float, b: float) -> _Law:
    if std == 0:
        return _constant(min(max(mean, a), b))
    low, high = (a - mean) / std, (b - mean) / std
    normal = NormalDist()

    def density(x: float) -> tuple[float, float]:
        return (0.0, 0.0) if math.isinf(x) else (normal.pdf(x), x * normal.pdf(x))

    mass = normal.cdf(high) - normal.cdf(low)
    shift = (density(low)[0] - density(high)[0]) / mass
    variance = 1 + (density(low)[1] - density(high)[1]) / mass - shift * shift
    spread = std * math.sqrt(variance)
    return _Law(mean + std * shift, spread, True, "truncated normal", a, b)


def _orthogonal(step: _Step) -> _Law:
    """A semi-orthogonal matrix: its min(rows, columns) unit vectors fill rows * columns."""
    rows, *rest = step.sizes()
    gain = step.number(1, "gain", 1.0)
    return _Law(0.0, gain / math.sqrt(max(rows, math.prod(rest))), True, "orthogonal")


def _sparse(step: _Step) -> _Law:
    """A normal draw with the same number of zeros in every column."""
    rows = step.sizes()[0]
    zeros = math.ceil(step.number(1, "sparsity", 0.0) * rows)
    std = step.number(2, "std", 0.01) * math.sqrt(1 - zeros / rows)
    return _Law(0.0, std, True, "sparse")


def _ones_among(ones: int, total: int) -> _Law:
    mean = ones / total
    return _Law(mean, math.sqrt(mean - mean * mean), False, "table", 0.0, 1.0)


def _dirac(step: _Step) -> _Law:
    out, inner, *_ = step.sizes()
    groups = int(step.number(1, "groups", 1))
    return _ones_among(min(out // groups, inner) * groups, math.prod(step.sizes()))


def _eye(step: _Step) -> _Law:
    value = step.construction.values[step.node.name]
    assert value is not None
    return _ones_among(min(value.sizes), math.prod(value.sizes))


def _norm_except_dim(step: _Step) -> _Law | None:
    """The length of a row of k independent entries; weight norm begins with it.

    Its mean square is k times the variance. How that is split between mean and standard deviation
    is exact for normal entries, and for uniform ones nearly as far from sqrt(k) as their squares
    spread less, (9/5 - 1) over (3 - 1).
    """
    law, sizes = step.law(0), step.sizes()
    dim = int(step.number(2, "dim", 0))
    spread = {"normal": 1.0, "uniform": 0.4}.get(law.kind) if law is not None else None
    if law is None or spread is None or law.mean or step.number(1, "pow", 2) != 2:
        return None
    k = math.prod(sizes) // (sizes[dim] if dim >= 0 else 1)
    normal = math.sqrt(2) * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2))
    mean = math.sqrt(k) - spread * (math.sqrt(k) - normal)
    return _Law(law.std * mean, law.std * math.sqrt(k - mean * mean), True, "norm", low=0.0)


def _zeros(step: _Step) -> _Law:
    return _constant(0.0)


def _ones(step: _Step) -> _Law:
    return _constant(1.0)


def _filled(step: _Step) -> _Law | None:
    """`fill_` and `full`: a number, or a tensor of one element."""
    value = argument(step.node, 1, "value")[1]
    if value is None:
        value = step.node.kwargs.get("fill_value")
    if isinstance(value, (int, float)):
        return _constant(float(value))
    return step.law(1)


def _copied(step: _Step) -> _Law | None:
    return step.law(1)


def _assigned(step: _Step) -> _Law | None:
    return step.law(2)


def _standard_normal(step: _Step) -> _Law:
    return _Law(0.0, 1.0, True, "normal")


def _standard_uniform(step: _Step) -> _Law:
    return _Law(0.5, 12**-0.5, True, "uniform", 0.0, 1.0)


def _tensor(step: _Step) -> _Law | None:
    value = step.node.args[0]
    return _constant(float(value)) if isinstance(value, (int, float)) else None


def _scaled(by: float, law: _Law) -> _Law:
    low, high = sorted((law.low * by, law.high * by)) if by else (0.0, 0.0)
    moved = replace(law, mean=law.mean * by, std=law.std * abs(by), low=low, high=high)
    return moved if by else _constant(0.0)


def _shifted(by: float, law: _Law) -> _Law:
    return replace(law, mean=law.mean + by, low=law.low + by, high=law.high + by)


def _split(step: _Step) -> tuple[float, _Law] | None:
    """A constant operand and the other one."""
    left, right = step.law(0), step.law(1)
    if left is None or right is None:
        return None
    if right.value is not None:
        return right.value, left
    return (left.value, right) if left.value is not None else None


def _mul(step: _Step) -> _Law | None:
    found = _split(step)
    return _scaled(*found) if found is not None else None


def _div(step: _Step) -> _Law | None:
    left, right = step.law(0), step.law(1)
    if left is None or right is None or not right.value or step.node.kwargs:
        return None
    return _scaled(1 / right.value, left)


def _neg(step: _Step) -> _Law | None:
    law = step.law(0)
    return _scaled(-1.0, law) if law is not None else None


def _add(step: _Step) -> _Law | None:
    found = _split(step)
    return _shifted(*found) if found is not None and not step.node.kwargs else None


def _sub(step: _Step) -> _Law | None:
    left, right = step.law(0), step.law(1)
    if left is None or right is None or step.node.kwargs:
        return None
    if right.value is not None:
        return _shifted(-right.value, left)
    return _shifted(left.value, _scaled(-1.0, right)) if left.value is not None else None


def _erfinv(step: _Step) -> _Law | None:
    """`erfinv` of a uniform draw is a normal of standard deviation 1/sqrt(2), cut off."""
    law = step.law(0)
    if law is None or law.kind != "uniform" or law.low < -1 or law.high > 1:
        return None
    ends = [min(max((1 + u) / 2, 1e-16), 1 - 1e-16) for u in (law.low, law.high)]
    low, high = (NormalDist().inv_cdf(p) for p in ends)
    return _scaled(math.sqrt(0.5), _truncated(0.0, 1.0, low, high))


def _clamp(step: _Step) -> _Law | None:
    """Known where the bounds cut off nothing."""
    law = step.law(0)
    low, high = step.number(1, "min", -math.inf), step.number(2, "max", math.inf)
    if law is None:
        return None
    slack = 1e-5 * law.std
    return law if low <= law.low + slack and high >= law.high - slack else None


_SAME = frozenset({
    "view", "reshape", "transpose", "t", "permute", "contiguous", "clone", "detach", "data",
    "to", "float", "double", "half", "bfloat16", "type", "squeeze", "unsqueeze", "expand",
    "expand_as", "repeat", "flatten", "unflatten", "getitem", "select", "narrow", "chunk",
    "split", "as_strided", "swapaxes", "swapdims", "movedim", "view_as", "type_as", "flip",
    "alias", "requires_grad", "cpu", "cuda", "tile",
})  # fmt: skip
"""Operations that give every entry of their result one entry's distribution."""

_RULES: Mapping[str, _Rule] = {
    "uniform": _uniform,
    "normal": _normal,
    "trunc_normal": _trunc_normal,
    "orthogonal": _orthogonal,
    "sparse": _sparse,
    "dirac": _dirac,
    "eye": _eye,
    "norm_except_dim": _norm_except_dim,
    "zeros": _zeros,
    "zeros_like": _zeros,
    "new_zeros": _zeros,
    "zero": _zeros,
    "empty": _zeros,
    "empty_like": _zeros,
    "new_empty": _zeros,
    "ones": _ones,
    "ones_like": _ones,
    "new_ones": _ones,
    "fill": _filled,
    "full": _filled,
    "full_like": _filled,
    "new_full": _filled,
    "tensor": _tensor,
    "copy": _copied,
    "setitem": _assigned,
    "randn": _standard_normal,
    "randn_like": _standard_normal,
    "rand": _standard_uniform,
    "rand_like": _standard_uniform,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "add": _add,
    "sub": _sub,
    "erfinv": _erfinv,
    "clamp": _clamp,
    "clip": _clamp,
}
