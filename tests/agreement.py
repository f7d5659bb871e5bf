"""Compares what the classes of one instance say with two recorded sizes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from mufx.align import align
from mufx.classes import find_identities
from mufx.classes.growing import Growth
from mufx.classes.naming import best, pieces, single
from mufx.inputs import Inputs


@dataclass(frozen=True)
class Pair:
    """One model at two sizes, for one set of inputs."""

    base: nn.Module
    target: nn.Module
    inputs: Inputs


def disagreements(pair: Pair) -> tuple[list[str], int]:
    """Axes whose base size, as the classes give it, is not the one recorded; and how many are.

    The factor of a class is read off one place: the part of a parameter that names it.
    """
    base = find_identities(pair.base, pair.inputs)
    target = find_identities(pair.target, pair.inputs)
    sizes = {p.name: base.space.size(p.var) for p in pieces(base) if single(base.space, p.var)}
    factors = {
        atom: Fraction(target.space.size(piece.var), sizes[piece.name])
        for atom, piece in best(target.space, pieces(target)).items()
    }
    growth = Growth(target.space, {atom: f for atom, f in factors.items() if f != 1})
    wrong: list[str] = []
    count = 0
    for one, other in zip(base.runs, target.runs, strict=True):
        trace = align(one.recording, other.recording, other.recording, other.training)
        for node, axes in trace.axes.items():
            count += len(axes)
            if [a.base for a in axes] != [growth.axis(v).base for v in other.axes[node]]:
                wrong.append(node)
    return wrong, count
