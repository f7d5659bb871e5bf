"""The ratio calculation: how the size of every value changes from base to target width.

One walk over the graph with the op rules serves three purposes. It finds how parameters are used
(`observe`), derives the corrections of a model in standard parametrization (`correct`), and
proves a finished one (`check`). In the maximal update parametrization every ratio is 1.

Counting follows Tensor Programs V, Appendix J: after training, a sum of n products is n times as
large as one of them (law of large numbers); at initialisation, with independent zero-mean
weights, sqrt(n) times (central limit theorem).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from mufx.align import Trace
from mufx.constants import Constants
from mufx.diagnostics import Diagnostic, Place, error
from mufx.magnitudes import ZERO, Magnitude, Rank, Several, Site, SiteKind, Value, Weight
from mufx.recording import Size
from mufx.rules import Rule, operation
from mufx.rules.creation import LIKE_ANOTHER
from mufx.rules.table import Labelled
from mufx.rules.views import VIEWED
from mufx.sizes import Axis, Number, Slot, same
from mufx.writing import written


@dataclass(frozen=True, slots=True)
class Use:
    """One way in which one parameter is consumed.

    `m_in` is the width multiplier of the axes that are contracted with an activation, `m_out` of
    those that survive into the result; `contracts` and `keeps` say whether such an axis grows
    (at base width every multiplier is 1, growth is not). What contracts an axis that grows does
    not keep one that it shares with the activation.
    """

    parameter: str
    node: str
    operation: str
    kind: str
    contracts: bool
    keeps: bool
    m_in: float
    m_out: float
    place: Place
    contracted: tuple[Axis, ...] = ()
    kept: tuple[Axis, ...] = ()
    slot: Slot | None = None
    """The argument that the weight stands in; `None` inside a list of weights."""
    kept_at: tuple[int, ...] = ()
    """Where `kept` stand in the argument."""
    normed: bool = False
    """Only the direction of the parameter is used: its size makes no difference."""

    @property
    def terms(self) -> float:
        """The size of the sum over products with entries of size 1, drawn at random.

        A readout counts as if they were correlated, which they become (Tensor Programs V, J.1.4),
        also where a norm follows that takes its size back: what its input learns would outgrow
        what it learns itself.
        """
        return math.sqrt(self.m_in) if self.contracts and self.keeps else self.m_in


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a parameter brings into the proof: target over base of its init and of its update."""

    init: float
    update: float
    at_zero: bool = False
    """Initialised to zero: the size at initialisation says nothing."""
    may_start_small: bool = False
    """A readout in any of its uses: then every use starts at least as small as it should."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A ratio that leaves 1 where it must not."""

    node: str
    parameter: str | None
    what: str
    ratio: float
    place: Place


@dataclass(frozen=True, slots=True)
class Summed:
    """Activations that are multiplied and summed, with a label for each of their axes."""

    operands: tuple[tuple[fx.Node, tuple[str, ...]], ...]
    result: tuple[str, ...]

    @property
    def gone(self) -> frozenset[str]:
        """The labels that are summed over."""
        return frozenset(x for _, labels in self.operands for x in labels) - {*self.result}


