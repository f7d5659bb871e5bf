"""Which class every axis of every parameter grows with, by letters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from string import ascii_uppercase

from mufx.classes.axes import Var
from mufx.classes.finding import Identities, find_identities
from mufx.classes.listing import RESIDUAL, families, residual
from mufx.classes.naming import Piece, pieces
from mufx.construction import Construction
from mufx.diagnostics import MufxError
from mufx.html.document import Axis, AxisClass
from mufx.program import Program
from mufx.source import BATCH


@dataclass(frozen=True)
class AxisClasses:
    """The classes that grow, and by parameter its axes."""

    classes: tuple[AxisClass, ...]
    axes: Mapping[str, tuple[Axis, ...]]


@dataclass(frozen=True, slots=True)
class _Class:
    """A class that grows: where it stands among the others."""

    place: int
    letter: str


def axis_classes(program: Program) -> AxisClasses:
    """The axes of a program's parameters.

    The model is recorded twice more, to follow the identity of every axis. Where that is refused,
    the axes have their sizes and no class.
    """
    try:
        here, there = (_identities(program, made) for made in (program.target, _other(program)))
    except MufxError:
        return AxisClasses((), _axes(program, None, {}))
    classes, members = _growing(here, there)
    return AxisClasses(classes, _axes(program, here, members))


def _other(program: Program) -> Construction:
    """The size to compare with: the base, or where target is as large, one further along."""
    same = _shapes(program.base) == _shapes(program.target)
    return program.along if same else program.base


def _shapes(made: Construction) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in made.model.named_parameters()}


def _identities(program: Program, made: Construction) -> Identities:
    return find_identities(made.model, program.source.inputs(BATCH))


def _growing(
    here: Identities, there: Identities
) -> tuple[tuple[AxisClass, ...], dict[Var, _Class]]:
    """The growing classes by letter, and the class of every growing atom."""
    sizes = {piece.name: there.space.size(piece.var) for piece in pieces(there)}
    letters, shared = _letters(), residual(here)
    classes: list[AxisClass] = []
    members: dict[Var, _Class] = {}
    for name, found in families(here).items():
        factors = {_factor(here, piece, sizes) for piece in found.values()}
        if factors == {1.0}:
            continue
        held = _Class(len(classes), next(letters))
        members.update(dict.fromkeys(found, held))
        title = f"{name} ({RESIDUAL})" if shared in found else name
        shown = ", ".join(f"{factor:g}" for factor in sorted(factors))
        classes.append(AxisClass(held.letter, title, shown))
    return tuple(classes), members


def _factor(here: Identities, piece: Piece, sizes: Mapping[str, int]) -> float:
    """How many times as large the piece is here as there."""
    return here.space.size(piece.var) / sizes.get(piece.name, here.space.size(piece.var))


def _letters() -> Iterator[str]:
    for i in count():
        yield ascii_uppercase[i % 26] + (str(i // 26) if i >= 26 else "")


def _axes(
    program: Program, found: Identities | None, members: Mapping[Var, _Class]
) -> dict[str, tuple[Axis, ...]]:
    rows = (_shapes(made) for made in (program.base, program.target, program.along))
    base, target, along = rows
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
    members: Mapping[Var, _Class],
    base: int,
    target: int,
    along: int,
) -> Axis:
    if base == target == along:
        return Axis(base, target, grows=False)
    atoms = found.space.atoms(var) if found is not None and var is not None else ()
    held = [c for c in dict.fromkeys(members.get(atom) for atom in atoms) if c is not None]
    if not held:
        return Axis(base, target, grows=True)
    return Axis(base, target, True, "·".join(c.letter for c in held), held[0].place)
