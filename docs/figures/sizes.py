"""How large each layer's output is, and how much one step changes it, at several widths.

python docs/figures/sizes.py          measures, then draws: seconds
python docs/figures/sizes.py --draw   draws sizes.json again
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable

import byte_model
import plots
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx

WIDTHS = (64, 128, 256, 512, 1024, 2048)
LAYERS = {"second": "hidden layer", "readout": "readout"}
SEEDS = (0, 1, 2, 3)
RATE, BATCH, STEPS = 1e-3, 256, 3

Sizes = dict[str, dict[str, dict[str, list[list[float]]]]]


def made(kind: str, width: int, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model and its optimizer."""
    if kind == "sp":
        torch.manual_seed(seed)
        model: nn.Module = byte_model.ByteModel(width)
        return model, torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    converted = mufx.convert(
        byte_model.ByteModel,
        byte_model.example_inputs,
        base={"width": WIDTHS[0]},
        target={"width": width},
        vary=["width"],
    )
    model = converted.module(seed=seed)
    return model, torch.optim.AdamW(mufx.param_groups(model, converted.manifest, lr=RATE))


def outputs(model: nn.Module, windows: Tensor) -> dict[str, Tensor]:
    """What each layer yields."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            seen[name] = output

        return hook

    handles = [model.get_submodule(n).register_forward_hook(keep(n)) for n in LAYERS]
    with torch.no_grad():
        model(windows)
    for handle in handles:
        handle.remove()
    return seen


def measure(kind: str, width: int, seed: int) -> dict[str, list[float]]:
    """For each layer the mean size of an entry: at init, and of its change after the steps."""
    model, optimizer = made(kind, width, seed)
    generator = torch.Generator().manual_seed(seed)
    probe, _ = byte_model.sample(text, BATCH, generator)
    before = outputs(model, probe)
    for _ in range(STEPS):
        windows, following = byte_model.sample(text, BATCH, generator)
        loss = F.cross_entropy(model(windows), following)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    after = outputs(model, probe)
    return {n: [size(before[n]), size(after[n] - before[n])] for n in LAYERS}


def size(value: Tensor) -> float:
    return float(value.abs().mean())


def measured() -> Sizes:
    """By parametrization, width and layer: for each seed the size at init and of the change."""
    found: Sizes = {}
    for kind in plots.PARAMETRIZATIONS:
        for width in WIDTHS:
            runs = [measure(kind, width, seed) for seed in SEEDS]
            by_layer = {name: [run[name] for run in runs] for name in LAYERS}
            found.setdefault(kind, {})[str(width)] = by_layer
    return found


def draw(sizes: Sizes) -> None:
    figure, axes = plots.panels("mean size of an entry")
    for kind, axis in axes.items():
        for i, (name, title) in enumerate(LAYERS.items()):
            for j, what in enumerate(("at init", f"change after {STEPS} steps")):
                points = [
                    statistics.fmean(run[j] for run in by_layer[name])
                    for by_layer in sizes[kind].values()
                ]
                axis.plot(
                    [float(width) for width in sizes[kind]],
                    points,
                    label=f"{title}: {what}",
                    color=("#31688e", "#b5532d")[i],
                    linestyle=(":", "-")[j],
                    marker="os"[i],
                    fillstyle=("none", "full")[j],
                    markersize=5,
                )
        axis.set_yscale("log")
        plots.widths(axis, WIDTHS)
    axes["sp"].legend(fontsize=8)
    plots.save(figure, "sizes")


if __name__ == "__main__":
    store = plots.HERE / "sizes.json"
    if "--draw" not in sys.argv:
        torch.set_num_threads(1)
        text = byte_model.standard_library(1.0)
        store.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
    draw(json.loads(store.read_text(encoding="utf-8")))
