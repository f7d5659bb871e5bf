"""The learning rate against the loss at several widths, in standard parametrization and in μP.

python docs/figures/transfer.py          trains, then draws: minutes on one core
python docs/figures/transfer.py --draw   draws transfer.json again
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable

import byte_model
import plots
import torch
import torch.nn.functional as F
from torch import nn

import mufx

WIDTHS = (32, 128, 512)
RATES = tuple(2.0**-k for k in range(14, 4, -1))
SEEDS = (0, 1)
STEPS, BATCH, LAST = 200, 128, 20

Losses = dict[str, dict[str, dict[str, list[float]]]]


def model_and_groups(kind: str, width: int, rate: float, seed: int) -> tuple[nn.Module, object]:
    """The model and what its optimizer gets; μP is tuned at the smallest width."""
    if kind == "sp":
        torch.manual_seed(seed)
        model = byte_model.ByteModel(width)
        return model, [{"params": list(model.parameters()), "lr": rate}]
    conversion = conversions[width]
    made = conversion.module(seed=seed)
    return made, mufx.param_groups(made, conversion.manifest, lr=rate)


def conversion(width: int) -> mufx.Conversion:
    return mufx.convert(
        byte_model.ByteModel,
        byte_model.example_inputs,
        base={"width": WIDTHS[0]},
        target={"width": width},
        vary=["width"],
    )


def train(kind: str, width: int, rate: float, seed: int) -> float:
    """The mean training loss of the last steps, in nats a byte."""
    model, groups = model_and_groups(kind, width, rate, seed)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for _ in range(STEPS):
        windows, following = byte_model.sample(text, BATCH, generator)
        loss = F.cross_entropy(model(windows), following)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return statistics.fmean(losses[-LAST:])


def measured() -> Losses:
    """Every run: by parametrization, width and rate, one loss for each seed."""
    return {
        kind: {
            str(width): {str(r): [train(kind, width, r, s) for s in SEEDS] for r in RATES}
            for width in WIDTHS
        }
        for kind in plots.PARAMETRIZATIONS
    }


def draw(losses: Losses) -> None:
    figure, axes = plots.panels("training loss (nats a byte)")
    for kind, axis in axes.items():
        for i, (width, by_rate) in enumerate(losses[kind].items()):
            rates = [float(rate) for rate in by_rate]
            means = [statistics.fmean(found) for found in by_rate.values()]
            colour, marker = plots.colour(i, len(WIDTHS)), plots.MARKERS[i]
            axis.plot(
                rates, means, label=f"width {width}", color=colour, marker=marker, markersize=4
            )
            best = min(range(len(means)), key=means.__getitem__)
            axis.plot(rates[best], means[best], "o", color=colour, markersize=12, fillstyle="none")
        axis.set_xscale("log", base=2)
        axis.set_xlabel("learning rate")
        axis.legend()
    best_loss = min(values(losses))
    axes["sp"].set_ylim(best_loss - 0.1, best_loss + 1.2)
    plots.save(figure, "transfer")


def values(losses: Losses) -> Iterable[float]:
    for widths in losses.values():
        for rates in widths.values():
            yield from (statistics.fmean(found) for found in rates.values())


if __name__ == "__main__":
    store = plots.HERE / "transfer.json"
    if "--draw" not in sys.argv:
        torch.set_num_threads(1)
        text = byte_model.standard_library()
        conversions = {width: conversion(width) for width in WIDTHS}
        store.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
    draw(json.loads(store.read_text(encoding="utf-8")))
