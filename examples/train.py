"""Trains a converted language model on the sources of Python's standard library.

python examples/train.py out/gpt --minutes 1

The folder is what `mufx convert` wrote: model_mup.py, optim_mup.py and manifest.json. Nothing else
of mufx is needed to train. The model takes (tokens, targets) and returns (logits, loss), over
bytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

SEED = 0
HELD_OUT = 0.1  # of the text
HELD_OUT_BATCHES = 4
WARMUP = 0.05  # of the time
FLOOR = 0.1  # of the learning rate, at the end


@dataclass(frozen=True)
class Options:
    folder: Path
    minutes: float
    steps: int | None
    lr: float
    batch: int
    length: int
    device: torch.device
    megabytes: float


def main() -> None:
    options = parse_options()
    torch.manual_seed(SEED)
    model = build(load(options.folder / "model_mup.py"), options.device)
    optim = load(options.folder / "optim_mup.py")
    groups = optim.param_groups(model, lr=options.lr, weight_decay=0.1)
    optimizer = torch.optim.AdamW(groups)
    text = standard_library(int(options.megabytes * 1e6))
    cut = int(len(text) * (1 - HELD_OUT))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{type(model).__name__}: {parameters:,} parameters, {len(groups)} groups")
    print(f"text: {len(text):,} bytes of Python's standard library, the last 10 % held out")
    train(model, optimizer, optim.clip_grad_norm_, text[:cut], text[cut:], options)


def parse_options() -> Options:
    parser = argparse.ArgumentParser(description="Trains a converted language model.")
    parser.add_argument("folder", type=Path, help="what mufx convert wrote")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to train")
    parser.add_argument("--steps", type=int, help="how many steps to train, instead of --minutes")
    parser.add_argument("--lr", type=float, default=3e-3, help="the rate found at base width")
    parser.add_argument("--batch", type=int, default=16, help="sequences a step")
    parser.add_argument("--length", type=int, default=128, help="bytes a sequence")
    parser.add_argument("--megabytes", type=float, default=4.0, help="how much text to read")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = Options(**vars(parser.parse_args()))
    if not (options.folder / "model_mup.py").is_file():
        parser.error(f"{options.folder} holds no model_mup.py: run mufx convert first")
    return options


def load(path: Path) -> ModuleType:
    """An emitted file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def build(emitted: ModuleType, device: torch.device) -> nn.Module:
    """The root class of the emitted file, built on the device, where it initialises itself."""
    model = getattr(emitted, emitted.__all__[0])(device=device)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{emitted.__all__[0]} is no torch.nn.Module")
    return model


def standard_library(limit: int) -> Tensor:
    """The sources of the standard library, one after the other, as bytes in 0..255.

    Only the top folder's files, in their order: they are everywhere, and some megabytes.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return torch.frombuffer(bytearray(sources[:limit]), dtype=torch.uint8).long()


def sample(text: Tensor, options: Options, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of the text and the bytes that follow: two of (batch, length)."""
    starts = torch.randint(len(text) - options.length, (options.batch, 1), generator=generator)
    windows = text[starts + torch.arange(options.length + 1)].to(options.device)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


@torch.no_grad()
def evaluate(model: nn.Module, text: Tensor, options: Options) -> float:
    """The mean loss in nats a byte, on the same windows every time."""
    model.eval()
    generator = torch.Generator().manual_seed(SEED)
    losses = [float(model(*sample(text, options, generator))[1]) for _ in range(HELD_OUT_BATCHES)]
    model.train()
    return sum(losses) / len(losses)


def schedule(progress: float) -> float:
    """A short linear warmup, then a cosine; what LambdaLR multiplies every group's rate by."""
    if progress < WARMUP:
        return (progress + 0.01) / (WARMUP + 0.01)
    done = min(1.0, (progress - WARMUP) / (1 - WARMUP))
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    clip: Callable[..., object],
    text: Tensor,
    held_out: Tensor,
    options: Options,
) -> None:
    """Trains for the given time or steps, and prints how it goes every few seconds."""
    generator = torch.Generator().manual_seed(SEED + 1)
    begin = time.perf_counter()
    step = 0

    def progress(_: int = 0) -> float:
        if options.steps is not None:
            return step / options.steps
        return (time.perf_counter() - begin) / (60 * options.minutes)

    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: schedule(progress()))
    first_loss = loss_value = float("nan")
    first_held_out = evaluate(model, held_out, options)
    print(f"{'step':>6} {'train loss':>11} {'held-out':>9} {'tokens/s':>9}")
    shown, shown_at = 0, begin
    while progress() < 1:
        optimizer.zero_grad(set_to_none=True)
        _, loss = model(*sample(text, options, generator))
        loss.backward()
        clip(model, 1.0)
        optimizer.step()
        step += 1
        rates.step()
        loss_value = float(loss.detach())
        if step == 1:
            first_loss = loss_value
        elapsed = time.perf_counter() - shown_at
        if elapsed > 5:
            tokens = (step - shown) * options.batch * options.length / elapsed
            loss_held_out = evaluate(model, held_out, options)
            print(f"{step:6} {loss_value:11.4f} {loss_held_out:9.4f} {tokens:9.0f}", flush=True)
            shown, shown_at = step, time.perf_counter()
    last_held_out = evaluate(model, held_out, options)
    print(f"{step} steps in {time.perf_counter() - begin:.0f} s")
    print(f"train loss    {first_loss:.4f} -> {loss_value:.4f}")
    print(f"held-out loss {first_held_out:.4f} -> {last_held_out:.4f}")


if __name__ == "__main__":
    main()
