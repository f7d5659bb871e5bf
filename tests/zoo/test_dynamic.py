"""The dynamic coordinate check of every model of the zoo, in both parametrizations."""

from __future__ import annotations

import pytest

from mufx.check.request import Variant
from tests.zoo.falls import unexplained
from tests.zoo.learning import kept, measured
from tests.zoo.specs import SPECS, Spec

pytestmark = [
    pytest.mark.zoo,
    # What the libraries warn of is theirs.
    pytest.mark.filterwarnings("ignore::Warning:transformers.*", "ignore::FutureWarning"),
]

GROWS = 0.15  # a slope over its prediction that no change may exceed
MEDIAN = 0.15  # of the absolute slopes
BLOWS_UP = 0.5  # a slope that standard parametrization reaches somewhere


def end(node: str) -> str:
    """The last module of a node, and its operation."""
    path, _, operation = node.partition(":")
    return f"{path.rpartition('.')[2]}:{operation}"


CONVERTING = [spec for spec in SPECS if spec.refused is None]


@pytest.mark.parametrize("spec", CONVERTING, ids=lambda spec: spec.name)
def test_mup_keeps_every_change_and_standard_parametrization_does_not(spec: Spec) -> None:
    found = measured(spec)
    kept(spec, found)

    assert {end(row.node) for row in found.departures} == spec.departs
    assert found.passes or spec.departs
    assert found.largest(Variant.MUP) <= GROWS
    assert found.median(Variant.MUP) <= MEDIAN
    assert unexplained(found) == []
    assert found.largest(Variant.SP) >= BLOWS_UP
