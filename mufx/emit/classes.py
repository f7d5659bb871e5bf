"""One class per distinct structure.

Modules whose text is the same but for numbers share a class; numbers that are not the same in all
of them become arguments of its constructor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mufx.emit.text import Hole, filled, holes, skeleton


@dataclass(frozen=True)
class Instance:
    """The text of one module as if it were the only one: lines with holes."""

    path: str
    name: str
    init: tuple[str, ...]
    arguments: tuple[str, ...]
    body: tuple[str, ...]
    has_forward: bool
    results: int

    @property
    def structure(self) -> object:
        """Equal for modules that can share a class."""
        return (
            self.name,
            tuple(skeleton(line) for line in self.init),
            self.arguments,
            tuple(skeleton(line) for line in self.body),
            self.has_forward,
            self.results,
        )

    @property
    def holes(self) -> list[Hole]:
        """All numbers, in the constructor and then in the forward."""
        return [h for line in (*self.init, *self.body) for h in holes(line)]


@dataclass
class EmittedClass:
    """A class and the modules that are instances of it."""

    name: str
    instances: list[Instance]
    parameters: list[str] = field(default_factory=list)
    """The constructor's parameters."""
    values: dict[str, list[Hole]] = field(default_factory=dict)
    """By path: the arguments that make that instance."""
    _argument_of: dict[int, str] = field(default_factory=dict)

    def close(self) -> None:
        """Finds the numbers that vary, once all instances are known."""
        columns = list(zip(*(i.holes for i in self.instances), strict=True))
        by_values: dict[tuple[str, ...], str] = {}
        chosen: list[int] = []
        for index, column in enumerate(columns):
            values = tuple(h.value for h in column)
            if len(set(values)) == 1:
                continue
            if values not in by_values:
                by_values[values] = self._new_parameter(column[0].name)
                chosen.append(index)
            self._argument_of[index] = by_values[values]
        for row, instance in enumerate(self.instances):
            self.values[instance.path] = [
                Hole(self._argument_of[i], columns[i][row].value) for i in chosen
            ]

    def _new_parameter(self, hint: str) -> str:
        base = re.sub(r"\W", "_", hint) or "n"
        name, count = base, 2
        while name in self.parameters or name in ("self", "device"):
            name, count = f"{base}_{count}", count + 1
        self.parameters.append(name)
        return name

    def expression(self, path: str) -> str:
        """The constructor call of one instance; its arguments are holes again."""
        arguments = ", ".join(f"⟦{h.name}={h.value}⟧" for h in self.values[path])
        return f"{self.name}({arguments})"

    def text(self) -> tuple[list[str], list[str]]:
        """The lines of the constructor and of the forward, with parameters in place."""
        first = self.instances[0]
        count = 0
        init: list[str] = []
        for line in first.init:
            init.append(self._fill(line, count, ""))
            count += len(holes(line))
        body: list[str] = []
        kept: dict[str, None] = {}
        for line in first.body:
            for i in range(count, count + len(holes(line))):
                if i in self._argument_of:
                    kept[self._argument_of[i]] = None
            body.append(self._fill(line, count, "self."))
            count += len(holes(line))
        return [*(f"self.{name} = {name}" for name in kept), *init], body

    def _fill(self, line: str, offset: int, prefix: str) -> str:
        def choose(index: int, own: Hole) -> str:
            parameter = self._argument_of.get(offset + index)
            return f"{prefix}{parameter}" if parameter is not None else own.value

        return filled(line, choose)


def group(instances: Sequence[Instance], taken: set[str]) -> list[EmittedClass]:
    """The classes of modules of one height in the tree, closed."""
    found: dict[object, EmittedClass] = {}
    for instance in instances:
        key = instance.structure
        if key not in found:
            name, count = instance.name, 2
            while name in taken:
                name, count = f"{instance.name}{count}", count + 1
            taken.add(name)
            found[key] = EmittedClass(name, [])
        found[key].instances.append(instance)
    for emitted in found.values():
        emitted.close()
    return list(found.values())
