"""Which class every axis of every parameter grows with, by letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from string import ascii_uppercase

from torch import nn

from mufx.classes.axes import Var
from mufx.classes.finding import Identities, find_identities
from mufx.classes.growing import growth
from mufx.classes.listing import RESIDUAL, families, residual
from mufx.classes.naming import Piece, pieces
from mufx.construction import Construction
from mufx.diagnostics import MufxError
from mufx.garbage import uncollected
from mufx.html.document import Axis, AxisClass
from mufx.program import Program
from mufx.source import BATCH


@dataclass(frozen=True)
class AxisClasses:
    """The classes that grow, and by parameter its axes."""

    classes: tuple[AxisClass, ...]
    axes: Mapping[str, tuple[Axis, ...]]


@dataclass(frozen=True)
class Grown:
    """One instance, and how many times as large its classes are as at base width.

    A Program of an instance holds shapes only: the modules and the identities are here.
    """

    model: nn.Module
    identities: Identities
    grow: Mapping[str, float]


Factor = Callable[[Piece], float]
"""How many times as large as at base width an axis is, or a part of one."""


@uncollected()
def axis_classes(program: Program, grown: Grown | None = None) -> AxisClasses:
    """The axes of a program's parameters.

    Where there is no instance the model is recorded at two sizes, to follow the identity of every
    axis. Where that is refused, the axes have their sizes and no class.
    """
    try:
        found, factor = _of_instance(grown) if grown is not None else _of_sizes(program)
    except MufxError:
        return AxisClasses((), _axes(program, None, {}))
    classes, members = _growing(found, factor)
    return AxisClasses(classes, _axes(program, found, members))


def _of_instance(grown: Grown) -> tuple[Identities, Factor]:
    known = growth(grown.identities, grown.grow)

    def factor(piece: Piece) -> float:
        axis = known.axis(piece.var)
        return axis.target / axis.base

    return grown.identities, factor


def _of_sizes(program: Program) -> tuple[Identities, Factor]:
    """The size further along says what grows: at base one head is no axis of its own."""
    source = program.source
    here = find_identities(program.target.model, source.inputs(BATCH, source.target))
    there = find_identities(program.along.model, source.inputs(BATCH, program.along_knobs))
    sizes = {piece.name: there.space.size(piece.var) for piece in pieces(there)}

    def factor(piece: Piece) -> float:
        size = here.space.size(piece.var)
        return sizes.get(piece.name, size) / size

    return here, factor


def _growing(found: Identities, factor: Factor) -> tuple[tuple[AxisClass, ...], dict[Var, int]]:
    """The growing classes by letter, and the place of its class of every growing atom."""
    letters, shared = _letters(), residual(found)
    classes: list[AxisClass] = []
    members: dict[Var, int] = {}
    for name, held in families(found).items():
        factors = {factor(piece) for piece in held.values()}
        if factors == {1.0}:
            continue
        members.update(dict.fromkeys(held, len(classes)))
        title = f"{name} ({RESIDUAL})" if shared in held else name
        shown = ", ".join(f"{each:g}" for each in sorted(factors))
        classes.append(AxisClass(next(letters), title, shown))
    return tuple(classes), members


def _letters() -> Iterator[str]:
    for i in count():
        yield ascii_uppercase[i % 26] + (str(i // 26) if i >= 26 else "")


def _shapes(made: Construction) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in made.model.named_parameters()}


def _axes(
    program: Program, found: Identities | None, members: Mapping[Var, int]
) -> dict[str, tuple[Axis, ...]]:
    base, target, along = map(_shapes, (program.base, program.target, program.along))
    axes: dict[str, tuple[Axis, ...]] = {}
    for name, shape in target.items():
        sizes = zip(base[name], shape, along[name], strict=True)
        vars_ = found.parameters[name] if found is not None else (None,) * len(shape)
        axes[name] = tuple(
            _axis(found, var, members, *each) for var, each in zip(vars_, sizes, strict=True)
        )
    return axes


def _axis(
    found: Identities | None,
    var: Var | None,
    members: Mapping[Var, int],
    base: int,
    target: int,
    along: int,
) -> Axis:
    if base == target == along:
        return Axis(base, target, grows=False)
    atoms = found.space.atoms(var) if found is not None and var is not None else ()
    return Axis(base, target, True, tuple(dict.fromkeys(members[a] for a in atoms if a in members)))
