"""What of a constructor's program is needed, and which tensor each piece of memory belongs to."""

from __future__ import annotations

import torch
from torch import fx

from mufx.construction import Construction, Span, is_in_place, is_random
from mufx.rules.table import operation

BY_SHAPE = {
    "empty_like": "empty", "new_empty": "empty", "zeros_like": "zeros", "new_zeros": "zeros",
    "ones_like": "ones", "new_ones": "ones", "rand_like": "rand", "randn_like": "randn",
}  # fmt: skip
WHOLE_WRITES = frozenset({
    "uniform", "normal", "fill", "zero", "copy", "trunc_normal", "orthogonal", "sparse", "dirac",
    "eye", "random", "exponential", "cauchy", "geometric", "log_normal",
})  # fmt: skip

Layout = tuple[tuple[int, ...], torch.dtype, Span, tuple[int, ...]]


class InitFacts:
    """Who lives where, and what is needed."""

    def __init__(self, construction: Construction) -> None:
        self.construction = construction
        self.storages = construction.storages
        self.nodes: list[fx.Node] = list(construction.graph.nodes)
        self.creators: dict[int, fx.Node] = {}
        for node in self.nodes:
            if node.name in self.storages:
                self.creators.setdefault(self.storages[node.name], node)
        self.names = self._names()
        self.homes = self._homes()
        self.blank: set[fx.Node] = set()
        """Needed only as memory that is then written to."""
        self.kept = self._needed()
        self.last = {self.storages[n.name]: n for n in self.kept if n.name in self.storages}
        self.reads = self._reads()
        self.owners = self._owners()

    def storage(self, node: fx.Node) -> int | None:
        """The memory that a node stands for, if it stands for one tensor."""
        return self.storages.get(node.name)

    def layout(self, node: fx.Node) -> Layout | None:
        """Shape, dtype and place in memory."""
        value = self.construction.values.get(node.name)
        if value is None:
            return None
        span = self.construction.spans[node.name]
        return value.sizes, value.dtype, span, span.strides

    def is_whole(self, node: fx.Node) -> bool:
        """Whether a node stands for all of its memory, laid out as it was made."""
        storage = self.storages.get(node.name)
        return storage is not None and self.layout(node) == self.layout(self.creators[storage])

    def covers(self, node: fx.Node) -> bool:
        """Whether a node stands for all of its memory, in any layout."""
        span = self.construction.spans[node.name]
        return span.dense and span == self.construction.spans[self.creators[self._of(node)].name]

    def _of(self, node: fx.Node) -> int:
        return self.storages[node.name]

    def _names(self) -> dict[int, dict[str, str]]:
        """By storage: the nodes that are left behind, and one name for each."""
        found: dict[int, dict[str, str]] = {}
        for name, node in self.construction.tensors.items():
            found.setdefault(self.storages[node], {}).setdefault(node, name)
        return found

    def _homes(self) -> dict[int, str]:
        """The tensor whose memory a storage simply is."""
        nodes = self.construction.nodes
        homes: dict[int, str] = {}
        for storage, names in self._names().items():
            for node, name in names.items():
                if self.is_whole(nodes[node]):
                    homes.setdefault(storage, name)
        return homes

    def inputs(self, node: fx.Node) -> list[fx.Node]:
        """What a node reads; the target of a plain write is not read."""
        if operation(node) in BY_SHAPE or node in self.blank:
            return []
        target = written(node)
        plain = operation(node) in WHOLE_WRITES or operation(node) == "setitem"
        return [n for n in node.all_input_nodes if not (plain and n is target)]

    def _needed(self) -> list[fx.Node]:
        live = set(self.names)
        wanted: set[fx.Node] = set()
        touched: set[int] = set()
        kept: list[fx.Node] = []
        for node in reversed(self.nodes):
            if not self._is_needed(node, live, wanted, touched):
                continue
            kept.append(node)
            storage = self.storage(node)
            if storage is not None:
                if storage not in self.homes:
                    touched.add(storage)
                self._pass(node, storage, live)
            for source in self.inputs(node):
                wanted.add(source)
                if (read := self.storage(source)) is not None and read != storage:
                    live.add(read)
        return kept[::-1]

    def _is_needed(
        self, node: fx.Node, live: set[int], wanted: set[fx.Node], touched: set[int]
    ) -> bool:
        storage = self.storage(node)
        if storage is None:
            return node in wanted
        if is_random(node) or (storage in live and is_in_place(node)):
            return True
        if node is self.creators[storage]:
            if storage not in live and storage in touched:
                self.blank.add(node)
            return storage in live or storage in touched
        if node in wanted:  # a view of what was not made by one node, as in chunk(...)[0]
            wanted.update(n for n in node.all_input_nodes if self.storage(n) is None)
        return False

    def _pass(self, node: fx.Node, storage: int, live: set[int]) -> None:
        """What of `storage` is needed before `node`."""
        if node is self.creators[storage] or (
            operation(node) in WHOLE_WRITES and self.covers(node)
        ):
            live.discard(storage)

    def _reads(self) -> dict[int, int]:
        counts: dict[int, int] = {}
        for node in self.kept:
            own = self.storage(node)
            for source in self.inputs(node):
                storage = self.storage(source)
                if storage is not None and (storage != own or own is None):
                    counts[storage] = counts.get(storage, 0) + 1
        for storage, names in self.names.items():
            away = [n for n, name in names.items() if name != self.homes.get(storage)]
            counts[storage] = counts.get(storage, 0) + len(away)
        return counts

    def _owners(self) -> dict[str, str]:
        """By node: the first tensor that its value flows into, for its device."""
        owners: dict[str, str] = {}
        memory: dict[int, str] = {s: next(iter(names.values())) for s, names in self.names.items()}
        memory |= self.homes
        for node in reversed(self.nodes):
            storage = self.storage(node)
            own = memory.get(storage) if storage is not None else owners.get(node.name)
            own = own or owners.get(node.name)
            if own is None:
                continue
            owners[node.name] = own
            for source in node.all_input_nodes:
                owners[source.name] = own
                at = self.storage(source)
                if at is not None and at not in self.names:
                    memory[at] = own
        return owners


def written(node: fx.Node) -> fx.Node | None:
    """The tensor that an in-place operation writes to."""
    for value in (node.kwargs.get("out"), *node.args[:1], node.kwargs.get("tensor")):
        if isinstance(value, fx.Node) and is_in_place(node):
            return value
    return None
