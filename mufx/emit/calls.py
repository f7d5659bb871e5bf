"""The module calls of a recording as a tree, with what flows in and out of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import fx
from torch.utils._pytree import tree_leaves

from mufx.recording import Call, InputDevice, Recording, Size


@dataclass
class CallTree:
    """One module call: its own nodes and the calls it makes, in order."""

    call: Call | None
    path: str
    items: list[Item] = field(default_factory=list)
    inputs: list[fx.Node] = field(default_factory=list)
    """Values from outside that nodes in here use: as they are passed, then in order of use."""
    outputs: list[fx.Node] = field(default_factory=list)
    """Values made in here that are used outside."""
    returns: list[fx.Node | None] = field(default_factory=list)
    """What its forward returns, the same values in all calls; `None` for what it does not make."""

    @property
    def key(self) -> tuple[str, int]:
        """The same in every recording."""
        return self.call.key if self.call is not None else ("", 0)

    def nodes(self) -> Iterator[fx.Node]:
        """All nodes in here and below, in order."""
        for item in self.items:
            if isinstance(item, CallTree):
                yield from item.nodes()
            else:
                yield item

    def trees(self) -> Iterator[CallTree]:
        """This call and all below, callees first."""
        for item in self.items:
            if isinstance(item, CallTree):
                yield from item.trees()
        yield self


Item: TypeAlias = "fx.Node | CallTree"


def call_tree(recording: Recording) -> CallTree:
    """The tree of a recording; its root is the call of the model itself."""
    root = CallTree(None, "")
    known: dict[tuple[str, int], CallTree] = {("", 0): root}
    for node in recording.graph.nodes:
        if node.op in ("call_function", "call_method"):
            _tree_of(recording.origins[node.name].call, known).items.append(node)
    _find_flows(root, recording)
    return root


def _tree_of(call: Call | None, known: dict[tuple[str, int], CallTree]) -> CallTree:
    if call is None:
        return known["", 0]
    if call.key in known:
        tree = known[call.key]
        tree.call = call
        return tree
    tree = CallTree(call, call.path)
    known[call.key] = tree
    _tree_of(call.parent, known).items.append(tree)
    return tree


def _find_flows(root: CallTree, recording: Recording) -> None:
    order = {node: i for i, node in enumerate(recording.graph.nodes)}
    placeholders = [n for n in recording.graph.nodes if n.op == "placeholder"]
    for tree in root.trees():
        inside = set(tree.nodes())
        inputs: dict[fx.Node, None] = {}
        outputs: list[fx.Node] = []
        for node in tree.nodes():
            for value in node.all_input_nodes:
                if value not in inside and value.op != "get_attr":
                    inputs[value] = None
            if any(user not in inside for user in node.users):
                outputs.append(node)
        for child in tree.items:
            if isinstance(child, CallTree):
                inputs.update((n, None) for n in child.inputs if n not in inside)
        passed = list(nodes_in(recording.arguments.get(tree.key)))
        for carrier in _size_carriers(tree, inputs, [*passed, *placeholders], recording):
            inputs[carrier] = None
        if not inputs and _lacks_device(tree, recording):
            inputs.update((carrier, None) for carrier in [*passed, *placeholders][:1])
        tree.inputs = list(dict.fromkeys((*(n for n in passed if n in inputs), *inputs)))
        ranked = _rank(recording.results.get(tree.key))
        tree.outputs = sorted(outputs, key=lambda n: (ranked.get(n, len(ranked)), order[n]))
    root.inputs = placeholders


def _size_carriers(
    tree: CallTree,
    inputs: Mapping[fx.Node, None],
    candidates: list[fx.Node],
    recording: Recording,
) -> Iterator[fx.Node]:
    """Tensors that a call takes for their sizes only: it uses a size that no other input shows.

    What a call below uses, that one is given, and passes on its own demands as inputs.
    """
    shown = {e for node in inputs for e in _sizes_of(node, recording)}
    own = [item for item in tree.items if isinstance(item, fx.Node)]
    for expr in {e: None for n in own for e in _sizes_in((n.args, n.kwargs))}:
        if expr in shown:
            continue
        for symbol in expr.free_symbols - shown:
            carrier = next((c for c in candidates if symbol in _sizes_of(c, recording)), None)
            if carrier is not None:
                shown.update(_sizes_of(carrier, recording))
                yield carrier


def _lacks_device(tree: CallTree, recording: Recording) -> bool:
    """Whether a call makes tensors where the inputs are, and has no tensor that says where."""
    given = tree_leaves([(node.args, node.kwargs) for node in tree.nodes()])
    tensors = (str(n.target) for n in recording.graph.nodes if n.op == "get_attr")
    asked = any(isinstance(leaf, InputDevice) for leaf in given)
    return asked and not any(name.startswith(f"{tree.path}.") for name in tensors)


def _sizes_of(node: fx.Node, recording: Recording) -> set[Any]:
    value = recording.values.get(node.name)
    return {d.expr for d in value.shape if isinstance(d, Size)} if value is not None else set()


def _sizes_in(value: object) -> Iterator[Any]:
    if isinstance(value, Size):
        yield value.expr
    elif isinstance(value, slice):
        yield from _sizes_in((value.start, value.stop, value.step))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _sizes_in(item)
    elif isinstance(value, Mapping):
        yield from _sizes_in(tuple(value.values()))


def _rank(result: object) -> dict[fx.Node, int]:
    return {node: i for i, node in enumerate(nodes_in(result))}


def nodes_in(value: object) -> Iterator[fx.Node]:
    """All nodes in a structure of containers."""
    if isinstance(value, fx.Node):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from nodes_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from nodes_in(item)
