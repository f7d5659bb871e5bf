"""Axes as unknowns: which axes of a model's tensors are one and the same.

Every axis of every tensor is a variable of known size. A view makes products of axes, a split or
a concatenation makes sums, and an operation says which axes are equal. Two axes are equal because
something says so, never because their sizes agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from networkx.utils import UnionFind

Var: TypeAlias = int
Equation: TypeAlias = tuple[Var, Var]


class Kind(StrEnum):
    """How an axis is made of others."""

    PRODUCT = "product"
    """One index for all combinations, the last factor running fastest: (heads, head_dim)."""
    SUM = "sum"
    """One after the other: the rows of a fused projection."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an axis is made of."""

    kind: Kind
    items: tuple[Var, ...]


class AxisSpace:
    """All axes of one model, and what is known of them."""

    def __init__(self) -> None:
        """No axes."""
        self._sizes: list[int] = []
        self._classes: UnionFind[Var] = UnionFind()
        self._parts: dict[Var, Parts] = {}
        self.unsolved: list[Equation] = []
        """Equal axes whose parts do not fit: that both grow alike has to be checked."""
        self.taps: list[Var] = []
        """Axes of convolution kernels over places: no class of their own."""
        self.rows: list[Var] = []
        """Axes that integers look up: the rows of a table."""

    def new(self, size: int) -> Var:
        """An axis of which nothing is known but its size."""
        self._sizes.append(size)
        return len(self._sizes) - 1

    def size(self, var: Var) -> int:
        """The number of entries along an axis."""
        return self._sizes[var]

    def root(self, var: Var) -> Var:
        """The axis that stands for all that are equal to this one."""
        root: Var = self._classes[var]
        return root

    def parts(self, var: Var) -> Parts | None:
        """What an axis is made of; `None` for an atom."""
        return self._parts.get(self.root(var))

    def flat(self, kind: Kind, var: Var) -> list[Var]:
        """The factors of a product or the segments of a sum, through all levels."""
        parts = self.parts(var)
        if parts is None or parts.kind is not kind:
            return [var]
        return [leaf for item in parts.items for leaf in self.flat(kind, item)]

    def atoms(self, var: Var) -> Iterator[Var]:
        """The roots of the axes that have no parts, in order, repeated where they repeat.

        An axis of size 1 is no atom: it is the number 1 and never grows.
        """
        parts = self.parts(var)
        if parts is not None:
            for item in parts.items:
                yield from self.atoms(item)
        elif self.size(var) != 1:
            yield self.root(var)

    def whole(self, kind: Kind, items: Iterable[Var]) -> Var:
        """The axis made of others; factors of 1 and empty segments are left out."""
        neutral = 1 if kind is Kind.PRODUCT else 0
        kept = tuple(v for v in items if self.size(v) != neutral)
        if len(kept) == 1:
            return kept[0]
        sizes = [self.size(v) for v in kept]
        var = self.new(math.prod(sizes) if kind is Kind.PRODUCT else sum(sizes))
        if kept:
            self._parts[self.root(var)] = Parts(kind, kept)
        return var

    def split(self, kind: Kind, var: Var, sizes: Sequence[int]) -> tuple[Var, ...]:
        """The parts of an axis, of the given sizes."""
        if len(sizes) == 1:
            return (var,)
        known = self.flat(kind, var)
        if [self.size(v) for v in known] == list(sizes):
            return tuple(known)
        made = tuple(self.new(size) for size in sizes)
        self.unify(var, self.whole(kind, made))
        return made

    def unify(self, a: Var, b: Var) -> None:
        """Two axes are the same one, and so are their parts.

        Sizes of 1 broadcast and are equal to nothing. What cannot be solved is kept in `unsolved`.
        """
        todo = [(a, b)]
        while todo:
            a, b = (self.root(v) for v in todo.pop())
            if a == b or 1 in (self.size(a), self.size(b)):
                continue
            follows = self._consequences(a, b)
            if follows is None:
                self.unsolved.append((a, b))
                continue
            todo.extend(follows)
            self._join(a, b)

    def _join(self, a: Var, b: Var) -> None:
        found = [self._parts.pop(v) for v in (a, b) if v in self._parts]
        self._classes.union(a, b)
        products = [p for p in found if p.kind is Kind.PRODUCT]
        if found:
            self._parts[self.root(a)] = (products or found)[0]

    def _consequences(self, a: Var, b: Var) -> list[Equation] | None:
        """What else is equal if two axes are; `None` if their parts do not fit."""
        if self.size(a) != self.size(b):
            return None
        mine, its = self._parts.get(a), self._parts.get(b)
        if mine is None or its is None:
            return []
        if mine.kind is its.kind:
            return self._aligned(mine.kind, self.flat(mine.kind, a), self.flat(its.kind, b))
        product, total = (a, b) if mine.kind is Kind.PRODUCT else (b, a)
        return self._distributed(self.flat(Kind.PRODUCT, product), self.flat(Kind.SUM, total))

    def _aligned(self, kind: Kind, left: list[Var], right: list[Var]) -> list[Equation] | None:
        """Parts of one kind side by side; the longer is cut where the shorter ends."""
        equations: list[Equation] = []
        mine, its = left[::-1], right[::-1]
        while mine and its:
            x, y = mine.pop(), its.pop()
            if self.size(x) == self.size(y):
                equations.append((x, y))
                continue
            if self.size(x) > self.size(y):
                x, y, mine, its = y, x, its, mine
            rest = self._rest(kind, self.size(y), self.size(x))
            if rest is None:
                return None
            first, second = self.new(self.size(x)), self.new(rest)
            equations += [(x, first), (y, self.whole(kind, (first, second)))]
            its.append(second)
        return equations

    @staticmethod
    def _rest(kind: Kind, whole: int, part: int) -> int | None:
        if kind is Kind.SUM:
            return whole - part
        return whole // part if whole % part == 0 else None

    def _distributed(self, factors: list[Var], segments: list[Var]) -> list[Equation] | None:
        """`o * i = s1 + s2` where i divides the segments: o = o1 + o2 and each s = o_s * i."""
        outer, *inner = factors
        step = math.prod(self.size(v) for v in inner)
        if any(self.size(s) % step for s in segments):
            return None
        outers = [self.new(self.size(s) // step) for s in segments]
        pairs = zip(segments, outers, strict=True)
        rows = [(s, self.whole(Kind.PRODUCT, (o, *inner))) for s, o in pairs]
        return [(outer, self.whole(Kind.SUM, outers)), *rows]
