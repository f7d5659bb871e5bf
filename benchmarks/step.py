"""What a training step of an emitted model costs beside the original's.

python benchmarks/step.py

A step is forward, backward and AdamW, at target width, in eager mode and under `torch.compile`.
The original's optimizer has one group, the emitted model's has those of the manifest.

The two take turns; a number is the median over all turns of the ratio of two neighbours, and its
noise that of the same measurement of the original beside a second copy of itself. The exit status
is 1 if a median is above the bound by more than the noise.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BOUND = 1.02
TURNS = 60  # and as many more as fit into
SECONDS = 3.0
WARMUP = 5
BATCH = 8
NAMES = {"mlp": "MLP", "gpt": "GPT", "llama": "Llama", "resnet": "ResNet", "encoder": "Encoder"}
CONFIGS = {"gpt": "GPTConfig", "llama": "LlamaConfig"}

Step = Callable[[], None]


@dataclass(frozen=True)
class Ratio:
    """The median ratio of two steps, and how far from 1 that of two equal steps was."""

    median: float
    noise: float
    milliseconds: float

    @property
    def held(self) -> bool:
        return self.median <= BOUND + self.noise


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def builder(name: str) -> Callable[..., nn.Module]:
    module = example(name)

    def build(**knobs: int) -> nn.Module:
        root = getattr(module, NAMES[name])
        config = getattr(module, CONFIGS[name])(**knobs) if name in CONFIGS else None
        made: nn.Module = root(**knobs) if config is None else root(config)
        return made

    return build


def step(
    model: nn.Module, groups: Iterable[dict[str, Any]], inputs: tuple[Tensor, ...], compiled: bool
) -> Step:
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    call: Callable[..., Any] = torch.compile(model, fullgraph=True) if compiled else model

    def run() -> None:
        optimizer.zero_grad()
        output = call(*inputs)
        logits: Tensor = output[0] if isinstance(output, tuple) else output
        torch.autograd.backward(F.cross_entropy(logits.flatten(0, -2), _classes(logits)))
        optimizer.step()

    return run


def _classes(logits: Tensor) -> Tensor:
    return torch.arange(logits[..., 0].numel()) % logits.shape[-1]


def ratios(one: Step, other: Step) -> tuple[float, float]:
    """The median of one's time / other's over neighbouring turns, and other's median time."""
    for _ in range(WARMUP):
        one()
        other()
    found: list[float] = []
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    for turn in itertools.count():
        if turn >= TURNS and time.perf_counter() > end:
            break
        # Whoever goes second finds the other's data in the caches: take turns in that too.
        if turn % 2:
            first, second = timed(one), timed(other)
        else:
            second, first = timed(other), timed(one)
        found.append(first / second)
        seconds.append(second)
    return statistics.median(found), statistics.median(seconds)


def timed(run: Step) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compare(name: str, compiled: bool) -> Ratio:
    module, build = example(name), builder(name)
    inputs = module.example_inputs(BATCH)
    conversion = mufx.convert(build, module.example_inputs, module.base, module.target)
    emitted = conversion.module()

    def original() -> Step:
        model = build(**module.target)
        return step(model, [{"params": list(model.parameters())}], inputs, compiled)

    groups = mufx.param_groups(emitted, conversion.manifest, lr=1e-3)
    reference = original()
    again, _ = ratios(original(), reference)
    median, seconds = ratios(step(emitted, groups, inputs, compiled), reference)
    return Ratio(median, abs(again - 1), 1000 * seconds)


def main() -> int:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print(f"a training step beside the original's, at most {BOUND}x plus noise\n")
    print(f"{'':10} {'mode':9} {'ms a step':>10} {'median':>8} {'noise':>7}")
    held = True
    for compiled in (False, True):
        for name in NAMES:
            torch.compiler.reset()
            found = compare(name, compiled)
            mode, verdict = "compiled" if compiled else "eager", "ok" if found.held else "MISSED"
            numbers = f"{found.milliseconds:10.2f} {found.median:7.3f}x {found.noise:7.3f}"
            print(f"{name:10} {mode:9} {numbers} {verdict}", flush=True)
            held = held and found.held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
