"""From the classes that grow to the base sizes of every axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction

from mufx.classes.axes import AxisSpace, Var
from mufx.classes.finding import Identities, Run
from mufx.classes.listing import RESIDUAL, families, residual
from mufx.classes.naming import Piece, pieces, resized, single, written
from mufx.classes.table import Axes
from mufx.diagnostics import Diagnostic, MufxError, Place, error, raise_errors
from mufx.knobs import did_you_mean
from mufx.sizes import Axis

Grow = Mapping[str, float]


@dataclass(frozen=True)
class Growth:
    """How many times as large as at base width every class is.

    The instance is the target; a class without a factor keeps its size.
    """

    space: AxisSpace
    factors: Mapping[Var, Fraction]

    def axis(self, var: Var) -> Axis:
        """An axis at base, target and as much further."""
        size = self.space.size(var)
        down = {atom: 1 / factor for atom, factor in self.factors.items()}
        base, along = (resized(self.space, var, f) for f in (down, self.factors))
        return Axis(int(base), size, int(along))

    def row(self, axes: Axes) -> tuple[Axis, ...]:
        """All axes of a tensor."""
        return tuple(self.axis(var) for var in axes)

    def grows(self, var: Var) -> bool:
        """Whether any class that an axis is made of grows."""
        return any(atom in self.factors for atom in self.space.atoms(var))


def growth(identities: Identities, grow: Grow) -> Growth:
    """The growth that a user describes: names of classes to their size over that at base width.

    A name is one of the table's, `residual`, or any `parameter:axis` that is one class; `*`
    stands for any part of a parameter's name.

    Raises:
        MufxError: `MUF701` an unknown name, `MUF702` a name of several classes or of none,
            `MUF703` a factor that leaves no whole size, `MUF704` an operation through which a
            growing axis is lost, `MUF705` axes that must be equal and no longer are.
    """
    factors, problems = _factors(identities, grow)
    raise_errors(problems)
    found = Growth(identities.space, factors)
    problems += _fractions(identities, found)
    raise_errors(problems)
    problems = [d for run in identities.runs for d in (*_gaps(run, found), *_clashes(run, found))]
    raise_errors(dict.fromkeys(problems))
    return found


# -- names --------------------------------------------------------------------------------------


def _factors(identities: Identities, grow: Grow) -> tuple[dict[Var, Fraction], list[Diagnostic]]:
    factors: dict[Var, Fraction] = {}
    problems: list[Diagnostic] = []
    for name, factor in grow.items():
        exact = Fraction(factor).limit_denominator(10**6)
        try:
            chosen = members(identities, name)
        except MufxError as problem:
            problems += problem.diagnostics
            continue
        if exact <= 0:
            problems.append(_impossible(name, factor, "is no factor"))
        for atom in chosen:
            if factors.setdefault(atom, exact) != exact:
                problems.append(_impossible(name, factor, f"is {float(factors[atom]):g} elsewhere"))
    return {atom: factor for atom, factor in factors.items() if factor != 1}, problems


def members(identities: Identities, name: str) -> dict[Var, Piece]:
    """The classes that a name stands for, each with a part of a parameter that shows it.

    Raises:
        MufxError: `MUF701` or `MUF702`.
    """
    rows = families(identities)
    stream = residual(identities) if name == RESIDUAL else None
    if stream is not None:
        return {atom: p for row in rows.values() for atom, p in row.items() if atom == stream}
    if name in rows:
        return rows[name]
    found = [p for p in pieces(identities) if name in (p.name, p.pattern) or _fits(p, name)]
    if not found:
        raise MufxError(_unknown(identities, name))
    shown = [(single(identities.space, piece.var), piece) for piece in found]
    several = next((piece for atom, piece in shown if atom is None), None)
    if several is not None:
        raise MufxError(_several(identities, name, several))
    return {atom: piece for atom, piece in shown if atom is not None}


def _fits(piece: Piece, name: str) -> bool:
    return "*" in name and fnmatchcase(piece.name, name)


def _unknown(identities: Identities, name: str) -> Diagnostic:
    known = [RESIDUAL, *families(identities), *(p.name for p in pieces(identities))]
    return error(
        "MUF701",
        f"no axis is called {name}",
        hint=f"{did_you_mean(name, known)}the classes have names like {list(known)[1]}; "
        "mufx classes lists them",
    )


def _several(identities: Identities, name: str, piece: Piece) -> Diagnostic:
    named = {a: n for n, found in families(identities).items() for a in found}
    made = written(identities.space, piece.var, named)
    if not any(identities.space.atoms(piece.var)):
        return error("MUF702", f"{piece.name} has size 1: it does not grow", hint="leave it out")
    return error(
        "MUF702",
        f"{piece.name} is made of several classes: {made}",
        hint=f"say which of them grow, instead of {name}",
    )


def _impossible(name: str, factor: float, why: str) -> Diagnostic:
    return error(
        "MUF703",
        f"{name}={factor:g} {why}",
        hint="give the size in the instance over the size at base width, once for each class",
    )


# -- sizes --------------------------------------------------------------------------------------


def _fractions(identities: Identities, found: Growth) -> Iterator[Diagnostic]:
    """Classes whose base size would be no whole number."""
    for name, members_ in families(identities).items():
        for atom, piece in members_.items():
            factor = found.factors.get(atom, Fraction(1))
            size = identities.space.size(atom)
            if (size / factor).denominator != 1:
                yield error(
                    "MUF703",
                    f"{name} has {identities.space.size(piece.var)} entries, which is no "
                    f"{float(factor):g}-fold of a whole number",
                    hint="choose a base width that exists",
                )


def _gaps(run: Run, found: Growth) -> Iterator[Diagnostic]:
    for gap in run.gaps:
        if any(found.grows(var) for var in gap.axes):
            yield error(
                "MUF704",
                f"{gap.operation} has no rule for axes, and an axis of its operands grows",
                hint="give mufx the model's class with base and target knobs: two sizes need no "
                "rule",
                place=_place(run, gap.node),
            )


def _clashes(run: Run, found: Growth) -> Iterator[Diagnostic]:
    for clash in run.clashes:
        first, second = (found.axis(var) for var in clash.equation)
        if first != second:
            yield error(
                "MUF705",
                f"two axes of size {first.target} are used as one, and would be {first.base} and "
                f"{second.base} at base width",
                hint="let the classes that they are made of grow alike",
                place=_place(run, clash.node),
            )


def _place(run: Run, node: str) -> Place | None:
    origin = run.recording.origins.get(node)
    return origin.place if origin is not None else None
