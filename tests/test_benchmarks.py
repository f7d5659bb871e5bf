"""What the benchmarks make of their measurements."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from mufx.api import import_emitted

STEP = import_emitted(Path(__file__).parents[1] / "benchmarks" / "step.py")


def ratio_of(ratios: list[float]) -> Any:
    return STEP.ratio([STEP.Turn(r, 1.0) for r in ratios])


def test_the_interval_holds_the_true_median_in_95_of_100_measurements() -> None:
    rng = random.Random(0)
    measured = [ratio_of([rng.lognormvariate(0.0, 0.1) for _ in range(60)]) for _ in range(2000)]

    held = sum(found.low <= 1.0 <= found.high for found in measured) / len(measured)

    assert 0.94 < held < 0.98


@pytest.mark.parametrize(
    ("ratios", "holds"),
    [
        ([1.00] * 60, True),
        ([1.05] * 60, False),
        ([0.99] * 28 + [1.05] * 32, True),  # may well be at most 1.02
        ([1.019, 1.03, 1.04, 1.05] * 15, False),
    ],
)
def test_a_ratio_misses_its_bound_if_its_whole_interval_does(
    ratios: list[float], holds: bool
) -> None:
    assert ratio_of(ratios).holds(1.02) is holds
