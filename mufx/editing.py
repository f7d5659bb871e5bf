"""Rewrites a trace: numbers among the arguments, and multiplications put between nodes."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import replace

from torch import fx

from mufx.align import Trace
from mufx.recording import Origin, TensorValue, moved
from mufx.sizes import Axis, Number, Slot


class Editor:
    """A copy of a trace that can be changed; `done()` is the changed trace.

    Node names stay, so facts keyed by them stay true. The module call that a new node stands in
    is the innermost one that encloses both the value and the node that takes it.
    """

    def __init__(self, trace: Trace) -> None:
        """Copies the graph."""
        self._trace = trace
        self.graph = fx.Graph()
        self._nodes: dict[str, fx.Node] = {}
        for node in trace.graph.nodes:
            copy = self.graph.node_copy(node, lambda n: self._nodes[n.name])
            assert copy.name == node.name, (copy.name, node.name)
            self._nodes[node.name] = copy
        self._values: dict[str, TensorValue | None] = dict(trace.recording.values)
        self._origins: dict[str, Origin] = dict(trace.recording.origins)
        self._results = dict(trace.recording.results)
        self._arguments = dict(trace.recording.arguments)
        self._axes: dict[str, tuple[Axis, ...]] = dict(trace.axes)
        self._numbers: dict[tuple[str, Slot], Number] = dict(trace.numbers)

    def node(self, name: str) -> fx.Node:
        """The copy of a node."""
        return self._nodes[name]

    def set_number(self, name: str, slot: Slot, number: Number) -> None:
        """Writes `number.target` into an argument."""
        node = self._nodes[name]
        if isinstance(slot, int):
            node.update_arg(slot, number.target)
        else:
            node.update_kwarg(slot, number.target)
        self._numbers[name, slot] = number

    def multiply_result(self, name: str, factor: float) -> str:
        """Multiplies what a node yields, for all that use it; returns the new node's name."""
        node = self._nodes[name]
        with self.graph.inserting_after(node):
            new = self.graph.call_function(operator.mul, (node, factor))
        users = [user for user in node.users if user is not new]
        for user in users:
            user.replace_input_with(node, new)
        self._results = {k: _renamed(v, name, new) for k, v in self._results.items()}
        for key in self._arguments:
            self._pass_on(key, name, new)
        self._describe(new, node, self._origins[name], factor)
        return new.name

    def multiply_operand(self, name: str, slot: Slot, factor: float) -> str:
        """Multiplies one operand of one node; returns the new node's name."""
        user = self._nodes[name]
        operand = user.args[slot] if isinstance(slot, int) else user.kwargs[slot]
        assert isinstance(operand, fx.Node)
        origin = self._between(operand, user)
        with self.graph.inserting_before(self._entry(origin, user)):
            new = self.graph.call_function(operator.mul, (operand, factor))
        if isinstance(slot, int):
            user.update_arg(slot, new)
        else:
            user.update_kwarg(slot, new)
        for key in set(_enclosing(self._origins[name])) - set(_enclosing(origin)):
            self._pass_on(key, operand.name, new)
        self._describe(new, operand, origin, factor)
        return new.name

    def bypass(self, name: str) -> None:
        """Takes out a multiplication: its operand takes its place."""
        node = self._nodes.pop(name)
        (operand,) = node.all_input_nodes
        node.replace_all_uses_with(operand)
        self.graph.erase_node(node)
        for key in self._arguments:
            self._pass_on(key, name, operand)

    def done(self) -> Trace:
        """The changed trace."""
        recording = replace(
            self._trace.recording,
            graph=self.graph,
            values=self._values,
            origins=self._origins,
            arguments={k: moved(v, self._nodes) for k, v in self._arguments.items()},
            results={k: moved(v, self._nodes) for k, v in self._results.items()},
        )
        return replace(self._trace, recording=recording, axes=self._axes, numbers=self._numbers)

    def _pass_on(self, key: tuple[str, int], name: str, new: fx.Node) -> None:
        """Lets a module call be passed `new` where it was passed the node called `name`."""
        given = _renamed(self._arguments[key], name, new)
        assert isinstance(given, dict)
        self._arguments[key] = given

    def _describe(self, new: fx.Node, like: fx.Node, origin: Origin, factor: float) -> None:
        self._nodes[new.name] = new
        self._values[new.name] = self._values[like.name]
        self._axes[new.name] = self._axes[like.name]
        self._origins[new.name] = origin
        self._numbers[new.name, 1] = Number(1.0, factor, factor * factor)

    def _entry(self, origin: Origin, user: fx.Node) -> fx.Node:
        """The first node of the module call, made by `origin`'s, that `user` stands in."""
        entered = [k for k in _enclosing(self._origins[user.name]) if k not in _enclosing(origin)]
        if not entered:
            return user
        nodes: Iterable[fx.Node] = self.graph.nodes
        placed = (n for n in nodes if n.op.startswith("call_"))
        return next(n for n in placed if entered[-1] in _enclosing(self._origins[n.name]))

    def _between(self, operand: fx.Node, user: fx.Node) -> Origin:
        """The user's statement, outside of a call of a module that the operand comes in to."""
        origin = self._origins[user.name]
        inside = set(_enclosing(self._origins[operand.name]))
        call = origin.call
        if operand.op != "get_attr":
            while call is not None and call.key not in inside and call.parent is not None:
                call = call.parent
        return replace(origin, call=call)


def _enclosing(origin: Origin) -> list[tuple[str, int]]:
    keys: list[tuple[str, int]] = []
    call = origin.call
    while call is not None:
        keys.append(call.key)
        call = call.parent
    return keys


def _renamed(value: object, name: str, new: fx.Node) -> object:
    if isinstance(value, fx.Node):
        return new if value.name == name else value
    if isinstance(value, tuple):
        return tuple(_renamed(v, name, new) for v in value)
    if isinstance(value, dict):
        return {k: _renamed(v, name, new) for k, v in value.items()}
    return value
