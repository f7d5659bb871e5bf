"""Where predicted and measured first steps part: each difference divided among its causes.

The prediction multiplies and adds. A change is a sum of terms, each the change of an operand times
a gain; a gradient is a sum of terms, each the gradient of a result times a gain; a weight changes
by its rate, or by that times its gradient. All of these numbers are measured in real first steps,
and the difference of two slopes is divided among the numbers that it was made of.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from mufx.api import trace
from mufx.check.experiment import Experiment
from mufx.check.links import Link, Links
from mufx.check.predicting import Prediction
from mufx.check.starting import Side
from mufx.check.training import SMALL
from mufx.check.watch import LOGITS, named_nodes
from mufx.program import Optimizer
from mufx.recording import InputDevice, Recording, Size
from mufx.sweep.settings import Parametrization, Point
from mufx.sweep.widths import Knobs

Env = dict[str, Any]
Logs = np.ndarray
"""Of a number: its logarithm by width; the mean over seeds where it is measured."""
_ZERO = 1e-200


@dataclass
class Sums:
    """Numbers that are sums of terms, each term made from another number.

    `values` by name; `terms` by name, and then by the name of what the term is made from. Changes
    are called as their nodes are, `gradient of x` is that of a node, or of a parameter.
    """

    values: dict[str, float] = field(default_factory=dict[str, float])
    terms: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))


# -- predicted ----------------------------------------------------------------------------------


def prediction(experiment: Experiment, knobs: Knobs) -> Prediction:
    """What is predicted in standard parametrization up to some width."""
    program, request = experiment.models.conversion(knobs).program, experiment.request
    original = trace(program.source, optimizer=request.optimizer, form=request.form)
    return Prediction(program, original.train, converted=False, batch=request.batch)


def predicted(made: Prediction, side: Side) -> Sums:
    """What the prediction multiplies and adds, at one side."""
    step, found = made.step(side), Sums()
    changes, slopes = step.changes(), step.slopes
    found.values |= step.sizes()
    found.values |= {_gradient(name): rows.size for name, rows in slopes.nodes.items()}
    for (operand, result), term in slopes.terms.items():
        found.terms[_gradient(operand)][_gradient(result)] = term
    for node in made.trace.graph.nodes:
        if node.op == "get_attr" and made.program.optimizer is Optimizer.SGD:
            found.terms[node.name][_gradient(node.name)] = found.values[node.name]
        for name, links in step.links(node.name):
            for link in links:
                if link.operand in changes:
                    parts = step.terms(node, link, changes[link.operand])
                    size = math.hypot(*(rows.size for _, rows in parts))
                    found.terms[name][link.operand] = size
    return found


def _gradient(name: str) -> str:
    return f"gradient of {name}"


# -- measured -----------------------------------------------------------------------------------


class Graph(nn.Module):
    """A recorded graph, with the parameters and the buffers of a live model."""

    def __init__(self, recording: Recording, model: nn.Module) -> None:
        super().__init__()
        self.recording = recording
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.held: dict[str, Tensor] = parameters | dict(
            model.named_buffers(remove_duplicate=False)
        )
        self.learning = frozenset(parameters)
        self.env: Env = {}

    def forward(self, *inputs: object) -> object:
        """Runs it, and keeps every value in `env`."""
        given = iter(inputs)
        env = self.env = {}
        for node in self.recording.graph.nodes:
            if node.op == "placeholder":
                env[node.name] = next(given, None)
            elif node.op == "get_attr":
                env[node.name] = self.held[str(node.target)]
            elif node.op == "output":
                return self._real(node.args[0], env)
            else:
                env[node.name] = self.call(node, env)
        raise AssertionError("a graph ends with its output")

    def call(self, node: fx.Node, env: Mapping[str, Any]) -> Any:
        """What one node computes from given operands."""
        args, kwargs = self._real(node.args, env), self._real(dict(node.kwargs), env)
        if callable(node.target):
            return node.target(*args, **kwargs)
        return getattr(args[0], node.target)(*args[1:], **kwargs)

    def logits(self, node: fx.Node, env: Mapping[str, Any]) -> Tensor:
        """The logits inside a fused attention."""
        query, key = (self._real(n, env) for n in node.args[:2])
        scale = node.kwargs.get("scale")
        product: Tensor = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        return product

    def _real(self, value: Any, env: Mapping[str, Any]) -> Any:
        if isinstance(value, fx.Node):
            return env[value.name]
        if isinstance(value, InputDevice):
            return torch.device("cpu")
        if isinstance(value, Size):
            return int(value.expr.subs({s: self._length(str(s)) for s in value.expr.free_symbols}))
        if isinstance(value, slice):
            return slice(*(self._real(v, env) for v in (value.start, value.stop, value.step)))
        if isinstance(value, (tuple, list)):
            return type(value)(self._real(v, env) for v in value)
        if isinstance(value, dict):
            return {key: self._real(v, env) for key, v in value.items()}
        return value

    def _length(self, symbol: str) -> int:
        name, dim = self.recording.symbols[symbol]
        return int(self.env[name].shape[dim])


def measured(experiment: Experiment, links: Links, width: int, seed: int) -> Sums:
    """The same numbers in the first step of one run; `links` say of which terms there are any."""
    models, loss = experiment.models, experiment.feed.loss
    point = Point(Parametrization.SP, width, seed)
    model, optimizer = models.made(point, {"lr": experiment.request.lr})
    steps, knobs = experiment.request.steps + 1, models.widths[width]
    batch, *_ = experiment.feed.batches(seed, steps, models.device, knobs)
    model.train().double()
    batch = tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, batch)
    for group in optimizer.param_groups:
        group["lr"] *= SMALL
    at_base = links.side is Side.BASE
    graph, found = Graph(links.trace.base if at_base else links.trace.recording, model), Sums()
    _measure_gradients(graph, links, loss(graph, batch), found)
    before = tree_map_only(Tensor, lambda t: t.detach().clone(), graph.env)
    torch.autograd.backward(loss(model, batch))
    optimizer.step()
    with torch.no_grad():
        _measure_changes(graph, links, before, found)
    return found


def _measure_gradients(graph: Graph, links: Links, loss: Tensor, found: Sums) -> None:
    env = graph.env
    flat = [t for value in env.values() for t in _floats(value) if t.requires_grad]
    each = dict(zip(map(id, flat), torch.autograd.grad(loss, flat, allow_unused=True), strict=True))
    for node in graph.recording.graph.nodes:
        slopes = [each.get(id(t)) for t in _floats(env.get(node.name))]
        if all(slope is None for slope in slopes):
            continue
        found.values[_gradient(node.name)] = _size(slopes)
        for link in links.links.get(node.name, ()):
            back = _back(graph, node, link.operand, slopes)
            if back is not None:
                found.terms[_gradient(link.operand)][_gradient(node.name)] = back


def _back(
    graph: Graph, node: fx.Node, operand: str, slopes: Sequence[Tensor | None]
) -> float | None:
    """The size of what comes back to an operand from a result alone."""
    env = tree_map_only(Tensor, lambda t: t.detach(), graph.env)
    leaves = [t.requires_grad_() for t in _floats(env[operand])]
    pairs = [
        (result, slope)
        for result, slope in zip(_floats(graph.call(node, env)), slopes, strict=True)
        if slope is not None and result.requires_grad
    ]
    if not pairs:
        return None
    results, given = [result for result, _ in pairs], [slope for _, slope in pairs]
    back = torch.autograd.grad(results, leaves, given, allow_unused=True, materialize_grads=True)
    return _size(back)


def _measure_changes(graph: Graph, links: Links, before: Env, found: Sums) -> None:
    changes: Env = {}
    for node in graph.recording.graph.nodes:
        if node.op == "get_attr" and str(node.target) in graph.learning:
            changes[node.name] = graph.held[str(node.target)].detach() - before[node.name]
            found.values[node.name] = _size(changes[node.name])
            found.terms[node.name][_gradient(node.name)] = found.values[node.name]
        for name, some in _links(links, node.name):
            call = graph.logits if name.endswith(LOGITS) else graph.call
            terms = {
                operand: _moved(call, node, before, operand, changes[operand])
                for operand in dict.fromkeys(link.operand for link in some)
                if operand in changes
            }
            found.terms[name] = {operand: _size(term) for operand, term in terms.items()}
            if terms:
                changes[name] = reduce(_plus, terms.values())
                found.values[name] = _size(changes[name])


def _links(links: Links, name: str) -> Iterator[tuple[str, tuple[Link, ...]]]:
    if name in links.logits:
        yield f"{name}/{LOGITS}", links.logits[name]
    if name in links.links:
        yield name, links.links[name]


def _moved(call: Callable[..., Any], node: fx.Node, env: Env, operand: str, change: Any) -> Any:
    """What a small change of one operand makes of the result."""
    high, low = (_plus(env[operand], change, sign) for sign in (1, -1))
    moved = call(node, env | {operand: high}), call(node, env | {operand: low})
    return _plus(*moved, -1, 0.5)


def _plus(value: Any, change: Any, sign: float = 1, factor: float = 1) -> Any:
    return tree_map(lambda a, b: a if a is None else factor * (a + sign * b), value, change)


def _floats(value: Any) -> list[Tensor]:
    return [t for t in tree_leaves(value) if isinstance(t, Tensor) and t.is_floating_point()]


def _size(value: Any) -> float:
    """The root mean square, which is what adds up where terms are independent."""
    some = _floats(value)
    entries = sum(t.numel() for t in some)
    return math.sqrt(sum(float(t.square().sum()) for t in some) / entries) if entries else 0.0


# -- divided ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cause:
    """Where a difference comes in: a number, and how.

    `operand` is that of a gain; without one it is how the terms of a sum compare and add up.
    """

    name: str
    operand: str | None = None


@dataclass(frozen=True)
class Division:
    """Divides what a slope is more or less than predicted.

    In a sum, what was predicted is replaced by what was measured, one after the other: how each
    operand grows, how its gain does, and the rest, which is how large the terms are to each other
    and how they add up. What an operand brings is divided as its own difference is.

    Attributes:
        widths: At which both were found.
        wanted: Predicted, by width.
        real: Measured, by width and seed.
        names: By node: what a page calls it.
    """

    widths: Sequence[int]
    wanted: Sequence[Sums]
    real: Sequence[Sequence[Sums]]
    names: Mapping[str, str]

    @cached_property
    def _causes(self) -> dict[str, dict[Cause, float]]:
        return {}

    def slope(self, logs: Logs) -> float:
        """Over the logarithm of the width."""
        return float(np.polyfit(np.log(self.widths), logs, 1)[0])

    def predicted(self, name: str) -> Logs:
        """Of a number."""
        return _logs([[w.values.get(name, 0.0)] for w in self.wanted])

    def measured(self, name: str) -> Logs:
        """Of a number."""
        return _logs([[s.values.get(name, 0.0) for s in seeds] for seeds in self.real])

    def gains(self, name: str, operand: str) -> Logs:
        """By width: the measured gain over the predicted one."""
        wanted, real = self._terms(name, operand)
        return np.asarray(np.exp(real - wanted - self.measured(operand) + self.predicted(operand)))

    def leading(self, name: str) -> tuple[str, str]:
        """The two terms that are largest at the largest width."""
        last = self.real[-1][0].terms[name]
        one, other, *_ = sorted(self.operands(name), key=lambda operand: -last[operand])
        return one, other

    def balance(self, name: str, one: str, other: str) -> Logs:
        """By width: one term over another, measured over predicted."""
        (low, high), (less, more) = self._terms(name, one), self._terms(name, other)
        return np.asarray(np.exp(high - low - more + less))

    def adding(self, name: str) -> Logs:
        """By width: what the terms add up to over independent ones, measured over predicted."""
        terms = [self._terms(name, operand) for operand in self.operands(name)]
        off = [_added([t[i] for t in terms]) for i in (0, 1)]
        return np.asarray(np.exp(self.measured(name) - off[1] - self.predicted(name) + off[0]))

    def difference(self, name: str) -> float:
        """Measured less predicted."""
        return self.slope(self.measured(name)) - self.slope(self.predicted(name))

    def called(self, name: str) -> str:
        """What a page calls a number."""
        kind, _, node = name.rpartition(" of ")
        return f"{kind} of `{self.names[node]}`" if kind else f"`{self.names[node]}`"

    def causes(self, name: str) -> dict[Cause, float]:
        """The difference by cause; the causes sum up to it."""
        if name not in self._causes:
            self._causes[name] = self._divided(name)
        return self._causes[name]

    def operands(self, name: str) -> list[str]:
        """What the terms of a number are made from."""
        return [
            operand
            for operand in self.wanted[0].terms.get(name, {})
            if all(w.terms[name].get(operand, 0.0) > _ZERO for w in self.wanted)
            and all(s.terms[name].get(operand, 0.0) > 0 for seeds in self.real for s in seeds)
        ]

    def _divided(self, name: str) -> dict[Cause, float]:
        found: dict[Cause, float] = defaultdict(float)
        operands = self.operands(name)
        terms = {operand: self._terms(name, operand) for operand in operands}
        now = {operand: wanted for operand, (wanted, _) in terms.items()}
        rest = self.difference(name)
        for operand, (_, real) in terms.items():
            grown = self.measured(operand) - self.predicted(operand)
            for cause, then in ((None, now[operand] + grown), (Cause(name, operand), real)):
                before = self.slope(_added(list(now.values())))
                now[operand] = then - then.mean() + now[operand].mean()
                part = self.slope(_added(list(now.values()))) - before
                rest -= part
                if cause is not None:
                    found[cause] += part
                else:
                    self._bring(found, name, operand, part)
        found[Cause(name)] += rest
        return dict(found)

    def _bring(self, found: dict[Cause, float], name: str, operand: str, part: float) -> None:
        """Divides what an operand brings as its own difference is divided."""
        whole = self.difference(operand)
        share = part / whole if abs(whole) > 0.01 else 0.0
        if not 0 < share < 1.2:
            found[Cause(name, operand)] += part
            return
        for cause, own in self.causes(operand).items():
            found[cause] += share * own

    def _terms(self, name: str, operand: str) -> tuple[Logs, Logs]:
        wanted = _logs([[w.terms[name][operand]] for w in self.wanted])
        return wanted, _logs([[s.terms[name][operand] for s in seeds] for seeds in self.real])


def _logs(values: Sequence[Sequence[float]]) -> Logs:
    return np.asarray(np.log(np.maximum(np.array(values), _ZERO)).mean(axis=1))


def _added(terms: Sequence[Logs]) -> Logs:
    return np.asarray(np.log(np.sum([np.exp(2 * term) for term in terms], axis=0)) / 2)


def divided(experiment: Experiment) -> Division:
    """The differences of an example in standard parametrization, at the widths of a check."""
    widths = experiment.models.widths
    made = {width: prediction(experiment, knobs) for width, knobs in widths.items()}
    base, *_ = widths
    last = made[max(widths)]
    made[base] = last
    sides = {width: Side.BASE if width == base else Side.TARGET for width in widths}
    wanted = [predicted(made[width], side) for width, side in sides.items()]
    real = []
    for width, side in sides.items():
        links = made[width].step(side).start
        seeds = range(experiment.request.seeds)
        real.append([measured(experiment, links, width, seed) for seed in seeds])
    nodes = last.trace.graph.nodes
    names = {node.name: str(node.target) for node in nodes if node.op == "get_attr"}
    for name, node in named_nodes(last.trace):
        names |= {node.name: name, f"{node.name}/{LOGITS}": f"{name}/{LOGITS}"}
    return Division(tuple(widths), wanted, real, names)
