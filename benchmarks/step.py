"""What a training step of an emitted model costs beside the original's.

python benchmarks/step.py

A step is forward, backward and AdamW, at target width, in eager mode and under `torch.compile`.
The original's optimizer has one group, the emitted model's has those of the manifest.

The two take turns, in two rounds of fresh copies. A number is the median over all turns of the
ratio of two neighbours, with its 95 % confidence interval. The exit status is 1 if the whole
interval lies above the bound.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
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
ROUNDS = 2
TURNS = 60  # in each round, and as many more as fit into
SECONDS = 3.0
WARMUP = 5
BATCH = 8
BATCHES = {"mlp": 64}  # as examples/transfer.py trains them
NAMES = {"mlp": "MLP", "gpt": "GPT", "llama": "Llama", "resnet": "ResNet", "encoder": "Encoder"}
CONFIGS = {"gpt": "GPTConfig", "llama": "LlamaConfig"}

Step = Callable[[], None]


@dataclass(frozen=True)
class Turn:
    """How long a step and its reference took, one after the other, in seconds."""

    one: float
    other: float


@dataclass(frozen=True)
class Ratio:
    """The median ratio of two steps, its 95 % confidence interval, and the reference's time."""

    median: float
    low: float
    high: float
    milliseconds: float

    def holds(self, bound: float) -> bool:
        """Whether the ratio can be at most the bound."""
        return self.low <= bound

    def __str__(self) -> str:
        interval = f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.milliseconds:10.2f} {self.median:7.3f}x {interval:>16}"


HEADER = f"{'ms a step':>10} {'median':>8} {'95 % interval':>16}"


def ratio(turns: Sequence[Turn]) -> Ratio:
    """Whatever the distribution: a median's interval is between two of the ordered values."""
    ordered = sorted(turn.one / turn.other for turn in turns)
    half, middle = 0.98 * math.sqrt(len(ordered)), len(ordered) / 2
    low, high = math.floor(middle - half), math.ceil(middle + half)
    return Ratio(
        statistics.median(ordered),
        ordered[max(low - 1, 0)],
        ordered[min(high, len(ordered) - 1)],
        1000 * statistics.median(turn.other for turn in turns),
    )


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


def turns(one: Step, other: Step) -> list[Turn]:
    """Both steps, one after the other, again and again."""
    for _ in range(WARMUP):
        one()
        other()
    found: list[Turn] = []
    end = time.perf_counter() + SECONDS
    while len(found) < TURNS or time.perf_counter() < end:
        # Whoever goes second finds the other's data in the caches: take turns in that too.
        if len(found) % 2:
            first, second = timed(one), timed(other)
        else:
            second, first = timed(other), timed(one)
        found.append(Turn(first, second))
    return found


def timed(run: Step) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compare(name: str, compiled: bool) -> Ratio:
    module, build = example(name), builder(name)
    inputs = module.example_inputs(BATCHES.get(name, BATCH))
    conversion = mufx.convert(build, module.example_inputs, module.base, module.target)

    def emitted() -> Step:
        model = conversion.module()
        groups = mufx.param_groups(model, conversion.manifest, lr=1e-3)
        return step(model, groups, inputs, compiled)

    def original() -> Step:
        model = build(**module.target)
        return step(model, [{"params": list(model.parameters())}], inputs, compiled)

    return ratio([turn for _ in range(ROUNDS) for turn in turns(emitted(), original())])


def main() -> int:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print(f"a training step beside the original's, at most {BOUND}x\n")
    print(f"{'':10} {'mode':9} {HEADER}")
    held = True
    for compiled in (False, True):
        for name in NAMES:
            torch.compiler.reset()
            found = compare(name, compiled)
            ok = found.holds(BOUND)
            mode, verdict = "compiled" if compiled else "eager", "ok" if ok else "MISSED"
            print(f"{name:10} {mode:9} {found} {verdict}", flush=True)
            held = held and ok
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
