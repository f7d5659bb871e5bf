"""Which of the equivalent forms a model is written in, parameter by parameter.

The same training can be had with any multiplier theta in front of a weight, if init and learning
rate follow: A -> A theta, B -> B / theta, Adam's C -> C / theta, SGD's C -> C / theta**2 (the
abc-symmetry; Tensor Programs V, Lemma J.1). So the numbers of a parameter ask for a multiplier,
and the forward pass has it or not. Only both together are right or wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from mufx.align import Trace
from mufx.auditing.numbers import Found, close
from mufx.constants import Constants
from mufx.magnitudes import Magnitude, Rank, Site, SiteKind, Value, Weight, multiplied
from mufx.program import Optimizer, Scales
from mufx.ratios import Correct, Use, _Restart
from mufx.rules import Rule, operation
from mufx.sizes import Slot, same


@dataclass(frozen=True, slots=True)
class Asked:
    """The multiplier that a parameter's numbers ask for.

    `first` is where the search starts, `others` are those that would also agree with one of the
    numbers; the forward pass decides. What starts at zero goes with any multiplier (`free`).
    """

    first: float
    others: tuple[float, ...] = ()
    free: bool = False


def asked(found: Found, table3: Scales, optimizer: Optimizer, plain: bool) -> Asked:
    """The multipliers that agree with a parameter's init, its learning rate, or both.

    Args:
        found: Its numbers.
        table3: What the multiplier 1 asks for.
        optimizer: Whose learning rate it is.
        plain: One learning rate for everything at every width: it says nothing.
    """
    by_init = _divided(table3.init, found.init)
    by_lr = None if plain else _divided(table3.lr, found.lr)
    if by_lr is not None and optimizer is Optimizer.SGD:
        by_lr = by_lr**0.5
    if by_init is None:
        return Asked(by_lr or 1.0, (1.0,), free=True)
    if by_lr is not None and close(by_init, by_lr):
        return Asked(by_lr)
    return Asked(1.0, tuple(t for t in (by_lr, by_init) if t is not None))


def _divided(wanted: float, found: float | None) -> float | None:
    return wanted / found if found and found < float("inf") else None


@dataclass(frozen=True, slots=True)
class Misfit:
    """A size that leaves 1, at the place where that can no longer be mended by what follows.

    `ratio` is that size, target over base; `parameter` made it, or asks for another one.
    """

    where: str
    ratio: float
    parameter: str | None


class Fit(Correct):
    """Finds the multiplier of every parameter, and what the forward pass lacks.

    A weight's result is `x / theta` as large at target as at base, because its init and its
    learning rate make it so. Where a size must be 1 and is not, another multiplier that a
    parameter's own numbers allow is tried first. What is left is corrected, as in a conversion:
    `corrections` holds what the forward pass lacks and `misfits` where it shows.
    """

    def __init__(
        self,
        trace: Trace,
        constants: Constants,
        rules: Mapping[str, Rule],
        multipliers: Mapping[tuple[str, str], float],
        asks: Mapping[str, Asked],
    ) -> None:
        """`multipliers` are the factors that further uses of a tied weight want."""
        super().__init__(trace, constants, rules, multipliers)
        self.asks = asks
        self.theta = {name: ask.first for name, ask in asks.items()}
        self.misfits: dict[Site, Misfit] = {}
        self.settled: set[str] = set()
        self._at: dict[str, list[str]] = {}
        self._ratio: dict[str, float] = {}
        self._along: dict[str, list[str]] = {}
        self._contracted: dict[str, list[str]] = {}
        self._wrong, self._wanted = Magnitude(), 1.0
        self._asking: str | None = None
        self._nodes = {node.name: node for node in trace.graph.nodes}

    def run(self) -> None:
        """Fits; a factor that is missing behind a weight and its bias belongs to the weight."""
        super().run()
        for site, factor in self.corrections.items():
            if site.kind is SiteKind.RESULT:
                for name in self._along.get(site.node, ()):
                    self.theta[name] /= factor

    def _visit(self, node: fx.Node) -> Value:
        self._along.pop(node.name, None)
        self._contracted.pop(node.name, None)
        self._ratio.pop(node.name, None)
        self._at.pop(node.name, None)
        self._asking = None
        return super()._visit(node)

    def need(self, value: Magnitude, slot: Slot, wanted: float = 1.0) -> None:
        """Tries other multipliers before it corrects."""
        if same(value.ratio, wanted):
            return
        self._refit(value, wanted / value.ratio)
        self._wrong, self._wanted = value, wanted
        super().need(self._elsewhere(value), slot, wanted)

    def finite_output(self, result: fx.Node, value: Magnitude) -> None:
        """The same for an output."""
        if value.is_one:
            return
        self._refit(value, 1 / value.ratio)
        self._wrong, self._wanted = value, 1.0
        self.node = result
        super().finite_output(result, value)

    def _refit(self, value: Magnitude, factor: float) -> None:
        """Gives the parameters behind a value the multiplier that makes its ratio fit."""
        powers = value.known_ways().get(Rank.RESULT, {})
        changed: dict[str, float] = {}
        for site, power in powers.items():
            fitting = self._fitting(site.node, factor ** (1 / power)) if power else None
            if fitting is None:
                return
            changed.update(fitting)
        if not changed:
            return
        self.theta.update(changed)
        self.settled.update(changed)
        meet = (node for node, names in self._at.items() if not changed.keys().isdisjoint(names))
        raise _Restart(min(meet, key=self.order.__getitem__))

    def _fitting(self, node: str, factor: float) -> dict[str, float] | None:
        """One parameter used at a node whose numbers allow its result to be scaled."""
        for name in self._at.get(node, ()):
            theta = self.theta[name] / factor
            if name not in self.settled and any(close(theta, o) for o in self.asks[name].others):
                return {name: theta}
        return None

    def _correct(self, factors: Mapping[Site, float]) -> None:
        misfit = Misfit(self._where(), self._wrong.ratio / self._wanted, self._behind())
        self.misfits.update(dict.fromkeys(factors, misfit))
        super()._correct(factors)

    def _elsewhere(self, value: Magnitude) -> Magnitude:
        """Without this node's own result as a place to correct one of its operands."""
        ways = dict(value.known_ways())
        if any(site.node == self.node.name for site in ways.get(Rank.RESULT, {})):
            del ways[Rank.RESULT]
        return replace(value, ways=ways or None)

    def _behind(self) -> str | None:
        """The parameter that asks for another size, or the only one that made this one."""
        made = self._wrong.known_ways().get(Rank.RESULT, {})
        names = {n for site in made for n in self._makers(site.node)}
        shifted = {n for n in names if not same(self.theta[n], 1.0)} or names
        return self._asking or (shifted.pop() if len(made) == len(shifted) == 1 else None)

    def _makers(self, node: str) -> set[str]:
        """The parameters that gave a node's result its size: a bias follows the weight."""
        here, weights = set(self._at.get(node, ())), set(self._contracted.get(node, ()))
        if node == self.node.name and not same(self._wrong.ratio, self._ratio.get(node, 1.0)):
            return here - weights  # the sum with the bias is under way, and the bias is wrong
        return weights or here - set(self._along.get(node, ()))

    def _where(self) -> str:
        made = {site.node for site in self._wrong.known_ways().get(Rank.RESULT, {})}
        scores = any(node not in self._at and self._is_product(node) for node in made)
        if scores or operation(self.node) in ("softmax", "scaled_dot_product_attention"):
            return "attention logits"
        reads = self._asking is not None or not any(a.grows for a in self.axes(self.node))
        return "readout" if reads else "activation"

    def _is_product(self, name: str) -> bool:
        """Whether a node contracts two activations."""
        return operation(self._nodes[name]) in ("matmul", "bmm", "baddbmm", "einsum")

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """What init and learning rate make of the result."""
        if x_slot is not None:
            self._accept(uses, x, x_slot)
        made = x.ratio * weight.ratio
        # Of a weight over its own size the multiplier is lost:
        self.theta.update({use.parameter: 1.0 for use in uses if use.normed})
        for use in uses:
            self._settle_free(use, made)
            made /= self.theta[use.parameter] * self.multipliers.get((use.node, use.parameter), 1.0)
        here = self._at.setdefault(self.node.name, [])
        here.extend(use.parameter for use in uses if use.parameter not in here)
        if uses[0].kind == "contraction":  # its operand may be a learned table, noted before
            self._ratio[self.node.name] = made
            self._contracted[self.node.name] = [use.parameter for use in uses]
        self._ratio.setdefault(self.node.name, made)
        own = Magnitude(1.0, {Rank.RESULT: {Site(SiteKind.RESULT, self.node.name): 1.0}})
        ways = multiplied(own, x, Magnitude(weight.ratio, weight.ways)).known_ways()
        return Magnitude(made, {**ways, **own.known_ways()})

    def _accept(self, uses: list[Use], x: Magnitude, slot: Slot) -> None:
        """Demands of an operand the size that its weight is made for.

        What another weight made of it may pass: a multiplier may follow after both.
        """
        factors = [self.multipliers.get((u.node, u.parameter), 1.0) for u in uses]
        wanted = math.prod(f * self.theta[u.parameter] for f, u in zip(factors, uses, strict=True))
        if same(x.ratio, wanted) or self._made_by_weights(x):
            return
        name = uses[0].parameter
        theta = self.theta[name] * x.ratio / wanted
        if name not in self.settled and any(close(theta, o) for o in self.asks[name].others):
            self.theta[name] = theta
            self.settled.add(name)
            meet = (node for node, names in self._at.items() if name in names)
            raise _Restart(min((*meet, self.node.name), key=self.order.__getitem__))
        self._asking = name if not same(wanted, 1.0) else None
        self.need(x, slot, wanted)

    def _made_by_weights(self, x: Magnitude) -> bool:
        ways = x.known_ways()
        nodes = {site.node for site in ways.get(Rank.RESULT, {})}
        return x.is_one or (Rank.GROWING not in ways and bool(nodes) and nodes <= self._at.keys())

    def inside(self, operand: Any, kind: str, contracted: tuple[int, ...] = ()) -> None:
        """Inside a fused operation there is no multiplier."""
        weight = self.item(operand)
        if isinstance(weight, Weight):
            self.theta.update(dict.fromkeys(weight.names | weight.gains, 1.0))
        super().inside(operand, kind, contracted)

    def _settle_free(self, use: Use, made: float) -> None:
        """What starts at zero goes along with the weight that it is added to."""
        ratio = self._ratio.get(self.node.name)
        free = use.kind == "elementwise" and self.asks[use.parameter].free
        if ratio is None or not free:
            return
        self.theta[use.parameter] = made / ratio
        self._along.setdefault(self.node.name, []).append(use.parameter)
