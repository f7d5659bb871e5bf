"""What a check found: the rows, the verdict, and all of it as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from mufx.check.request import Request, Variant
from mufx.check.slopes import UNJUDGED, Slope, Verdict
from mufx.check.training import Run

_AGREES: Final = 0.1
_STARTS_SMALL: Final = -0.3
_INVERSE: Final = re.compile(":(rsqrt|reciprocal)#")


@dataclass(frozen=True, slots=True)
class Part:
    """The most that one parameter alone can change at a node in a small step, and should."""

    parameter: str
    slope: Slope
    expected: float

    @property
    def is_small(self) -> bool:
        """Whether the parameter can learn less in a wider model."""
        return self.slope.falls_short_of(self.expected)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node of one variant: slopes over width, and what was predicted.

    Attributes:
        variant: What was trained.
        node: `module:operation#n`.
        start: The slope of its size before the first step.
        size: The slope of its size after the last step.
        change: The slope of the difference.
        design: What the change should have: 0, but where a multiplier is folded into a gain.
        first: The slope of the change in one small step.
        predicted: What that should have, calculated from the graph, the inits and the rates.
        start_predicted: What `start` should have, where that is known exactly.
        parts: What each parameter that meets an activation here can change.
    """

    variant: Variant
    node: str
    start: Slope
    size: Slope
    change: Slope
    design: float
    first: Slope
    predicted: float | None
    start_predicted: float | None = None
    parts: tuple[Part, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What the slope of the change says by itself."""
        return self.change.verdict

    @property
    def departs(self) -> bool:
        """Whether a μP node does what neither μP nor a folded multiplier would do.

        `mufx.apply` moves factors into parameters, and what those compute then falls on purpose;
        nothing is predicted for it, so only growth counts there. A reciprocal grows where a size
        falls; what it does is seen in its product.
        """
        if self.variant is Variant.SP or _INVERSE.search(self.node):
            return False
        judged = self.change.relative_to(self.design)
        if self.starts_larger or self.learned.relative_to(self.design) is Verdict.GROWS:
            return True
        if judged is Verdict.DIVERGED or (self.change.value is None and judged is Verdict.VANISHES):
            return True
        if self.variant is not Variant.MUP:
            return False
        if self.starts_smaller or self.learns_less is not None:
            return True
        return self.change.relative_to(self.design + self._transient) is Verdict.VANISHES

    @property
    def judged(self) -> bool:
        """Whether a μP node moved enough, and alike enough from seed to seed, to be judged."""
        if self.variant is Variant.SP or _INVERSE.search(self.node):
            return False
        return self.change.relative_to(self.design) not in UNJUDGED

    @property
    def learned(self) -> Slope:
        """What growth is judged by: the change, or the size that it has led to.

        No change is larger than the sizes before and after it. What starts with width**-0.5, as a
        readout does, changes the more the less it began with, and ends with a size of its own.
        """
        start = self.start.value
        small = start is not None and start - self.design + 2 * self.start.error < _STARTS_SMALL
        return self.size if small else self.change

    @property
    def _transient(self) -> float:
        """What a change may keep for some steps of the slope with which it begins: width**-0.5.

        Readouts and attention logits start as products of independent vectors, averaged over the
        width, and so do the changes of a mean over it. They lose that slope only as they learn.
        """
        begins = [self.start.value or 0.0, self.predicted or 0.0]
        return min(0.0, max(min(begins) - self.design, -0.5))

    @property
    def starts_larger(self) -> bool:
        """Whether the activation is larger in a wider model before any training.

        Smaller it may be: readouts and attention logits start with a size of width**-0.5. What
        never changes is no activation: the frequencies of a position, a range over the width.
        """
        return self._changes and self.start.relative_to(self.design) is Verdict.GROWS

    @property
    def starts_smaller(self) -> bool:
        """Whether it is smaller than independent products make it, where that is known."""
        expected = self.start_predicted
        return self._changes and expected is not None and self.start.falls_short_of(expected)

    @property
    def learns_less(self) -> Part | None:
        """The part of a parameter that learns less in a wider model.

        The change of the whole node does not show it: what comes through from before is as large.
        """
        return next((part for part in self.parts if part.is_small), None)

    @property
    def _changes(self) -> bool:
        return self.verdict is not Verdict.CONSTANT

    @property
    def disagrees(self) -> bool:
        """Whether a first step and its prediction are further apart than 0.1 and two errors."""
        if self.predicted is None or self.first.value is None:
            return False
        return abs(self.first.value - self.predicted) > _AGREES + 2 * self.first.error


@dataclass(frozen=True)
class Checked:
    """A finished check."""

    model: str
    knob: str
    widths: tuple[int, ...]
    request: Request
    rows: tuple[NodeRow, ...]
    runs: Mapping[Variant, Mapping[int, tuple[Run, ...]]]
    skipped: Mapping[Variant, str]
    synthetic: bool

    def of(self, variant: Variant) -> tuple[NodeRow, ...]:
        """The nodes of one variant."""
        return tuple(row for row in self.rows if row.variant is variant)

    @property
    def departures(self) -> tuple[NodeRow, ...]:
        """The μP nodes that depart; a conversion that is right has none."""
        return tuple(row for row in self.rows if row.departs)

    @property
    def diverged(self) -> tuple[tuple[Variant, int, int, int], ...]:
        """Every run with a loss that was not finite: variant, width, seed, step."""
        return tuple(
            (variant, width, seed, made.diverged)
            for variant, by_width in self.runs.items()
            for width, runs in by_width.items()
            for seed, made in enumerate(runs)
            if made.diverged is not None
        )

    @property
    def passes(self) -> bool:
        """Whether μP nodes were judged, none of them departs, and no μP run diverged."""
        finished = all(v is Variant.SP for v, *_ in self.diverged)
        return self.judged > 0 and finished and not self.departures

    @property
    def judged(self) -> int:
        """The number of μP nodes of which something can be said."""
        return sum(row.judged for row in self.rows)

    @property
    def has_first_step(self) -> bool:
        """Whether every finished run measured a small first step."""
        finished = (r for made in self.runs.values() for runs in made.values() for r in runs)
        return all(run.first or run.diverged is not None for run in finished)

    @property
    def missing(self) -> Mapping[Variant, tuple[str, ...]]:
        """The nodes that some finished runs have and others have not: of these nothing is known.

        A branch that depends on the data, or an expert that no token was sent to.
        """
        found: dict[Variant, tuple[str, ...]] = {}
        for variant, by_width in self.runs.items():
            runs = [run for made in by_width.values() for run in made if run.diverged is None]
            seen = dict.fromkeys(n for r in runs for n in (*r.starts, *r.sizes))
            lost = tuple(n for n in seen if not all(n in r.changes for r in runs))
            if lost:
                found[variant] = lost
        return found

    def largest(self, variant: Variant) -> float:
        """The largest slope of a change, less what it has by design.

        Of a node that is too noisy to say it says nothing.
        """
        return max(self._left(variant), default=0.0)

    def median(self, variant: Variant) -> float:
        """The median size of the same."""
        left = self._left(variant)
        return float(np.median(np.abs(left))) if left else 0.0

    def _left(self, variant: Variant) -> list[float]:
        return [
            row.learned.value - row.design
            for row in self.of(variant)
            if row.learned.value is not None and row.verdict is not Verdict.NOISY
        ]

    def document(self) -> dict[str, object]:
        """Everything as JSON takes it."""
        return {
            "model": self.model,
            "width": self.knob,
            "widths": list(self.widths),
            "settings": {**asdict(self.request), "widths": list(self.widths)},
            "synthetic": self.synthetic,
            "passes": self.passes,
            "judged": self.judged,
            "skipped": {v.value: why for v, why in self.skipped.items()},
            "missing": {v.value: list(nodes) for v, nodes in self.missing.items()},
            "diverged": [
                {"variant": v.value, "width": w, "seed": s, "step": step}
                for v, w, s, step in self.diverged
            ],
            "nodes": [_record(row) for row in self.rows],
        }


def _record(row: NodeRow) -> dict[str, object]:
    diverged = row.verdict is Verdict.DIVERGED
    return {
        "variant": row.variant.value,
        "node": row.node,
        "slope": row.change.value,
        "error": None if diverged else row.change.error,
        "start_slope": row.start.value,
        "size_slope": row.size.value,
        "design": row.design,
        "first_slope": row.first.value,
        "first_error": row.first.error if row.first.value is not None else None,
        "predicted": row.predicted,
        "start_predicted": row.start_predicted,
        "parts": {
            part.parameter: {
                "slope": part.slope.value,
                "error": part.slope.error,
                "expected": part.expected,
            }
            for part in row.parts
        },
        "verdict": row.verdict.value,
        "departs": row.departs,
        "disagrees": row.disagrees,
    }