class _Restart(Exception):  # noqa: N818
    """A correction was made: the walk goes on from the first node that it changes."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node


class Walk:
    """One walk over a trace. Subclasses decide what a demand or a use of a weight means."""

    def __init__(self, trace: Trace, constants: Constants, rules: Mapping[str, Rule]) -> None:
        """A walk that has not started."""
        self.trace, self.constants, self.rules = trace, constants, rules
        self.corrections: dict[Site, float] = {}
        self.uses: dict[tuple[str, str], Use] = {}
        self.sums: dict[str, Summed] = {}
        self.diagnostics: list[Diagnostic] = []
        self.values: MutableMapping[str, Value] = {}
        self.node: fx.Node = trace.graph._root
        self.written = written(trace.graph)
        self.writers = {w for writers in self.written.values() for w in writers}
        self.order = {node.name: i for i, node in enumerate(trace.graph.nodes)}
        self.parameters = frozenset(
            n for n, _ in constants.target.model.named_parameters(remove_duplicate=False)
        )

    # -- the walk ---------------------------------------------------------------------------

    def run(self) -> None:
        """Visits every node, going back where a correction changed an earlier one."""
        nodes = list(self.trace.graph.nodes)
        index = self.order
        i = 0
        while i < len(nodes):
            try:
                self.values[nodes[i].name] = self._visit(nodes[i])
                i += 1
            except _Restart as restart:
                i = index[restart.node]

    def _visit(self, node: fx.Node) -> Value:
        self.node = node
        if node.op == "placeholder":
            return Magnitude()
        if node.op == "get_attr":
            name = str(node.target)
            return Weight(frozenset({name})) if name in self.parameters else Magnitude()
        if node.op == "output":
            return self._output(node)
        if node in self.constants:
            return Magnitude()  # measured where an activation meets it
        name = operation(node)
        if self._counts() and name not in _SHARES:
            return Magnitude()
        rule = self.rules.get(name)
        value = self._unknown(node, name) if rule is None else rule(self, node)
        self._refuse_dropped(node, name, value)
        if node in self.writers and isinstance(value, Magnitude):
            self.need(value, 1)
        if node in self.written and value == ZERO:
            value = Magnitude()
        own = self.corrections.get(Site(SiteKind.RESULT, node.name))
        if own is not None and isinstance(value, (Magnitude, Weight)):
            value = replace(value, ratio=value.ratio * own)
        return value

    def _refuse_dropped(self, node: fx.Node, name: str, value: Value) -> None:
        """A parameter that a rule neither uses nor passes on stands where it does not look."""
        if name in _ONLY_THE_SHAPE or self.diagnostics:
            return
        parts = value.items if isinstance(value, Several) else (value,)
        passed = frozenset[str]().union(*(_all_names(part) for part in parts))
        held = frozenset[str]().union(*(_all_names(self.item(n)) for n in node.all_input_nodes))
        dropped = [n for n in sorted(held - passed) if (node.name, n) not in self.uses]
        if dropped:
            self.refuse(
                f"{name} uses {', '.join(dropped)} in a place that its rule does not know",
                "write it in single steps, or register a rule of your own for it",
            )

    def _counts(self) -> bool:
        """Whether the node yields integers: places and counts, which are no magnitudes."""
        value = self.trace.recording.values.get(self.node.name)
        return value is not None and not (value.dtype.is_floating_point or value.dtype.is_complex)

    def _output(self, node: fx.Node) -> Value:
        for result in node.all_input_nodes:
            axes = self.axes(result)
            value = self.item(result)
            if isinstance(value, Magnitude) and not any(a.grows for a in axes):
                self.finite_output(result, value)
        return Magnitude()

    def _unknown(self, node: fx.Node, name: str) -> Value:
        """Without a rule only what has nothing to do with width can pass."""
        operands = [(n, self.item(n)) for n in node.all_input_nodes]
        grows = any(a.grows for n in (node, *node.all_input_nodes) for a in self.axes(n))
        plain = all(isinstance(v, Magnitude) and v.is_one for _, v in operands)
        if not grows and plain:
            return Magnitude()
        for operand, value in operands:
            if isinstance(value, Weight):
                self.diagnostics.append(self._no_rule("MUF202", name, _names(value)))
                return Magnitude()
            del operand
        self.diagnostics.append(self._no_rule("MUF201", name, None))
        return Magnitude()

    def _no_rule(self, code: str, name: str, parameters: str | None) -> Diagnostic:
        what = f"{name} uses {parameters}" if parameters else f"{name} works on an axis that grows"
        return error(
            code,
            f"{what}, and has no rule",
            hint=f'register one: table = RuleTable(); @table.rule("{name}") def rule(flow, node): '
            "...; then call mufx.convert(..., rules=RULES | table) from Python",
            place=self.place,
        )

    # -- what rules ask (the Flow protocol) -------------------------------------------------

    @property
    def place(self) -> Place:
        """Where the current node stands in the user's source."""
        return self.trace.recording.origins[self.node.name].place

    def argument(self, slot: Slot) -> Any:
        """The argument in a slot, `None` if there is none."""
        if isinstance(slot, int):
            return self.node.args[slot] if slot < len(self.node.args) else None
        return self.node.kwargs.get(slot)

    def value(self, slot: Slot) -> Value:
        """What is known of the operand in an argument slot; a literal is a number."""
        operand = self.argument(slot)
        value = self.item(operand) if isinstance(operand, fx.Node) else self.number(slot)
        factor = self.corrections.get(Site(SiteKind.OPERAND, self.node.name, slot))
        if factor is None:
            return value
        assert isinstance(value, (Magnitude, Weight))
        return replace(value, ratio=value.ratio * factor)

    def item(self, operand: Any) -> Value:
        """What is known of a node."""
        if not isinstance(operand, fx.Node):
            return Magnitude()
        if operand not in self.constants:
            return self.values[operand.name]
        found = self.constants.magnitude(operand)
        ratio = found.ratio
        for powers in found.known_ways().values():
            for site in powers:
                ratio *= self.corrections.get(site, 1.0)
        return replace(found, ratio=ratio)

    def magnitude(self, slot: Slot) -> Magnitude:
        """The operand as an activation; a parameter there is used elementwise."""
        value = self.value(slot)
        if isinstance(value, Magnitude):
            return value
        if isinstance(value, Several):
            first = value[0]
            assert isinstance(first, Magnitude)
            return first
        operand = self.argument(slot)
        return self.elementwise(value, operand, slot)

    def has(self, slot: Slot) -> bool:
        """Whether there is a tensor in the slot."""
        return isinstance(self.argument(slot), fx.Node)

    def is_constant(self, slot: Slot) -> bool:
        """Whether the operand depends on no input and no parameter."""
        operand = self.argument(slot)
        return not isinstance(operand, fx.Node) or operand in self.constants

    def axes(self, operand: Any) -> tuple[Axis, ...]:
        """The axes of a node."""
        return self.trace.axes.get(operand.name, ()) if isinstance(operand, fx.Node) else ()

    def axes_of(self, slot: Slot) -> tuple[Axis, ...]:
        """The axes of the operand in a slot."""
        return self.axes(self.argument(slot))

    def ratio(self, slot: Slot) -> float:
        """A literal's target/base."""
        number = self.trace.numbers.get((self.node.name, slot))
        return number.ratio if number is not None else 1.0

    def number(self, slot: Slot, default: Number | None = None) -> Magnitude:
        """A literal's magnitude, with itself as the site of a correction."""
        literal = self.argument(slot)
        found = self.trace.numbers.get((self.node.name, slot), default)
        site = Site(SiteKind.NUMBER, self.node.name, slot)
        ratio = self.corrections.get(site, 1.0)
        if found is None:
            if not isinstance(literal, (int, float)):
                return Magnitude()
            neutral = not 1e-3 < abs(literal) < 1e4
            return Magnitude(ratio, {Rank.AFTER: {site: 1.0}}, neutral)
        if not found.is_power:
            self.diagnostics.append(
                error(
                    "MUF107",
                    f"the number {found.target:g} is {found.base:g} at base width and "
                    f"{found.along:g} further along: it follows no power of the width",
                    hint="make it a constant or a pure power of a width",
                    place=self.place,
                )
            )
        if isinstance(literal, Size):  # of a width and a free size: it is written as it is
            return Magnitude(found.ratio)
        rank = Rank.AFTER if same(found.ratio, 1.0) else Rank.GROWING
        return Magnitude(found.ratio * ratio, {rank: {site: 1.0}})

    def moved(self, value: Magnitude, factor: float, rank: Rank = Rank.RESULT) -> Magnitude:
        """`value` times a factor that this node brings in, correctable at its result."""
        if same(factor, 1.0) or value.zero:
            return value
        site = Site(SiteKind.RESULT, self.node.name)
        return Magnitude(value.ratio * factor, {**value.known_ways(), rank: {site: 1.0}})

    def refuse(self, why: str, hint: str) -> None:
        """Reports that this use of a parameter has no rule."""
        self.diagnostics.append(error("MUF202", why, hint=hint, place=self.place))

    def summed(self, operands: Sequence[Labelled], result: Sequence[str]) -> None:
        """Activations are multiplied and summed over the labels that `result` lacks."""
        found = tuple(
            (operand if isinstance(operand, fx.Node) else self.argument(operand), tuple(labels))
            for operand, labels in operands
        )
        self.sums[self.node.name] = Summed(found, tuple(result))

    def inside(self, operand: Any, kind: str, contracted: tuple[int, ...] = ()) -> None:
        """A parameter is used inside a fused operation whose result has ratio 1."""
        weight = self.item(operand)
        if isinstance(weight, Weight):
            self.used(weight, operand, kind, contracted, Magnitude())

    def contract(
        self,
        weight: Weight,
        slot: Slot,
        contracted: tuple[int, ...],
        x: Slot,
        shared: tuple[int, ...] = (),
        joint: Magnitude | None = None,
    ) -> Value:
        """A weight is contracted with the operand in slot `x` over its axes `contracted`."""
        operand, met = self.argument(slot), joint or self.magnitude(x)
        if sum(f.meets(contracted) for f in weight.factors) == 1:
            uses = [
                self._noted(f.name, "contraction", f.axes, f.contracted(contracted), slot)
                for f in weight.factors
            ]
            return self.result_of(uses, weight, met, x, slot)
        grown = _product(tuple(self.axes(operand)[i] for i in contracted))
        if met.sparse and same(met.ratio * grown, 1.0):  # a few rows, as of a table
            return self.used(weight, operand, "lookup", (), Magnitude(), None, slot)
        grows = any(self.axes(operand)[i].grows for i in contracted)
        if grows and (len(weight.names) != 1 or not weight.linear):
            self.refuse(
                f"a weight computed from {_names(weight)} is contracted over an axis that grows",
                "contract the parameters themselves, one after the other",
            )
            return Magnitude()
        if not grows:  # a product with a finite sum: the weight acts like a gain
            weight = replace(weight, linear=True)
        return self.used(weight, operand, "contraction", contracted, met, x, slot, shared)

    def elementwise(self, weight: Weight, operand: Any, slot: Slot) -> Magnitude:
        """A parameter is added, multiplied or looked up entry by entry."""
        kind = "lookup" if operation(self.node) in _LOOKUPS else "elementwise"
        return self.used(weight, operand, kind, (), Magnitude(), None, slot)

    def used(
        self,
        weight: Weight,
        operand: Any,
        kind: str,
        contracted: tuple[int, ...],
        x: Magnitude,
        x_slot: Slot | None = None,
        slot: Slot | None = None,
        shared: tuple[int, ...] = (),
    ) -> Magnitude:
        """Notes the use of every parameter in `weight`; what comes out is `result_of`."""
        axes, normed = self.axes(operand), bool(weight.normed)
        if weight.power is not None and weight.power.axes:  # all entries make its size
            axes, contracted = self.trace.axes[self._node_of(min(weight.names)).name], ()
        uses = [
            self._noted(name, kind, axes, contracted, slot, normed, shared)
            for name in sorted(weight.names)
        ]
        for name in sorted(weight.gains):
            own = self.trace.axes[self._node_of(name).name]
            uses.append(self._noted(name, "elementwise", own, (), None))
        if normed:
            length = self.length(uses[0], _product(weight.normed))
            weight = replace(weight, ratio=weight.ratio / length, normed=())
        return self.result_of(uses, weight, x, x_slot, slot)

    def length(self, use: Use, entries: float) -> float:
        """The length of a parameter with so many times the entries, as its use wants its init."""
        return math.sqrt(entries) / use.terms

    def _node_of(self, parameter: str) -> fx.Node:
        nodes: Iterable[fx.Node] = self.trace.graph.nodes
        return next(n for n in nodes if n.op == "get_attr" and n.target == parameter)

    def _noted(
        self,
        name: str,
        kind: str,
        axes: tuple[Axis, ...],
        contracted: tuple[int, ...],
        slot: Slot | None,
        normed: bool = False,
        shared: tuple[int, ...] = (),
    ) -> Use:
        gone = tuple(axes[i] for i in contracted)
        contracts = any(a.grows for a in gone)
        left_out = {*contracted, *shared} if contracts else set(contracted)
        kept_at = tuple(i for i in range(len(axes)) if i not in contracted)
        kept = tuple(axes[i] for i in kept_at)
        own = self.trace.axes[self._node_of(name).name]
        repeated = sum(a.grows for a in own) < sum(a.grows for a in axes)
        use = Use(
            name,
            self.node.name,
            operation(self.node),
            kind,
            contracts,
            any(a.grows for i, a in enumerate(axes) if i not in left_out),
            _product(gone),
            _product(own) / _product(gone) if repeated else _product(kept),
            self.place,
            gone,
            kept,
            slot,
            kept_at,
            normed,
        )
        self.uses[use.node, use.parameter] = use
        return use

    # -- what subclasses decide -------------------------------------------------------------

    def need(self, value: Magnitude, slot: Slot, wanted: float = 1.0) -> None:
        """An operation demands a ratio of its operand."""

    def finite_output(self, result: fx.Node, value: Magnitude) -> None:
        """An output without an axis that grows must keep its size."""
        self.need(value, 0)

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """The magnitude of what a use of a weight yields."""
        return Magnitude()


