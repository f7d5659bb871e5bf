"""Optimizer groups and clipping where the parameters are replicated or sharded by torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from mufx.manifest import EmittedEntry, Manifest, ParameterEntry, SourceEntry, grouped
from mufx.optim import clip_grad_norm_, param_groups
from mufx.program import Form, Optimizer, Role, Scales

PROCESSES = 2
LIMIT = timedelta(seconds=60)  # where one process dies, the other does not wait for long
WIDTH = 5  # odd, so that the shards have different sizes

PLAN = {
    "0.weight": Scales(eps=0.25, clip=0.5),
    "0.bias": Scales(eps=0.25),
    "2.weight": Scales(lr=0.25, weight_decay=4.0, eps=0.25),
    "2.bias": Scales(eps=0.25),
    "4.weight": Scales(eps=0.25, clip=4.0),
}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(3, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
    return nn.Sequential(*layers, nn.Linear(WIDTH, 2, bias=False)).double()


def manifest() -> Manifest:
    parameters, groups = grouped(
        {
            name: ParameterEntry(
                role=Role.HIDDEN,
                shape=tuple(parameter.shape),
                base_shape=tuple(parameter.shape),
                m_in=1.0,
                m_out=1.0,
                multiplier=1.0,
                init_scale=1.0,
                init_correction=1.0,
                lr_scale=PLAN[name].lr,
                weight_decay_scale=PLAN[name].weight_decay,
                eps_scale=PLAN[name].eps,
                clip_scale=PLAN[name].clip,
                group="",
                tied=(),
                because=(),
            )
            for name, parameter in model().named_parameters()
        }
    )
    digest = hashlib.sha256(b"").hexdigest()
    return Manifest(
        mufx_version="0",
        torch_version="0",
        model="Sequential",
        source=SourceEntry(spec="", digest=digest),
        emitted=EmittedEntry(file="model_mup.py", digest=digest),
        base={},
        target={},
        optimizer=Optimizer.ADAMW,
        form=Form.TABLE3,
        parameters=parameters,
        groups=groups,
        changes=(),
        diagnostics=(),
    )


def replicated(plain: nn.Sequential) -> nn.Module:
    return DistributedDataParallel(plain)


def sharded(plain: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    fully_shard(plain[2], mesh=mesh)
    fully_shard(plain, mesh=mesh)
    return plain


WRAPPERS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "alone": lambda plain: plain,
    "DDP": replicated,
    "FSDP2": sharded,
}


def trained(wrapped: nn.Module) -> tuple[Tensor, Tensor]:
    """What the model says after three clipped steps on fixed data, and the norms it had."""
    plan = manifest()
    optimizer = AdamW(param_groups(wrapped, plan, lr=0.1, weight_decay=0.1, eps=1e-2))
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    norms: list[float] = []
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward((wrapped(x) - 1).square().sum())
        norms.append(clip_grad_norm_(wrapped, plan, 0.05).item())
        optimizer.step()
    return wrapped(x).detach(), torch.tensor(norms, dtype=torch.float64)


def work(rank: int, folder: str) -> None:
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", meeting, LIMIT, PROCESSES, rank)
    results = {name: trained(wrap(model())) for name, wrap in WRAPPERS.items()}
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    distributed.destroy_process_group()


def test_replicas_and_shards_train_as_one_process_does(tmp_path: Path) -> None:
    spawn = get_context("spawn")
    ranks = [spawn.Process(target=work, args=(rank, str(tmp_path))) for rank in range(PROCESSES)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    results: dict[str, tuple[Tensor, Tensor]] = torch.load(tmp_path / "results.pt")
    said, norms = results["alone"]
    assert (norms > 0.05).all()
    for name in ("DDP", "FSDP2"):
        torch.testing.assert_close(results[name], (said, norms), rtol=1e-12, atol=1e-13)
