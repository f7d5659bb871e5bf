"""What the ratio calculation knows of a value: how its size changes from base to target width.

In the maximal update parametrization every activation keeps its size, so every ratio is 1. Where
one is not, `ways` says what could be changed to bring it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from mufx.sizes import Axis, Slot, same


class SiteKind(StrEnum):
    """What is multiplied at a site."""

    NUMBER = "number"
    """A literal among a node's arguments, or the default of a kernel's scale argument."""
    BUFFER = "buffer"
    """The value of a buffer; `node` is its `get_attr` node."""
    RESULT = "result"
    """The result of a node, by an inserted multiplication."""
    OPERAND = "operand"
    """One operand of a node, by an inserted multiplication."""
    CHOICE = "choice"
    """What a node chooses: no factor is right."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place where a correction can go."""

    kind: SiteKind
    node: str
    slot: Slot | None = None


class Rank(IntEnum):
    """Which site is preferred: the number that moved the ratio, then ever weaker links."""

    UNKNOWN = 0
    """None: how large the value is is not known. It may divide itself away."""
    GROWING = 1
    """A literal that itself changes with width."""
    KERNEL = 2
    """The scale argument of a fused kernel."""
    AFTER = 3
    """The first literal after the ratio left 1."""
    BEFORE = 4
    """The last literal before the ratio left 1."""
    RESULT = 5
    """A new multiplication where the ratio left 1."""


Powers = Mapping[Site, float]
"""Sites that together correct a value: scaling each by f**(1/power) scales the value by f."""
Ways = Mapping[Rank, Powers]


@dataclass(frozen=True, slots=True)
class Magnitude:
    """An activation: `ratio` is its size at target over its size at base, after training.

    `neutral` marks what may be added without a size of its own: a mask of 0 and -inf, an eps.
    `simplex` marks a softmax over an axis that grows: all entries shrink, but one may stay 1.
    `sparse` marks those of which a fixed number is not 0, however many there are.
    `zero` marks a state before the first step, which stays 0 whatever it is multiplied with.
    """

    ratio: float = 1.0
    ways: Ways | None = None
    neutral: bool = False
    simplex: bool = False
    sparse: bool = False
    zero: bool = False

    @property
    def is_one(self) -> bool:
        """Whether the size does not change with width."""
        return same(self.ratio, 1.0)

    @property
    def is_unknown(self) -> bool:
        """Whether `ratio` is only one of the sizes that it may have."""
        return Rank.UNKNOWN in self.known_ways()

    def chosen(self, node: str) -> Magnitude:
        """Some of its entries along the axis that grows, chosen by their size."""
        if not self.simplex:
            return self
        unknown = {Rank.UNKNOWN: {Site(SiteKind.CHOICE, node): 1.0}}
        return Magnitude(self.ratio, {**self.known_ways(), **unknown})

    def known_ways(self) -> Ways:
        """The ways to correct it, possibly none."""
        return self.ways or {}

    def demoted(self) -> Magnitude:
        """As it enters a contraction that moves the ratio: its literals now lie before that."""
        if not self.is_one:
            return self
        ways = self.known_ways()
        literal = ways.get(Rank.GROWING) or ways.get(Rank.AFTER) or ways.get(Rank.BEFORE)
        return replace(self, ways={Rank.BEFORE: literal} if literal else None)


ZERO = Magnitude(neutral=True, zero=True)


@dataclass(frozen=True, slots=True)
class Weight:
    """A value made of parameters only: a view, a scaled or a masked parameter.

    `names` are the parameters that are the weight itself, `gains` those that only multiply it.
    A weight that is not `linear` in them (`tanh(W)`, `1 + g`) can be used elementwise, but no
    rule says how it learns when an axis that grows is contracted.
    """

    names: frozenset[str]
    gains: frozenset[str] = frozenset()
    ratio: float = 1.0
    ways: Ways | None = None
    linear: bool = True
    factors: tuple[Factor, ...] = ()
    """Of a matrix product of two parameters: both of them."""
    normed: tuple[Axis, ...] = ()
    """The axes over which it was divided by its length, as under weight norm."""
    power: Power | None = None
    """What it is if it is not the parameter but a power of its size; `linear` is false then."""

    @staticmethod
    def bent(*weights: Weight) -> Weight:
        """A value computed from weights in a way that is not linear in them."""
        names = frozenset[str]().union(*(w.names for w in weights))
        gains = frozenset[str]().union(*(w.gains for w in weights))
        return Weight(names, gains, weights[0].ratio, weights[0].ways, linear=False)


