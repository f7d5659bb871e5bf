"""What a first step changes is known beforehand: prediction and measurement of the examples.

`docs/check-agreement.md` holds all numbers, `docs/check.md` why some nodes disagree.
"""

from __future__ import annotations

import pytest

from mufx.check.request import Variant
from tests.agreeing import OPTIMIZERS, first_steps
from tests.checks import CASES

# The part of the nodes in standard parametrization that agrees.
AGREE = {"mlp": 0.8, "gpt": 0.85, "llama": 0.65, "resnet": 0.95, "encoder": 0.95}


@pytest.mark.zoo
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CASES)
def test_a_first_step_is_predicted(name: str, optimizer: str) -> None:
    rows = first_steps(CASES[name], optimizer)

    standard = [row for row in rows if row.variant is Variant.SP]
    assert [row.node for row in rows if row.variant is Variant.MUP and row.disagrees] == []
    assert sum(not row.disagrees for row in standard) >= AGREE[name] * len(standard)
