"""What the tests of the sweep share with the worker processes that they start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mufx.sweep.settings import Parametrization, Plan, Point, Settings
from mufx.sweep.storage import open_storage
from mufx.sweep.study import Study
from mufx.sweep.training import Outcome
from mufx.sweep.values import Hyperparameter, Value, parse_values


def settings(**changes: Any) -> Settings:
    plain = Settings(
        model="Net",
        source="0" * 64,
        scales="1" * 64,
        data="2" * 64,
        base={"width": 64},
        way={"width": 1.0},
        optimizer="adamw",
        form="table3",
        steps=100,
        batch=16,
    )
    return replace(plain, **changes)


def plan(**changes: Any) -> Plan:
    over = (Hyperparameter("lr", parse_values("2^-9:2^-3")),)
    return replace(Plan(settings(), over, (64, 256), (0, 1)), **changes)


def few(**changes: Any) -> Plan:
    """A plan of eight points: every one costs several transactions."""
    over = (Hyperparameter("lr", parse_values("2^-6:2^-5")),)
    return plan(over=over, seeds=(0,), **changes)


def opened(path: Path, chosen: Plan, sampler: str = "grid", beat: int = 1) -> Study:
    storage = open_storage(str(path), beat)
    study = storage.open("sweep", chosen.settings.document(), sampler)
    return Study(chosen, study, storage)


def bowl(point: Point, values: Mapping[str, Value]) -> float:
    """SP's optimum goes from 2^-5 to 2^-7, that of μP stays; the seed moves it a little."""
    best = (
        -5.0
        - math.log2(point.width / 64) * (point.parametrization is Parametrization.SP)
        + 0.2 * point.seed
    )
    return 2.0 - math.log2(point.width) / 20 + 0.1 * (math.log2(float(values["lr"])) - best) ** 2


def run(point: Point, values: Mapping[str, Value]) -> Outcome:
    return Outcome(bowl(point, values))
