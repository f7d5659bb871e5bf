"""`mufx.apply` where the parameters are sharded by FSDP2, in two processes."""

from __future__ import annotations

from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

import mufx
from mufx import manifest as manifests
from mufx.manifest import Manifest
from tests.applying import converted, own, train

PROCESSES = 2
LIMIT = timedelta(seconds=60)  # where one process dies, the other does not wait for long


def sharded(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for block in model.get_submodule("blocks").children():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def alone(manifest: Manifest) -> nn.Module:
    model = own().double()
    train(model, mufx.apply(model, manifest))
    return model


def sharded_before(manifest: Manifest) -> nn.Module:
    model = sharded(own().double())
    train(model, mufx.apply(model, manifest))
    return model


def sharded_after(manifest: Manifest) -> nn.Module:
    model = own().double()
    plan = mufx.apply(model, manifest)
    train(sharded(model), plan)
    return model


def made_in_shards(manifest: Manifest) -> nn.Module:
    """As a model is made that fits no single device: on meta, sharded, then given memory."""
    with torch.device("meta"):
        model = own()
    sharded(model.double()).to_empty(device="cpu")
    model.readout.weight = model.embedding.weight  # to_empty unties
    initial = own().double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor)
            whole = initial.get_parameter(name).detach()
            mesh, placements = parameter.device_mesh, parameter.placements
            parameter.copy_(distribute_tensor(whole, mesh, placements))
    train(model, mufx.apply(model, manifest))
    return model


def twice(manifest: Manifest) -> int:
    model = sharded(own())
    mufx.apply(model, manifest)
    try:
        mufx.apply(model, manifest)
    except mufx.MufxError as problem:
        return len(problem.diagnostics)
    return 0


MAKERS = (alone, sharded_before, sharded_after, made_in_shards)


def values(model: nn.Module) -> list[Tensor]:
    return [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in model.parameters()]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", meeting, LIMIT, PROCESSES, rank)
    manifest = manifests.load(f"{folder}/manifest.json")
    results = [values(make(manifest)) for make in MAKERS]
    refused = twice(manifest)
    if rank == 0:
        torch.save((results, refused), f"{folder}/results.pt")
    distributed.destroy_process_group()


def test_shards_train_as_one_process_does(tmp_path: Path) -> None:
    converted().write(tmp_path)
    spawn = get_context("spawn")
    ranks = [spawn.Process(target=work, args=(rank, str(tmp_path))) for rank in range(PROCESSES)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    (one, *others), refused = torch.load(tmp_path / "results.pt")
    for other in others:
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)
    assert refused > 0