@dataclass(frozen=True, slots=True)
class Power:
    """The size of a parameter's entries to some power: 2 for a variance, -1/2 for its rsqrt.

    It is a mean over `axes`, or of each entry alone where there are none.
    """

    axes: tuple[Axis, ...]
    degree: float


@dataclass(frozen=True, slots=True)
class Factor:
    """One parameter of a product `B @ A`, which an activation meets as `B @ (A @ x)`.

    `places` gives for each of its axes the axis of the product that it became, `None` for the
    one that the product sums over.
    """

    name: str
    axes: tuple[Axis, ...]
    places: tuple[int | None, ...]

    def contracted(self, gone: tuple[int, ...]) -> tuple[int, ...]:
        """Its axes that are summed over, when the product's axes `gone` meet an activation."""
        met = tuple(i for i, place in enumerate(self.places) if place in gone)
        return met or tuple(i for i, place in enumerate(self.places) if place is None)

    def meets(self, gone: tuple[int, ...]) -> bool:
        """Whether it is the one that the activation meets."""
        return any(place in gone for place in self.places)


@dataclass(frozen=True, slots=True)
class Several:
    """The values of an operation with several results, by index."""

    items: tuple[Value, ...]

    def __getitem__(self, index: int) -> Value:
        """The value of one result."""
        return self.items[index]


Value = Magnitude | Weight | Several


def multiplied(*values: Magnitude) -> Magnitude:
    """The product of activations: ratios multiply, powers of a shared site add."""
    if any(value.zero for value in values):
        return ZERO
    ratio = 1.0
    for value in values:
        ratio *= value.ratio
    return Magnitude(ratio, merged_ways(values))


def merged_ways(values: Iterable[Magnitude]) -> Ways | None:
    """Ways to correct a product: those of the factors that left 1, else those of any."""
    factors = sorted(values, key=lambda v: v.is_one)
    ways: dict[Rank, Powers] = {}
    for value in factors:
        for rank, powers in value.known_ways().items():
            if rank not in ways:
                ways[rank] = powers
            elif set(ways[rank]) == set(powers):
                total = {site: ways[rank][site] + power for site, power in powers.items()}
                ways[rank] = {site: power for site, power in total.items() if power}
    return {rank: powers for rank, powers in ways.items() if powers} or None


def powered(value: Magnitude, power: float) -> Magnitude:
    """`value ** power`."""
    if value.zero and power > 0:
        return value
    ways = {
        rank: {site: degree * power for site, degree in powers.items()}
        for rank, powers in value.known_ways().items()
    }
    return Magnitude(value.ratio**power, ways if power else None)


def joined_ways(values: Iterable[Magnitude]) -> Ways | None:
    """Ways to correct a sum of equal ratios: a site that all share, else the best of each."""
    terms = [v.known_ways() for v in values]
    unknown = [ways[Rank.UNKNOWN] for ways in terms if Rank.UNKNOWN in ways]
    if unknown:
        return {Rank.UNKNOWN: {site: power for powers in unknown for site, power in powers.items()}}
    for rank in Rank:
        powers = [ways.get(rank) for ways in terms]
        if powers[0] and all(p == powers[0] for p in powers):
            return {rank: powers[0]}
    joined: dict[Site, float] = {}
    for ways in terms:
        if not ways:
            return None
        for site, degree in ways[min(ways)].items():
            if joined.get(site, degree) != degree:
                return None
            joined[site] = degree
    return {Rank.RESULT: joined}
