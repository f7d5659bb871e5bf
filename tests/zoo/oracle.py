"""What the axes of a parameter do, found by changing its entries: knows nothing of mufx.

A model runs once, for real, and every operation that meets something made of parameters with
something that depends on the input is a place where these parameters are used. There the operation
runs again, alone, with one entry of a parameter changed, and what comes out is compared:

    y = F.linear(x, w)      w[3, 0] and w[3, 5] change the same entries of y: axis 1 is contracted
                            w[3, 0] and w[4, 0] change others: axis 0 is kept

All other operands are random, since zeros that a relu left would hide what depends on them.

Two readings are for parameters that meet other parameters before an activation does:

    F.linear(x, v * g / v.norm())     a norm over many entries: of what an entry changes, only what
                                      changes by more than a tenth of the most counts (`faint`)
    (a * b).sum()                     a vector is to the other what an activation is: the others
                                      are named as `activations`
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

Values = Mapping[str, Tensor]
Axes = frozenset[int]


class Judged(NamedTuple):
    """Role, and how many times more a target contracts and keeps."""

    role: str
    m_in: float
    m_out: float


@dataclass(frozen=True, eq=False)
class _Leaf:
    name: str


@dataclass(frozen=True, eq=False)
class _Made:
    """What a call makes of parameters, or the `index`-th of its results."""

    call: _Call
    index: int

    @property
    def names(self) -> frozenset[str]:
        return self.call.names


_Origin = _Leaf | _Made


@dataclass(frozen=True, eq=False)
class _Call:
    """A call, with origins in the place of what is made of parameters."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    names: frozenset[str]

    def results(self, values: Values, known: dict[_Call, list[Tensor]]) -> list[Tensor]:
        """Its tensors, with these values of the parameters."""
        if self not in known:
            args, kwargs = pytree.tree_map(
                lambda item: _value(item, values, known), (self.args, dict(self.kwargs))
            )
            made = self.function(*args, **kwargs)
            known[self] = _tensors(args[0] if made is None else made)
        return known[self]


def _value(item: object, values: Values, known: dict[_Call, list[Tensor]]) -> object:
    if isinstance(item, _Leaf):
        return values[item.name]
    if isinstance(item, _Made):
        return item.call.results(values, known)[item.index]
    return item.clone() if isinstance(item, Tensor) else item  # it may be written in place


def _tensors(value: object) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]


