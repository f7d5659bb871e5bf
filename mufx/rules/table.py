"""Tables of op rules.

A rule says how one operation consumes its operands: which axes it contracts, and how magnitudes
pass through it. Rules are looked up by the operation's name; the spellings of one operation
(`torch.add`, `Tensor.add_`, `+`) share a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import fx

from mufx.magnitudes import Magnitude, Rank, Value, Weight
from mufx.sizes import Axis, Number, Slot

Labelled = tuple[Slot | fx.Node, Sequence[str]]
"""An operand, by its slot or itself, and a label for each of its axes."""


class Flow(Protocol):
    """What a rule can ask about the node that it is called for."""

    def value(self, slot: Slot) -> Value:
        """What is known of the operand in an argument slot; 1 for a literal."""
        ...

    def magnitude(self, slot: Slot) -> Magnitude:
        """The operand as an activation; a parameter there is used elementwise."""
        ...

    def item(self, operand: Any) -> Value:
        """What is known of a node found inside a list or tuple argument."""
        ...

    def has(self, slot: Slot) -> bool:
        """Whether there is a tensor in the slot."""
        ...

    def is_constant(self, slot: Slot) -> bool:
        """Whether the operand depends on no input and no parameter."""
        ...

    def axes_of(self, slot: Slot) -> tuple[Axis, ...]:
        """The axes of the operand in a slot."""
        ...

    def axes(self, operand: Any) -> tuple[Axis, ...]:
        """The axes of an operand or of the node itself; none for a literal."""
        ...

    def number(self, slot: Slot, default: Number | None = None) -> Magnitude:
        """A literal's magnitude, with itself as the site of a correction."""
        ...

    def ratio(self, slot: Slot) -> float:
        """A literal's target/base, without making it a site."""
        ...

    def need(self, value: Magnitude, slot: Slot, wanted: float = 1.0) -> None:
        """Demands a ratio of an operand, which is corrected if it can be."""
        ...

    def moved(self, value: Magnitude, factor: float, rank: Rank = Rank.RESULT) -> Magnitude:
        """`value` times a factor that this node brings in, correctable at its result."""
        ...

    def contract(
        self,
        weight: Weight,
        slot: Slot,
        contracted: tuple[int, ...],
        x: Slot,
        shared: tuple[int, ...] = (),
        joint: Magnitude | None = None,
    ) -> Value:
        """A weight is contracted with the operand in slot `x` over its axes `contracted`.

        Its axes `shared`, a head or an expert, are the operand's as well. With `joint` it meets a
        product of several activations, of which that operand is one.
        """
        ...

    def summed(self, operands: Sequence[Labelled], result: Sequence[str]) -> None:
        """Activations are multiplied and summed over the labels that `result` lacks."""
        ...

    def inside(self, operand: Any, kind: str, contracted: tuple[int, ...] = ()) -> None:
        """A parameter is used inside a fused operation whose result has ratio 1."""
        ...

    def refuse(self, why: str, hint: str) -> None:
        """Reports that this use of a parameter has no rule."""
        ...


Rule = Callable[[Flow, fx.Node], Value]


class RuleTable(Mapping[str, Rule]):
    """Rules by operation name. Tables add up with `|`; a name defined twice is an error."""

    def __init__(self, rules: Mapping[str, Rule] | None = None) -> None:
        """A table with these rules."""
        self._rules = dict(rules or {})

    def __getitem__(self, name: str) -> Rule:
        """The rule of an operation."""
        return self._rules[name]

    def __iter__(self) -> Iterator[str]:
        """The names of the operations with a rule."""
        return iter(self._rules)

    def __len__(self) -> int:
        """The number of rules."""
        return len(self._rules)

    def __or__(self, other: Mapping[str, Rule]) -> RuleTable:
        """Both tables.

        Raises:
            ValueError: An operation has a rule in both.
        """
        twice = sorted(self.keys() & other.keys())
        if twice:
            raise ValueError(f"operations with two rules: {', '.join(twice)}")
        return RuleTable({**self._rules, **other})

    def rule(self, *names: str) -> Callable[[Rule], Rule]:
        """Registers a function for operations (decorator).

        Raises:
            ValueError: An operation has a rule already.
        """

        def register(rule: Rule) -> Rule:
            for name in names:
                if name in self._rules:
                    raise ValueError(f"{name} has a rule already")
                self._rules[name] = rule
            return rule

        return register


_SAME = {
    "truediv": "div",
    "true_divide": "div",
    "divide": "div",
    "multiply": "mul",
    "subtract": "sub",
    "absolute": "abs",
    "itruediv": "div",
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "ipow": "pow",
    "imatmul": "matmul",
    "negative": "neg",
    "and_": "logical",
    "or_": "logical",
    "xor": "logical",
    "invert": "logical",
    "__and__": "logical",
    "__or__": "logical",
    "bitwise_and": "logical",
    "bitwise_or": "logical",
    "bitwise_not": "logical",
    "logical_and": "logical",
    "logical_or": "logical",
    "logical_not": "logical",
    "__rsub__": "rsub",
    "__rpow__": "rpow",
    "__getitem__": "getitem",
    "__setitem__": "setitem",
    "T": "t",
    "mT": "t",
    "H": "t",
    "mH": "t",
}


def operation(node: fx.Node) -> str:
    """The name of a node's operation, one for all spellings; "" where it is no call.

    The target of an input, a parameter or a buffer is its name, which may be an operation's.
    """
    return operation_of(node.target, node.args) if node.op.startswith("call_") else ""


def operation_of(target: object, args: Sequence[Any]) -> str:
    """The same of a call, as `fx` writes it."""
    if target is getattr:
        name = str(args[1])
    elif isinstance(target, str):
        name = target
    elif isinstance(target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return str(target).removesuffix(".default").replace(".", "::", 1)
    else:
        name = str(getattr(target, "__name__", target))
    if name in _SAME:
        return _SAME[name]
    if not name.startswith("__"):
        name = name.removesuffix("_")
    return _SAME.get(name, name)


def argument(node: fx.Node, position: int, name: str) -> tuple[Slot, Any]:
    """The slot and the value of an argument, given by position or by keyword."""
    if position < len(node.args):
        return position, node.args[position]
    return name, node.kwargs.get(name)


def dims(value: object, rank: int) -> tuple[int, ...]:
    """A `dim` argument as non-negative axes; all axes for `None`."""
    if value is None:
        return tuple(range(rank))
    chosen: Any = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(d) % rank for d in chosen) if rank else ()
