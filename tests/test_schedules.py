"""torch's schedulers on the groups of a real conversion, against what they do at base width."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import mufx
from mufx.api import convert_source, import_emitted

ROOT = Path(__file__).parents[1]
LR, FLOOR, STEPS = 3e-3, 3e-4, 20

Scheduler = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def scaled(rate: float, optimizer: torch.optim.Optimizer) -> list[float]:
    """As the quickstart writes it, without mufx."""
    return [rate * g["lr_scale"] for g in optimizer.param_groups]


def of_quickstart(name: str) -> Any:
    """What the quickstart tells to write in schedules.py."""
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    found = re.search(r'^```python title="out/schedules.py"\n(.*?)^```$', text, re.M | re.S)
    assert found is not None
    written: dict[str, Any] = {}
    exec(found[1], written)
    return written[name]


def warmup(step: int) -> float:
    return min(1.0, (step + 1) / 4)


# At base width as anybody writes it, at target width as the quickstart says.
SCHEDULES: dict[str, tuple[Scheduler, Scheduler]] = {
    "LambdaLR": (
        lambda o: lr_scheduler.LambdaLR(o, warmup),
        lambda o: lr_scheduler.LambdaLR(o, warmup),
    ),
    "CosineAnnealingLR to 0": (
        lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
        lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    ),
    "CosineAnnealingLR to eta_min": (
        lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=FLOOR),
        lambda o: lr_scheduler.LambdaLR(o, of_quickstart("cosine")(STEPS, floor=FLOOR / LR)),
    ),
    "OneCycleLR": (
        lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=STEPS + 1),
        lambda o: lr_scheduler.OneCycleLR(o, scaled(LR, o), total_steps=STEPS + 1),
    ),
    "CyclicLR": (
        lambda o: lr_scheduler.CyclicLR(o, FLOOR, LR, step_size_up=3, cycle_momentum=False),
        lambda o: lr_scheduler.CyclicLR(
            o, scaled(FLOOR, o), scaled(LR, o), step_size_up=3, cycle_momentum=False
        ),
    ),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("llama")
    convert_source(mufx.load(str(ROOT / "examples" / "llama.py"))).write(out)
    return out


def emitted(folder: Path) -> tuple[nn.Module, ModuleType]:
    """The model that was written, without memory, and the module that makes its groups."""
    model: nn.Module = import_emitted(folder / "model_mup.py").Llama(device="meta")
    return model, import_emitted(folder / "optim_mup.py")


def rates(optimizer: torch.optim.Optimizer, make: Scheduler) -> list[list[float]]:
    """Each group's learning rate, step by step."""
    scheduler = make(optimizer)
    found: list[list[float]] = []
    for _ in range(STEPS):
        found.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_group_follows_the_base_model_s_schedule_at_its_own_scale(
    name: str, written: Path
) -> None:
    at_base, at_target = SCHEDULES[name]
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=LR)
    model, optim = emitted(written)
    optimizer = torch.optim.AdamW(optim.param_groups(model, lr=LR))
    scales = [g["lr_scale"] for g in optimizer.param_groups]
    assert len(set(scales)) > 2

    expected = [[rate * scale for scale in scales] for (rate,) in rates(one, at_base)]

    found = rates(optimizer, at_target)
    assert len({row[0] for row in found}) > 3
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-9, abs=1e-15)


def test_one_eta_min_for_all_groups_would_leave_their_scales(written: Path) -> None:
    """Why the quickstart has a function of its own."""
    model, optim = emitted(written)
    optimizer = torch.optim.AdamW(optim.param_groups(model, lr=LR))

    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=FLOOR)
    for _ in range(STEPS):
        optimizer.step()
        scheduler.step()

    ends = [g["lr"] / g["lr_scale"] for g in optimizer.param_groups]
    assert math.isclose(min(ends), FLOOR)
    assert max(ends) > 3 * FLOOR
