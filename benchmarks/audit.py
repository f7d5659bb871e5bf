"""How long an audit takes and how much memory it needs, beside a conversion.

python benchmarks/audit.py

The model is a Llama of 30 layers and 1.6 billion parameters with an AdamW of two groups, as a
user would write it. Each measurement is past imports and in a process of its own, with one thread,
in seconds of CPU, which what else the machine does cannot add to. The exit status is 1 if a bound
is missed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "llama.py"
MEGABYTE = 1024 if sys.platform == "linux" else 1024 * 1024  # what ru_maxrss counts in
REPETITIONS = 3

BASE = {"dim": 256, "n_heads": 4, "n_kv_heads": 4, "hidden_dim": 704}
TARGET = {"dim": 2048, "n_heads": 32, "n_kv_heads": 32, "hidden_dim": 5632}
LAYERS = 30


@dataclass(frozen=True)
class Measured:
    seconds: float
    megabytes: float
    parameters: int


def build(**knobs: int) -> nn.Module:
    spec = importlib.util.spec_from_file_location("llama", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.get("llama") or importlib.util.module_from_spec(spec)
    if "llama" not in sys.modules:
        sys.modules["llama"] = module
        spec.loader.exec_module(module)
    config = module.LlamaConfig(vocab_size=32000, n_layers=LAYERS, **knobs)
    made: nn.Module = module.Llama(config)
    return made


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    m = model.get_parameter("norm.weight").shape[0] / BASE["dim"]
    matrices = [p for n, p in model.named_parameters() if n.startswith("layers") and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "lr": 1e-3 / m, "weight_decay": 0.1 * m},
        {"params": others},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)


def audit() -> int:
    import mufx

    tokens = (torch.zeros(2, 16, dtype=torch.long),)
    report = mufx.audit(build, tokens, BASE, TARGET, optimizer=optimizer)
    assert not report.ok
    return sum(torch.Size(p.shape).numel() for p in report.parameters.values())


def convert() -> int:
    import mufx

    tokens = (torch.zeros(2, 16, dtype=torch.long),)
    conversion = mufx.convert(build, tokens, BASE, TARGET)
    conversion.files()
    return sum(p.numel() for p in conversion.program.target.model.parameters())


WORK: dict[str, Callable[[], int]] = {"audit": audit, "convert": convert}


def measure_here(name: str) -> None:
    """Does the work in this process and prints what it took, as one line of JSON."""
    for module in ("mufx.api", "mufx.auditing.entry"):
        importlib.import_module(module)
    begin = time.process_time()
    parameters = WORK[name]()
    seconds = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    print(json.dumps({"seconds": seconds, "megabytes": peak, "parameters": parameters}))


def measure(name: str) -> Measured:
    """The fastest of some runs, each in a fresh process, and the largest peak of them."""
    runs: list[Measured] = []
    for _ in range(REPETITIONS):
        command = [sys.executable, __file__, "--only", name]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=alone)
        runs.append(Measured(**json.loads(done.stdout.splitlines()[-1])))
    return Measured(
        min(r.seconds for r in runs), max(r.megabytes for r in runs), runs[0].parameters
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Time and memory of an audit.")
    parser.add_argument("--only", choices=WORK, help="do this here and print what it took")
    only: str | None = parser.parse_args().only
    if only is not None:
        measure_here(only)
        return 0
    audited, converted = measure("audit"), measure("convert")
    print(
        f"{LAYERS} layers, {audited.parameters / 1e9:.2f} billion parameters; conversion", end=" "
    )
    print(f"{converted.seconds:.2f} s, {converted.megabytes:.0f} MB\n")
    rows = [
        ("time past imports", audited.seconds, 5.0, "s"),
        ("peak memory", audited.megabytes, 600.0, "MB"),
        ("time / a conversion's", audited.seconds / converted.seconds, 1.0, "x"),
    ]
    print(f"{'':24} {'measured':>10} {'bound':>8}")
    for what, measured, most, unit in rows:
        verdict = "ok" if measured <= most else "MISSED"
        print(f"{what:24} {measured:10.2f} {most:8g} {unit:3} {verdict}")
    return 0 if all(measured <= most for _, measured, most, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