_SHARES = VIEWED | {"one_hot"}
"""Of integers, what chooses among ever more entries as a softmax does."""

_LOOKUPS = frozenset({"embedding", "embedding_bag", "getitem", "index_select", "gather", "index"})


def _product(axes: tuple[Axis, ...]) -> float:
    return math.prod(a.m for a in axes if a.grows)


def _names(weight: Weight) -> str:
    return ", ".join(sorted(_all_names(weight)))


def _all_names(value: Value) -> frozenset[str]:
    return value.names | value.gains if isinstance(value, Weight) else frozenset()


_ONLY_THE_SHAPE = LIKE_ANOTHER | {
    "expand_as", "view_as", "reshape_as", "type_as", "to", "size", "zero",
}  # fmt: skip
"""They look at no entry of the tensor whose shape or type they take, or that they set to 0."""


class Correct(Walk):
    """Derives the corrections: where a ratio must be 1 and is not, something is scaled.

    `multipliers` are the factors that a use of a weight wants on its activation, by (node,
    parameter): 1/m for a tied readout.
    """

    def __init__(
        self,
        trace: Trace,
        constants: Constants,
        rules: Mapping[str, Rule],
        multipliers: Mapping[tuple[str, str], float],
    ) -> None:
        """A walk that corrects."""
        super().__init__(trace, constants, rules)
        self.multipliers = multipliers

    def need(self, value: Magnitude, slot: Slot, wanted: float = 1.0) -> None:
        """Corrects the operand at the best site, and goes back there."""
        if value.is_unknown:
            self._unknown_size(value)
            return
        if same(value.ratio, wanted):
            return
        factor = wanted / value.ratio
        for _, powers in sorted(value.known_ways().items()):
            if all(site not in self.corrections and power for site, power in powers.items()):
                self._correct({site: factor ** (1 / power) for site, power in powers.items()})
        if isinstance(self.argument(slot), fx.Node):
            self._insert(slot, factor)
        self.diagnostics.append(
            error(
                "MUF301",
                f"the operand of {operation(self.node)} changes its size by {value.ratio:.4g} "
                "from base to target, and nothing here can be scaled",
                hint="multiply it by a number of your own; mufx will set that number",
                place=self.place,
            )
        )

    def finite_output(self, result: fx.Node, value: Magnitude) -> None:
        """Corrects an output at its site, or right after the node that made it."""
        place = self.trace.recording.origins[result.name].place
        if value.is_unknown:
            self._unknown_size(value)
            return
        if value.is_one:
            return
        sites = [p for _, p in sorted(value.known_ways().items())]
        sites.append({Site(SiteKind.RESULT, result.name): 1.0})
        for powers in sites:
            if all(site not in self.corrections and power for site, power in powers.items()):
                factor = 1 / value.ratio
                self._correct({site: factor ** (1 / power) for site, power in powers.items()})
        self.diagnostics.append(
            error(
                "MUF302",
                f"an output without a growing axis changes its size by {value.ratio:.4g}",
                hint="multiply it by a number of your own; mufx will set that number",
                place=place,
            )
        )

    def _unknown_size(self, value: Magnitude) -> None:
        chosen = min(value.known_ways()[Rank.UNKNOWN], key=lambda site: self.order[site.node])
        self.diagnostics.append(
            error(
                "MUF301",
                "entries are chosen of a softmax over an axis that grows: with more entries all "
                "of them shrink, or one stays as large as it is, so that no factor is right",
                hint="divide what is chosen by its sum, or choose first and take the softmax of "
                "what is chosen",
                place=self.trace.recording.origins[chosen.node].place,
            )
        )

    def _insert(self, slot: Slot, factor: float) -> None:
        site = Site(SiteKind.OPERAND, self.node.name, slot)
        if site not in self.corrections:
            self._correct({site: factor})

    def _correct(self, factors: Mapping[Site, float]) -> None:
        self.corrections.update(factors)
        raise _Restart(min((site.node for site in factors), key=self.order.__getitem__))

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """The plan makes the result of every use 1, if its activation has the wanted ratio."""
        wanted = math.prod(self.multipliers.get((u.node, u.parameter), 1.0) for u in uses)
        normed = any(use.normed for use in uses) and not x.is_unknown
        if normed and same(weight.ratio * x.ratio, wanted):
            return Magnitude()  # of two directions each has what the other lacks: a cosine
        self._settle(weight, slot)
        if x_slot is not None and (x.is_unknown or not same(x.ratio, wanted)):
            # A multiplier of the weight, not an error of the activation:
            if x.is_one and not x.is_unknown:
                self._insert(x_slot, wanted)
            self.need(x, x_slot, wanted)
        return Magnitude()

    def _settle(self, weight: Weight, slot: Slot | None) -> None:
        """A number that multiplies a weight goes back to its base value."""
        if slot is not None and not same(weight.ratio, 1.0):
            self.need(Magnitude(weight.ratio, weight.ways), slot)


