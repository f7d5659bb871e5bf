"""How alike the rows of a batch are, and their gradients, in a model that starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Alike:
    """The cosine of two rows.

    Attributes:
        near: Of one sequence.
        far: Of two sequences.
        place: Of two sequences, at the same place.
    """

    near: float = 0.0
    far: float = 0.0
    place: float = 0.0

    def each(self, function: Callable[[float], float]) -> Alike:
        """All of them, passed through a function."""
        return Alike(function(self.near), function(self.far), function(self.place))

    def times(self, other: Alike) -> Alike:
        """Of the product of two independent values."""
        return Alike(self.near * other.near, self.far * other.far, self.place * other.place)


APART = Alike()
SAME = Alike(1.0, 1.0, 1.0)
PLACES = Alike(place=1.0)
"""Of a table of positions."""


def rectified(cosine: float) -> float:
    """After relu (Cho and Saul, 2009): rows that were independent share their mean.

    >>> round(rectified(0), 3), round(rectified(1), 3)
    (0.318, 1.0)
    """
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    return (math.sin(angle) + (math.pi - angle) * cosine) / math.pi


def bent(cosine: float, size: float) -> float:
    """After gelu or silu: near 0 they are linear, far from it they are relu."""
    weight = min(1.0, size) ** 2
    return weight * rectified(cosine) + (1 - weight) * cosine


def squared(cosine: float) -> float:
    """After a square: of normal x and y, E[x^2 y^2] is 1 + 2 cosine^2 and E[x^4] is 3.

    >>> round(squared(0), 3), squared(1)
    (0.333, 1.0)
    """
    return (1 + 2 * cosine**2) / 3


def summed(terms: Iterable[tuple[float, Alike]]) -> Alike:
    """Of a sum of independent terms, each with its size.

    >>> summed([(1.0, PLACES), (1.0, APART)])
    Alike(near=0.0, far=0.0, place=0.5)
    """
    squares = [(size**2, alike) for size, alike in terms]
    total = sum(square for square, _ in squares)
    return Alike(
        sum(square * alike.near for square, alike in squares) / total,
        sum(square * alike.far for square, alike in squares) / total,
        sum(square * alike.place for square, alike in squares) / total,
    )


@dataclass(frozen=True)
class Means:
    """Means over the keys of a sequence: over all, or over those up to the row's own.

    Row i of the result is the sum of `weights[i, j]` times row j of the values, and the weights are
    a softmax of independent logits. With normal logits of size s the mean square of n weights is
    `exp(s**2) / n**2` (they are log-normal), and those of two rows are independent.
    """

    keys: int
    causal: bool
    logits: float = 0.0

    def forward(self, alike: Alike) -> tuple[float, Alike]:
        """The size of the means over that of a value, and how alike they are.

        What all values share is left as it is, and the rest averages away; the more keys two
        means have in common, the more alike they are.

        >>> Means(4, causal=False).forward(APART)
        (0.5, Alike(near=1.0, far=0.0, place=0.0))
        >>> Means(4, causal=False).forward(SAME)
        (1.0, Alike(near=1.0, far=1.0, place=1.0))
        """
        rows, even = self._squares(self._uneven), sum(self._squares(1.0))
        crossed = sum(column**2 for column in self._columns) - even
        return _summed_up(alike, [1.0] * self.keys, sum(rows), even, crossed)

    def backward(self, alike: Alike) -> tuple[float, Alike]:
        """The same of what comes back to the values: it is summed over the rows that saw them.

        >>> Means(4, causal=False).backward(APART)
        (0.5, Alike(near=1.0, far=0.0, place=0.0))
        """
        squares = sum(self._squares(self._uneven))
        return _summed_up(alike, self._columns, squares, squares, self.keys - squares)

    def returned(self, slopes: float) -> float:
        """What means make of values that moved along their gradient, over the size of that.

        Such a gradient is what came back from the means, the first keys' the largest of a causal
        sequence, and what the most means see.
        """
        if not self.causal:
            return 1.0
        back, near = self._columns, max(0.0, slopes)
        shared = [total / n for total, n in zip(accumulate(back), self._seen, strict=True)]
        rows = sum((2 * n - 1) / n**2 for n in self._seen)
        moved = near * sum(s**2 for s in shared) + (1 - near) * rows
        square = near * sum(b**2 for b in back) + (1 - near) * sum(1 / n for n in self._seen)
        return math.sqrt(moved / square)

    @property
    def unlike(self) -> float:
        """The size of what logits that change independently do to the means, over that of a value.

        They move weight from key to key, and the sum of the weights stays: in n keys there is
        1 - 1/n of an independent value.
        """
        return math.sqrt(sum(s * (1 - s) for s in self._squares(self._uneven)) / self.keys)

    @property
    def reach(self) -> float:
        """Of how many keys a query's gradient is made, as the means see it.

        A logit changes along its own gradient as the query does, which is a sum over its keys: one
        part in n, by the fourth powers of n weights against the square of their squares.
        """
        moved = [(s * (1 - s)) ** 2 for s in self._squares(1.0)]
        own = sum(m / n for m, n in zip(moved, self._seen, strict=True))
        return sum(moved) / own if own > 0 else 1.0

    def _squares(self, uneven: float) -> Sequence[float]:
        """By row: the sum of the squares of its weights; 1 where one has all of it."""
        return [min(1.0, uneven / n) for n in self._seen]

    @property
    def _columns(self) -> Sequence[float]:
        """By column: the sum of its weights."""
        weights = [1 / n for n in self._seen]
        return list(accumulate(reversed(weights)))[::-1] if self.causal else [1.0] * self.keys

    @property
    def _seen(self) -> Sequence[int]:
        return range(1, self.keys + 1) if self.causal else [self.keys] * self.keys

    @property
    def _uneven(self) -> float:
        return math.exp(min(self.logits, 10.0) ** 2)


def _summed_up(
    alike: Alike, sums: Sequence[float], squares: float, even: float, crossed: float
) -> tuple[float, Alike]:
    """Of sums of rows of a sequence.

    Args:
        alike: How alike the rows are.
        sums: By sum: the weights in it.
        squares: Of all weights.
        even: Of their means.
        crossed: The products of the weights of one row in two sums, of all of them.
    """
    count = len(sums)
    pairs = max(1, count * (count - 1))
    each = sum(s**2 for s in sums)
    shared, apart = each / count, (sum(sums) ** 2 - each) / pairs
    near, far, place = (max(0.0, c) for c in (alike.near, alike.far, alike.place))
    size = near * shared + (1 - near) * squares / count
    return math.sqrt(size), Alike(
        (near * apart + (1 - near) * crossed / pairs) / size,
        (far * apart + (place - far) * crossed / pairs) / size,
        (far * shared + (place - far) * even / count) / size,
    )


@dataclass(frozen=True)
class Batch:
    """Rows in sequences: all of what the loss is a mean of.

    Of gradients, and of changes, only what rows of one sequence have in common is counted:
    `slopes` is the cosine of two of them.
    """

    rows: float
    length: float

    def learned(self, inputs: Alike, slopes: float) -> float:
        """How much larger a weight's gradient is where rows are alike, in inputs and gradients.

        A sum over rows of gradient times input: of two rows of a sequence the products have the
        product of both cosines.
        """
        return math.sqrt(self._coherent(inputs.near * slopes))

    def aligned(self, inputs: Alike, slopes: float) -> float:
        """What a row sees of a weight's change over what it sees of a random one, by root of terms.

        A change by the sum over rows s of `g[s] x[s]` is seen by row r as the sum of `g[s]` times
        the product of `x[s]` and `x[r]`: 1 of the row itself, `inputs.near` of those beside it.
        """
        near, far, place = (max(0.0, c) for c in (inputs.near, inputs.far, inputs.place))
        others = max(0.0, self.rows / self.length - 1) * self._seen(place, far, slopes)
        seen = self._seen(1.0, near, slopes) + others
        return math.sqrt(seen / (self.rows * self._coherent(near * slopes)))

    def itself(self, inputs: Alike, slopes: float) -> float:
        """Of that: what came from the row itself."""
        return 1 / math.sqrt(self.rows * self._coherent(inputs.near * slopes))

    def changed(self, inputs: Alike, slopes: float) -> float:
        """The cosine of what two rows of a sequence see of a weight's change."""
        near, slope = max(0.0, inputs.near), max(0.0, slopes)
        common = 2 * near + max(0.0, self._beside - 1) * near**2
        crossed = (1 + self._beside * near) ** 2 - common
        return (common + slope * crossed) / self._seen(1.0, near, slopes)

    def _seen(self, one: float, others: float, slopes: float) -> float:
        """The square of a sum over rows of a sequence: `one` of one, `others` of the rest."""
        squares = one**2 + self._beside * others**2
        return squares + max(0.0, slopes) * ((one + self._beside * others) ** 2 - squares)

    def _coherent(self, cosine: float) -> float:
        return 1 + self._beside * max(0.0, cosine)

    @property
    def _beside(self) -> float:
        return max(0.0, self.length - 1)
