"""The module tree with the axes of every parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import nn

from mufx.html.axes import AxisClasses, axis_classes
from mufx.html.document import Axis, Branch, Section, Tree, Words
from mufx.program import Program

_MEANING: Final = (
    "Axes with one letter always grow together. A class is named after a parameter's axis that "
    "shows it, counted from 0; × says how many times as large as at base width it is."
)


def section(program: Program) -> Section:
    """The tree, and what its letters mean where it has some."""
    tree = of_program(program)
    return Section("modules", "Modules", (Words(_MEANING), tree) if tree.classes else (tree,))


def of_program(program: Program) -> Tree:
    """The modules that hold parameters, at target width, in the model's order."""
    found: AxisClasses = axis_classes(program)
    below = _Modules(program, found.axes).of(program.target.model, "")
    return Tree("Modules", found.classes, (Branch(program.source.name, "", branches=below),))


class _Modules:
    """Writes the branches of one model."""

    def __init__(self, program: Program, axes: Mapping[str, tuple[Axis, ...]]) -> None:
        self.axes = axes
        self.roles = {name: label.role.value for name, label in program.labels.items()}
        named = program.target.model.named_parameters()
        self.first = {id(parameter): name for name, parameter in named}

    def of(self, module: nn.Module, path: str) -> tuple[Branch, ...]:
        """The module's own parameters, then its modules that hold any."""
        own = [self._parameter(n, p, path) for n, p in module.named_parameters(recurse=False)]
        below = [(n, m, self.of(m, f"{path}{n}.")) for n, m in module.named_children()]
        return (*own, *(Branch(n, type(m).__name__, branches=held) for n, m, held in below if held))

    def _parameter(self, name: str, parameter: nn.Parameter, path: str) -> Branch:
        """A tied one stands where it is first named."""
        first = self.first[id(parameter)]
        if first != path + name:
            return Branch(name, f"tied to {first}")
        return Branch(name, self.roles[first], self.roles[first], self.axes[first])