class Check(Walk):
    """Proves a program: the same calculation with the parameters' own scalings, nothing scaled."""

    def __init__(
        self,
        trace: Trace,
        constants: Constants,
        rules: Mapping[str, Rule],
        scalings: Mapping[str, Scaling],
    ) -> None:
        """A walk that only looks."""
        super().__init__(trace, constants, rules)
        self.scalings = scalings
        self.findings: list[Finding] = []

    def need(self, value: Magnitude, slot: Slot, wanted: float = 1.0) -> None:
        """A ratio that is not as demanded is a finding at this node."""
        if not same(value.ratio, wanted):
            self._find(None, f"the operand of {operation(self.node)}", value.ratio / wanted)

    def finite_output(self, result: fx.Node, value: Magnitude) -> None:
        """An output that changes its size is a finding at the node that made it."""
        self.node = result
        if not value.is_one:
            self._find(None, "an output", value.ratio)

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """Size at init and size of the learned part, from the parameters' own numbers.

        A gain or bias may carry a folded multiplier, as long as both sizes carry it; what comes
        out of a contraction must have kept its size.
        """
        out = 1.0
        for use in uses:
            scaling = self.scalings[use.parameter]
            change = scaling.update * weight.ratio * use.m_in * x.ratio
            before = scaling.init * weight.ratio * use.terms * x.ratio
            start = change if scaling.at_zero else before
            wanted = 1.0 if use.kind == "contraction" else start
            if not same(change, wanted):
                self._find(use.parameter, f"what {use.parameter} learns", change / wanted)
            elif not self._starts_right(scaling, use, start / wanted):
                self._find(use.parameter, f"what {use.parameter} starts with", start)
            else:
                out *= change
        return Magnitude(out)

    def length(self, use: Use, entries: float) -> float:
        """The length of a parameter, as it is initialised."""
        return math.sqrt(entries) * self.scalings[use.parameter].init

    @staticmethod
    def _starts_right(scaling: Scaling, use: Use, start: float) -> bool:
        if use.contracts and scaling.may_start_small:
            return start <= 1.0 + 1e-6
        return same(start, 1.0)

    def _find(self, parameter: str | None, what: str, ratio: float) -> None:
        self.findings.append(Finding(self.node.name, parameter, what, ratio, self.place))
