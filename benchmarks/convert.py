"""How long a conversion takes and how much memory it needs, beside `torch.export`.

python benchmarks/convert.py

Everything is measured past importing torch and in a process of its own, so that the peak of the
resident memory is this measurement's. Importing torch includes `torch._dynamo`, which torch loads
with its first fake tensor, in a conversion and in an export alike; what it takes is printed. The
exit status is 1 if a bound is missed.

Models: a Llama of 70 billion parameters (80 layers) and its first 8 layers, a GPT of 1.3 billion
(24 layers). A conversion is all of it: recording both sizes, the passes, writing the files.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MEGABYTE = 1024 if sys.platform == "linux" else 1024 * 1024  # what ru_maxrss counts in
REPETITIONS = 3

LLAMA_BASE = {"dim": 1024, "n_heads": 8, "n_kv_heads": 1, "hidden_dim": 3584}
LLAMA_TARGET = {"dim": 8192, "n_heads": 64, "n_kv_heads": 8, "hidden_dim": 28672}
GPT_BASE = {"n_embd": 256, "n_head": 4}
GPT_TARGET = {"n_embd": 2048, "n_head": 16}


@dataclass(frozen=True)
class Measured:
    seconds: float
    megabytes: float
    importing: float  # seconds, before the others


@dataclass(frozen=True)
class Bound:
    """A measured number and what it may be at most."""

    what: str
    measured: float
    most: float
    unit: str

    @property
    def held(self) -> bool:
        return self.measured <= self.most


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def llama(layers: int) -> Callable[..., nn.Module]:
    module = example("llama")

    def build(**knobs: int) -> nn.Module:
        config = module.LlamaConfig(vocab_size=32000, n_layers=layers, **knobs)
        made: nn.Module = module.Llama(config)
        return made

    return build


def gpt(layers: int) -> Callable[..., nn.Module]:
    module = example("gpt")

    def build(**knobs: int) -> nn.Module:
        config = module.GPTConfig(vocab_size=50304, block_size=1024, n_layer=layers, **knobs)
        made: nn.Module = module.GPT(config)
        return made

    return build


def convert_llama(layers: int) -> None:
    import mufx

    tokens = (torch.zeros(2, 16, dtype=torch.long),)
    mufx.convert(llama(layers), tokens, LLAMA_BASE, LLAMA_TARGET).files()


def convert_gpt() -> None:
    import mufx

    tokens = (torch.zeros(2, 16, dtype=torch.long),)
    mufx.convert(gpt(24), tokens, GPT_BASE, GPT_TARGET).files()


def export_llama() -> None:
    """One `torch.export` of the large model, batch and sequence free, as a conversion has them."""
    with torch.device("meta"):
        model = llama(80)(**LLAMA_TARGET)
        tokens = torch.zeros(2, 16, dtype=torch.long)
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time", max=128)
    free = ({0: batch, 1: time},)
    torch.export.export(model, (tokens,), dynamic_shapes=free, strict=False)


WORK: dict[str, Callable[[], None]] = {
    "llama-80": lambda: convert_llama(80),
    "llama-8": lambda: convert_llama(8),
    "gpt-24": convert_gpt,
    "export": export_llama,
}


def measure_here(name: str) -> None:
    """Does the work in this process and prints what it took, as one line of JSON."""
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    importlib.import_module("torch._dynamo")
    begin = time.perf_counter()
    WORK[name]()
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    print(json.dumps(asdict(Measured(seconds, peak, begin - start))))


def measure(*names: str) -> dict[str, Measured]:
    """The fastest of some runs of each, in fresh processes, and the largest peak of them.

    The fastest, because whatever else the machine does can only add to it; in turns, so that what
    it does for a while meets all of them.
    """
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    for _ in range(REPETITIONS):
        for name in names:
            command = [sys.executable, __file__, "--only", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs[name].append(Measured(**json.loads(done.stdout.splitlines()[-1])))
    return {
        name: Measured(
            min(r.seconds for r in found),
            max(r.megabytes for r in found),
            min(r.importing for r in found),
        )
        for name, found in runs.items()
    }


def bounds() -> list[Bound]:
    found = measure("llama-80", "export", "llama-8", "gpt-24")
    large, exported, small, middle = found.values()
    print(f"the fastest of {REPETITIONS} runs, in turns:")
    print(f"conversion of the 80 layers {large.seconds:.1f} s, torch.export of them")
    print(f"{exported.seconds:.1f} s with {exported.megabytes:.0f} MB; 8 layers")
    print(f"{small.seconds:.2f} s with {small.megabytes:.0f} MB; torch._dynamo was imported before")
    print(f"that, in {middle.importing:.2f} s\n")
    return [
        Bound("Llama 70B: time / torch.export's", large.seconds / exported.seconds, 1.0, "x"),
        Bound("Llama 70B: peak memory", large.megabytes, 700, "MB"),
        Bound("GPT 1.3B: time past importing torch", middle.seconds, 3.0, "s"),
        Bound("GPT 1.3B: peak memory", middle.megabytes, 450, "MB"),
        Bound("8 -> 80 layers: time ratio / 10", large.seconds / small.seconds / 10, 1.0, "x"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Time and memory of a conversion.")
    parser.add_argument("--only", choices=WORK, help="do this here and print what it took")
    only: str | None = parser.parse_args().only
    if only is not None:
        measure_here(only)
        return 0
    found = bounds()
    print(f"{'':38} {'measured':>10} {'bound':>8}")
    for bound in found:
        verdict = "ok" if bound.held else "MISSED"
        numbers = f"{bound.measured:10.2f} {bound.most:8g}"
        print(f"{bound.what:38} {numbers} {bound.unit:3} {verdict}")
    return 0 if all(bound.held for bound in found) else 1


if __name__ == "__main__":
    sys.exit(main())
