"""Names of classes: a class of axes is named by a parameter that shows it.

`h.0.mlp.c_fc.weight:0` is the first axis of that parameter. Where an axis is made of others,
further numbers lead to the part: of `c_proj.weight:1 = heads * head_dim` the heads are
`c_proj.weight:1.0`. The classes of equal layers share a name with `*` for the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from mufx.classes.axes import AxisSpace, Kind, Var
from mufx.classes.finding import Identities


@dataclass(frozen=True, slots=True)
class Piece:
    """An axis of a parameter, or a part of one."""

    parameter: str
    axis: int
    path: tuple[int, ...]
    var: Var

    @property
    def name(self) -> str:
        """`parameter:axis.part.part`."""
        return f"{self.parameter}:{'.'.join(str(i) for i in (self.axis, *self.path))}"

    @property
    def pattern(self) -> str:
        """The name with `*` for every number in the parameter's."""
        parts = self.parameter.split(".")
        starred = ".".join("*" if part.isdigit() else part for part in parts)
        return f"{starred}{self.name[len(self.parameter) :]}"


def pieces(identities: Identities) -> Iterator[Piece]:
    """Every axis of every parameter and all of their parts."""
    for name, axes in identities.parameters.items():
        for axis, var in enumerate(axes):
            for path, part in _parts(identities.space, var):
                yield Piece(name, axis, path, part)


def _parts(space: AxisSpace, var: Var) -> Iterator[tuple[tuple[int, ...], Var]]:
    yield (), var
    parts = space.parts(var)
    if parts is None:
        return
    for i, item in enumerate(space.flat(parts.kind, var)):
        for path, part in _parts(space, item):
            yield (i, *path), part


def single(space: AxisSpace, var: Var) -> Var | None:
    """The class that an axis grows with, at the same rate; `None` if it is not one.

    Both halves of `d = h + h` are one class, and d stands for it.
    """
    atoms = set(space.atoms(var))
    if len(atoms) != 1:
        return None
    (atom,) = atoms
    return atom if resized(space, var, {atom: Fraction(2)}) == 2 * space.size(var) else None


def resized(space: AxisSpace, var: Var, factors: Mapping[Var, Fraction]) -> Fraction:
    """The size of an axis after its atoms were multiplied by factors."""
    parts = space.parts(var)
    if parts is None:
        factor = factors.get(space.root(var), Fraction(1)) if space.size(var) != 1 else 1
        return Fraction(space.size(var)) * factor
    sizes = [resized(space, item, factors) for item in parts.items]
    if parts.kind is Kind.SUM:
        return sum(sizes, Fraction(0))
    total = Fraction(1)
    for size in sizes:
        total *= size
    return total


def best(space: AxisSpace, found: Iterator[Piece]) -> dict[Var, Piece]:
    """For every class the piece that shows it with the fewest steps, in the model's order."""
    chosen: dict[Var, Piece] = {}
    for piece in found:
        atom = single(space, piece.var)
        if atom is None:
            continue
        known = chosen.get(atom)
        if known is None or len(piece.path) < len(known.path):
            chosen[atom] = piece
    return chosen


def written(space: AxisSpace, var: Var, names: Mapping[Var, str]) -> str:
    """What an axis is made of, by names of classes: `heads * head_dim`."""
    atom = single(space, var)
    if atom is not None and atom in names:
        return names[atom]
    parts = space.parts(var)
    if parts is None:
        return str(space.size(var))
    sign = " * " if parts.kind is Kind.PRODUCT else " + "
    items = [written(space, item, names) for item in space.flat(parts.kind, var)]
    return f"({sign.join(items)})"
