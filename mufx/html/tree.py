"""The module tree with the axes of every parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import nn

from mufx.html.axes import Grown, axis_classes
from mufx.html.document import Axis, Branch, Section, Tree, Words
from mufx.program import Label, Program

_MEANING: Final = (
    "Axes with one letter always grow together. A class is named after a parameter's axis that "
    "shows it, counted from 0; × says how many times as large as at base width it is."
)


def section(program: Program, grown: Grown | None = None) -> Section:
    """The tree, and what its letters mean where it has some."""
    tree = of_program(program, grown)
    return Section("modules", "Modules", (Words(_MEANING), tree) if tree.classes else (tree,))


def of_program(program: Program, grown: Grown | None = None) -> Tree:
    """The modules that hold parameters, at target width, in the model's order."""
    found = axis_classes(program, grown)
    model = grown.model if grown is not None else program.target.model
    below = _Modules(model, program.labels, found.axes).of(model, "")
    return Tree("Modules", found.classes, (Branch(program.source.name, "", branches=below),))


class _Modules:
    """Writes the branches of one model."""

    def __init__(
        self,
        model: nn.Module,
        labels: Mapping[str, Label],
        axes: Mapping[str, tuple[Axis, ...]],
    ) -> None:
        self.axes = axes
        self.roles = {name: label.role.value for name, label in labels.items()}
        self.first = {id(parameter): name for name, parameter in model.named_parameters()}

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
