"""The emitted file under DDP and FSDP2, two gloo processes, trains as one process does."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import mufx
from mufx.api import convert_source, import_emitted

EXAMPLE = Path(__file__).parents[1] / "examples/gpt.py"
PROCESSES = 2
LIMIT = timedelta(seconds=120)  # where one process dies, the other does not wait for long


def sharded(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for block in model.get_submodule("h").children():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "alone": lambda model: model,
    "DDP": DistributedDataParallel,
    "FSDP2": sharded,
}


def trained(file: Path, wrap: Callable[[nn.Module], nn.Module]) -> Tensor:
    """The losses of four clipped steps on fixed tokens, and the norms before clipping."""
    emitted: Any = import_emitted(file)
    optim: Any = import_emitted(file.with_name("optim_mup.py"))
    torch.manual_seed(0)
    model = wrap(emitted.GPT().double())
    optimizer = torch.optim.AdamW(optim.param_groups(model, lr=1e-2, weight_decay=0.1))
    tokens = torch.arange(2 * 8).reshape(2, 8) * 7 % 256
    losses: list[float] = []
    norms: list[float] = []
    for _ in range(4):
        optimizer.zero_grad()
        _, loss = model(tokens, tokens.roll(-1, dims=1))
        torch.autograd.backward(loss)
        norm = optim.clip_grad_norm_(model, 0.05)
        norms.append(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))
        losses.append(float(loss.detach()))
        optimizer.step()
    return torch.tensor([losses, norms], dtype=torch.float64)


def work(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/meeting", LIMIT, PROCESSES, rank)
    results = {name: trained(folder / "model_mup.py", wrap) for name, wrap in WRAPPERS.items()}
    if rank == 0:
        torch.save(results, folder / "results.pt")
    distributed.destroy_process_group()


def test_the_emitted_file_trains_alike_wherever_its_parameters_lie(tmp_path: Path) -> None:
    source = mufx.load(
        str(EXAMPLE), base={"n_embd": 16, "n_head": 2}, target={"n_embd": 32, "n_head": 2}
    )
    convert_source(source).write(tmp_path)
    spawn = get_context("spawn")
    ranks = [spawn.Process(target=work, args=(rank, tmp_path)) for rank in range(PROCESSES)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    results: dict[str, Tensor] = torch.load(tmp_path / "results.pt")
    losses, norms = results["alone"]
    assert losses[-1] < losses[0] < 2 * math.log(256)
    assert (norms > 0.05).all()
    for name in ("DDP", "FSDP2"):
        torch.testing.assert_close(results[name], results["alone"], rtol=1e-12, atol=1e-13)