@dataclass
class _Uses(TorchFunctionMode):
    """Notes every call that meets parameters with what depends on an input."""

    names: dict[int, str]
    found: list[_Call] = field(default_factory=list)
    origins: dict[int, _Origin] = field(default_factory=dict)
    inputs: set[int] = field(default_factory=set)
    alive: list[Tensor] = field(default_factory=list)
    """An id stands for a tensor as long as it lives."""

    def __post_init__(self) -> None:
        super().__init__()
        self.origins.update({key: _Leaf(name) for key, name in self.names.items()})

    def depend(self, value: object) -> None:
        """Marks tensors as dependent on an input."""
        for tensor in _tensors(value):
            self.origins.pop(id(tensor), None)
            self.inputs.add(id(tensor))
            self.alive.append(tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = _tensors((args, kwargs))
        origins = [self.origins[id(t)] for t in given if id(t) in self.origins]
        call = self._call(func, args, kwargs or {}, origins)  # before a call that writes in place
        made = func(*args, **(kwargs or {}))
        results = args[0] if made is None and args else made
        if any(id(t) in self.inputs for t in given):
            self.depend(results)
            if origins and _tensors(results):
                self.found.append(call)
        elif origins:
            self._follow(call, results)
        return made

    def _call(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        origins: Sequence[_Origin],
    ) -> _Call:
        names = frozenset[str]().union(*(_names(origin) for origin in origins))
        if not origins:
            return _Call(func, (), {}, names)
        met = any(id(t) in self.inputs for t in _tensors((args, kwargs)))
        held_args, held_kwargs = pytree.tree_map(
            lambda item: self._operand(item, met), (args, dict(kwargs))
        )
        return _Call(func, held_args, held_kwargs, names)

    def _operand(self, item: object, met: bool) -> object:
        if not isinstance(item, Tensor):
            return item
        if id(item) in self.origins:
            return self.origins[id(item)]
        return _random(item) if met and item.is_floating_point() else item.detach().clone()

    def _follow(self, call: _Call, results: object) -> None:
        for index, tensor in enumerate(_tensors(results)):
            self.origins[id(tensor)] = _Made(call, index)
            self.alive.append(tensor)


def _names(origin: _Origin) -> frozenset[str]:
    return frozenset({origin.name}) if isinstance(origin, _Leaf) else origin.names


def _random(like: Tensor) -> Tensor:
    """Positive, since it may be a variance, and small, so that no gate saturates."""
    return torch.rand(like.shape, generator=_DRAWS).to(like.dtype) / 50 + 0.01


_DRAWS = torch.Generator()


# -- one use ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Probe:
    """One use of one parameter, with random values for all."""

    call: _Call
    name: str
    values: Values
    faint: float

    def changed(self, entry: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Where the results differ once an entry is another."""
        moved = self.values[self.name].clone()
        moved[entry] += 0.01
        before, after = self._results(self.values), self._results(self._with(moved))
        apart = [(a - b).abs() for a, b in zip(before, after, strict=True)]
        least = self.faint * max((float(a.max()) for a in apart if a.numel()), default=0.0)
        return tuple(a > least for a in apart)

    def _results(self, values: Values) -> list[Tensor]:
        return [t for t in self.call.results(values, {}) if t.is_floating_point()]

    def _with(self, value: Tensor) -> Values:
        return {**self.values, self.name: value}

    def start(self) -> tuple[int, ...] | None:
        """An entry that something depends on; a table may hold many that nobody looks up."""
        value = self.values[self.name].detach().clone().requires_grad_()
        with torch.enable_grad():
            total = sum((t * _random(t)).sum() for t in self._results(self._with(value)))
        if not isinstance(total, Tensor) or not total.requires_grad:
            return None
        (slope,) = torch.autograd.grad(total, value, allow_unused=True, materialize_grads=True)
        if not slope.any():
            return None
        place = int(slope.abs().argmax())
        return tuple(int(i) for i in torch.unravel_index(torch.tensor(place), value.shape))

    def contracts(self, start: tuple[int, ...], axis: int) -> bool:
        """Whether entries along an axis all change the same results."""
        size = self.values[self.name].shape[axis]
        first = self.changed(start)
        for index in sorted({0, 1, size // 2, size - 1} - {start[axis]}):
            other = self.changed((*start[:axis], index, *start[axis + 1 :]))
            if any((a != b).any() for a, b in zip(first, other, strict=True)):
                return False
        return True


def _axes(probe: _Probe, grown: Sequence[int]) -> Axes | None:
    """Those of the axes that grow which are contracted; `None` where nothing depends on it."""
    start = probe.start()
    return None if start is None else frozenset(a for a in grown if probe.contracts(start, a))


# -- all of a model -----------------------------------------------------------------------------


def judged(
    model: nn.Module,
    wide: nn.Module,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    largest: Mapping[tuple[str, int], float] = MappingProxyType({}),
    activations: Collection[str] = (),
    faint: float = 0.0,
) -> dict[str, frozenset[Judged]]:
    """What every parameter of a model is, by each of its uses.

    Args:
        model: At base width, in evaluation, with real weights.
        wide: At target width; only its shapes are read, so it may be on `meta`.
        args: Inputs, and by name `kwargs`.
        largest: By parameter and axis: how many times more entries the part has that grows most,
            where an axis is joined of parts that grow unlike.
        activations: Parameters that stand for activations, and are not judged.
        faint: A change is one where it is more than this part of the largest.
    """
    _DRAWS.manual_seed(0)
    shapes = {name: tuple(p.shape) for name, p in wide.named_parameters()}
    values = {name: _random(p) for name, p in model.named_parameters()}
    found: dict[str, set[Judged]] = {name: set() for name in values}
    for call, name in _sites(model, args, kwargs, activations):
        base, target = tuple(values[name].shape), shapes[name]
        grown = [i for i, (n, m) in enumerate(zip(base, target, strict=True)) if n != m]
        contracted = _axes(_Probe(call, name, values, faint), grown)
        if contracted is not None:
            times = {axis: target[axis] / base[axis] for axis in grown}
            kept = {axis: largest.get((name, axis), m) for axis, m in times.items()}
            found[name].add(_judged(times, kept, contracted))
    return {
        name: frozenset(uses) or frozenset({UNUSED})
        for name, uses in found.items()
        if name not in activations
    }


UNUSED = Judged("scalar", 1.0, 1.0)


def _sites(
    model: nn.Module,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    activations: Collection[str],
) -> Iterator[tuple[_Call, str]]:
    parameters = dict(model.named_parameters())
    uses = _Uses({id(p): name for name, p in parameters.items() if name not in activations})
    uses.depend((args, dict(kwargs), [parameters[name] for name in activations]))
    with torch.no_grad(), uses:
        model(*args, **kwargs)
    for call in uses.found:
        yield from ((call, name) for name in sorted(call.names))


def _judged(times: Mapping[int, float], kept: Mapping[int, float], contracted: Axes) -> Judged:
    roles = {(True, True): "hidden", (True, False): "output", (False, True): "input"}
    m_in = prod(m for axis, m in times.items() if axis in contracted)
    m_out = prod(m for axis, m in kept.items() if axis not in contracted)
    keeps = bool(times.keys() - contracted)
    return Judged(roles.get((bool(contracted), keeps), "scalar"), m_in, m_out)


def decided(uses: frozenset[Judged]) -> Judged:
    """Of a tied embedding the lookup, which contracts nothing (Tensor Programs V, Table 8)."""
    return min(uses, key=lambda use: (use.m_in, use))
