"""A sweep read back from what it wrote: `sweep.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mufx.sweep.settings import Parametrization, Plan, Point, Settings
from mufx.sweep.study import Result
from mufx.sweep.summary import summarise
from mufx.sweep.sweeping import Sweep
from mufx.sweep.values import Hyperparameter


def read(document: Mapping[str, Any]) -> Sweep:
    """The sweep of a document, with everything that follows from its losses computed anew.

    The groups to train the target with are not in a document.
    """
    curves: list[Mapping[str, Any]] = document["curves"]
    plan = Plan(
        settings=Settings(**document["settings"]),
        over=_over(document["axis"], curves),
        widths=tuple(dict.fromkeys(curve["width"] for curve in curves)),
        seeds=tuple(document["seeds"]),
        parametrizations=tuple(
            dict.fromkeys(Parametrization(curve["parametrization"]) for curve in curves)
        ),
        draws=document["draws"],
    )
    results = [result for curve in curves for result in _results(curve)]
    summary = summarise(plan, results, _confirmed(document["shared"]))
    return Sweep(plan, summary, document["width"], document["target"], ())


def _over(axis: str, curves: list[Mapping[str, Any]]) -> tuple[Hyperparameter, ...]:
    """The hyperparameters and their values; the axis of the figure is the first."""
    choices = [sample["values"] for curve in curves for sample in curve["samples"]]
    names = sorted(choices[0], key=lambda name: (name != axis, name))
    return tuple(
        Hyperparameter(name, tuple(sorted({values[name] for values in choices}))) for name in names
    )


def _results(curve: Mapping[str, Any]) -> Iterator[Result]:
    parametrization, width = Parametrization(curve["parametrization"]), int(curve["width"])
    for sample in curve["samples"]:
        yield from _of_sample(sample, parametrization, width)


def _confirmed(shared: Mapping[str, Any] | None) -> Iterator[Result]:
    """The runs with the values that all widths share, some of seeds that no curve holds."""
    for width, sample in (shared["samples"] if shared is not None else {}).items():
        yield from _of_sample(sample, Parametrization.MUP, int(width))


def _of_sample(
    sample: Mapping[str, Any], parametrization: Parametrization, width: int
) -> Iterator[Result]:
    for seed, loss in zip(sample["seeds"], sample["losses"], strict=True):
        point = Point(parametrization, width, seed)
        yield Result(point, sample["values"], math.inf if loss is None else loss)
