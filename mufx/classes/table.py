"""Tables of axis rules: what an ATen operation says about the axes of its operands and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from mufx.classes.axes import AxisSpace, Var

Axes: TypeAlias = tuple[Var, ...]
Answer: TypeAlias = "Axes | Sequence[Axes | None]"
"""The axes of the result; a list where there are several, `None` for one with new axes."""


@dataclass
class Call:
    """One call of one ATen operation, by the argument names of its schema."""

    space: AxisSpace
    name: str
    arguments: Mapping[str, Any]
    result: Any
    axes: Callable[[torch.Tensor], Axes]
    lost: list[Var] = field(default_factory=list[Var])
    """Axes that the result may have under another name: growing ones would be lost here."""

    def __getitem__(self, name: str) -> Any:
        """An argument, or its default."""
        return self.arguments[name]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments, in order."""
        return tensors(list(self.arguments.values()))

    @property
    def own(self) -> Axes:
        """The axes of the first tensor."""
        return self.axes(self.tensors[0])

    def dim(self, name: str = "dim", rank: int | None = None) -> int:
        """A dimension, counted from the front; of the first tensor unless a rank is given."""
        rank = len(self.own) if rank is None else rank
        return int(self[name]) % max(rank, 1)

    def fresh(self, result: Any = None) -> Axes:
        """New axes for a result."""
        value: torch.Tensor = self.result if result is None else result
        return tuple(self.space.new(int(n)) for n in value.shape)

    def equal(self, a: Sequence[Var], b: Sequence[Var]) -> None:
        """Two rows of axes are equal, one by one."""
        for x, y in zip(a, b, strict=True):
            self.space.unify(x, y)


Rule: TypeAlias = Callable[[Call], Answer]


class AxisRules(dict[str, Rule]):
    """Rules by the name of an ATen operation, in-place forms included."""

    def rule(self, *names: str) -> Callable[[Rule], Rule]:
        """Registers a function for operations (decorator).

        Raises:
            ValueError: An operation has a rule already.
        """

        def register(rule: Rule) -> Rule:
            for name in names:
                if name in self:
                    raise ValueError(f"{name} has a rule already")
                self[name] = rule
            return rule

        return register


def tensors(value: object) -> list[torch.Tensor]:
    """The tensors in nested lists."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        items: Sequence[object] = value
        return [t for item in items for t in tensors(item)]
    return []


def broadcast(call: Call, rows: Sequence[Axes]) -> Axes:
    """The axes of operands that broadcast: those in one column are equal, a size of 1 is not."""
    rank = max((len(row) for row in rows), default=0)
    columns: list[Var] = []
    for back in range(rank, 0, -1):
        column = [row[-back] for row in rows if len(row) >= back]
        wide = [v for v in column if call.space.size(v) != 1] or column
        for other in wide[1:]:
            call.space.unify(wide[0], other)
        columns.append(wide[0])
    return tuple(columns)


def labelled(call: Call, rows: Sequence[tuple[torch.Tensor | None, str]], result: str) -> Axes:
    """The axes of an einsum: those with one letter are equal; a letter of size 1 broadcasts."""
    found: dict[str, Var] = {}
    for tensor, letters in rows:
        if tensor is None:
            continue
        for letter, var in zip(letters, call.axes(tensor), strict=True):
            if letter not in found or call.space.size(found[letter]) == 1:
                found[letter] = var
            else:
                call.space.unify(found[letter], var)
    return tuple(found[letter] for letter in result)
