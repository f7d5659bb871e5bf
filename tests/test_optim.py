"""Optimizer groups and clipping: the manifest's numbers reach torch, and stay there."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim import SGD, Adam, AdamW
from torch.optim import lr_scheduler as schedule

from mufx.diagnostics import MufxError
from mufx.emit import optim_mup
from mufx.manifest import (
    EmittedEntry,
    Manifest,
    ParameterEntry,
    SourceEntry,
    dumps,
    grouped,
)
from mufx.optim import clip_grad_norm_, param_groups, scaled
from mufx.program import Form, Optimizer, Role, Scales


class MLP(nn.Module):
    """Input, hidden and output weight, each with its factor in the forward pass."""

    def __init__(self, width: int, multipliers: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.multipliers = multipliers
        self.read = nn.Linear(3, width)
        self.mix = nn.Linear(width, width, bias=False)
        self.write = nn.Linear(width, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.multipliers
        x = torch.tanh(nn.functional.linear(x, a * self.read.weight, self.read.bias))
        x = torch.tanh(b * self.mix(x))
        y: Tensor = c * self.write(x)
        return y


def described(
    model: nn.Module,
    plan: Mapping[str, Scales] | None = None,
    optimizer: Optimizer = Optimizer.ADAMW,
    tied: Mapping[str, str] | None = None,
    emitted: str = "0" * 64,
) -> Manifest:
    """A manifest of the model: the plan's scales, 1 where it says nothing."""
    entries: dict[str, ParameterEntry] = {}
    for name, parameter in model.named_parameters():
        s = (plan or {}).get(name, Scales())
        entries[name] = ParameterEntry(
            role=Role.HIDDEN,
            shape=tuple(parameter.shape),
            base_shape=tuple(parameter.shape),
            m_in=1.0,
            m_out=1.0,
            multiplier=s.multiplier,
            init_scale=s.init,
            init_correction=1.0,
            lr_scale=s.lr,
            weight_decay_scale=s.weight_decay,
            eps_scale=s.eps,
            clip_scale=s.clip,
            group="",
            tied=(tied[name],) if tied and name in tied else (),
            because=(),
        )
    parameters, groups = grouped(entries)
    return Manifest(
        mufx_version="0",
        torch_version="0",
        model="MLP",
        source=SourceEntry(spec="", digest="0" * 64),
        emitted=EmittedEntry(file="model_mup.py", digest=emitted),
        base={},
        target={},
        optimizer=optimizer,
        form=Form.TABLE3,
        parameters=parameters,
        groups=groups,
        changes=(),
        diagnostics=(),
    )


PLAN = {
    "mix.weight": Scales(lr=0.25, weight_decay=4.0, eps=0.25),
    "write.weight": Scales(lr=0.125, weight_decay=8.0),
}


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, clip: Callable[[], object], steps: int = 6
) -> Tensor:
    """A few steps on fixed data; what the model then says."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    x = torch.randn(8, 3, generator=generator, dtype=dtype)
    y = torch.randn(8, 2, generator=generator, dtype=dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.mse_loss(model(x), y))
        clip()
        optimizer.step()
    result: Tensor = model(x)
    return result.detach()


def make(optimizer: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if optimizer is Optimizer.SGD:
        return SGD(groups, momentum=0.9, nesterov=True)
    return (Adam if optimizer is Optimizer.ADAM else AdamW)(groups)


# -- values -------------------------------------------------------------------------------------


def test_groups_hold_the_base_values_times_the_scales() -> None:
    model = MLP(4)
    groups = param_groups(model, described(model, PLAN), lr=0.1, weight_decay=0.2, eps=1e-6)
    values = [(g["lr"], g["lr_scale"], g["weight_decay"], g["eps"]) for g in groups]
    assert values == [
        (0.1, 1.0, 0.2, 1e-6),
        (0.1 * 0.25, 0.25, 0.2 * 4.0, 1e-6 * 0.25),
        (0.1 * 0.125, 0.125, 0.2 * 8.0, 1e-6),
    ]
    assert [len(g["params"]) for g in groups] == [2, 1, 1]
    assert groups[1]["params"][0] is model.mix.weight
    assert len({g["name"] for g in groups}) == 3


def test_sgd_has_no_eps() -> None:
    model = MLP(4)
    groups = param_groups(model, described(model, PLAN, Optimizer.SGD), lr=0.1)
    assert all("eps" not in g for g in groups)
    SGD(groups).step()


def test_at_base_there_is_one_group_in_torch_s_order() -> None:
    model = MLP(4)
    (group,) = param_groups(model, described(model), lr=0.1, weight_decay=0.2)
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.1, 0.2, 1e-8)


@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0, math.inf])
def test_base_trains_bitwise_as_torch_does(optimizer: Optimizer, norm: float) -> None:
    torch.manual_seed(0)
    model = MLP(4)
    plain = copy.deepcopy(model)
    manifest = described(model, optimizer=optimizer)
    decay = 0.0 if optimizer is Optimizer.ADAM else 0.1
    kwargs: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
    ours = make(optimizer, param_groups(model, manifest, lr=0.1, weight_decay=decay))
    cls = {Optimizer.SGD: SGD, Optimizer.ADAM: Adam, Optimizer.ADAMW: AdamW}[optimizer]
    theirs = cls(
        plain.parameters(),
        lr=0.1,
        weight_decay=decay,
        **(kwargs if optimizer is Optimizer.SGD else {}),
    )
    got = train(model, ours, lambda: clip_grad_norm_(model, manifest, 0.1, norm))
    expected = train(plain, theirs, lambda: nn.utils.clip_grad_norm_(plain.parameters(), 0.1, norm))
    assert torch.equal(got, expected)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_norm_is_torch_s_where_nothing_is_scaled() -> None:
    model = MLP(4)
    manifest = described(model, {"mix.weight": Scales(clip=0.5)})
    torch.autograd.backward(model(torch.ones(1, 3)).sum())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == 4
    halved = torch.cat([(g * (0.5 if g.shape == (4, 4) else 1)).flatten() for g in gradients])
    norm = clip_grad_norm_(model, manifest, 1e9)
    torch.testing.assert_close(norm, halved.norm())


def test_without_gradients_the_norm_is_zero() -> None:
    model = MLP(4)
    assert clip_grad_norm_(model, described(model), 1.0) == 0


def test_decay_can_be_left_out() -> None:
    model = MLP(4)
    groups = param_groups(
        model,
        described(model, PLAN),
        lr=torch.tensor(0.1),
        weight_decay=0.1,
        no_decay=lambda name, p: p.ndim < 2 or name == "mix.weight",
    )
    found = {g["name"]: ([tuple(p.shape) for p in g["params"]], g["weight_decay"]) for g in groups}
    assert found == {
        "hidden-2": ([(4, 3)], 0.1),
        "hidden-2, no decay": ([(4,)], 0.0),
        "hidden, no decay": ([(4, 4)], 0.0),
        "hidden-3": ([(2, 4)], 0.1 * 8.0),
    }
    assert len({g["lr"].data_ptr() for g in groups}) == 4


# -- schedulers ---------------------------------------------------------------------------------

STEPS = 12
FLOOR = 0.1

Schedule = Callable[[torch.optim.Optimizer, list[dict[str, Any]]], Any]


def cosine_with_floor(step: int) -> float:
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * step / STEPS)) / 2


SCHEDULES: dict[str, Schedule] = {
    "lambda": lambda o, g: schedule.LambdaLR(o, lambda step: min(1.0, step / 4)),
    "cosine": lambda o, g: schedule.CosineAnnealingLR(o, STEPS),
    "cosine with a floor": lambda o, g: schedule.LambdaLR(o, cosine_with_floor),
    "one cycle": lambda o, g: schedule.OneCycleLR(o, max_lr=scaled(0.1, g), total_steps=STEPS + 1),
    "cyclic": lambda o, g: schedule.CyclicLR(
        o, scaled(0.01, g), scaled(0.1, g), step_size_up=3, cycle_momentum=False
    ),
    "warmup, then cosine": lambda o, g: schedule.SequentialLR(
        o, [schedule.LinearLR(o, 0.1, total_iters=3), schedule.CosineAnnealingLR(o, 9)], [3]
    ),
}


def base_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """What each group's learning rate is at base width."""
    return [float(g["lr"]) / g["lr_scale"] for g in optimizer.param_groups]


@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedulers_keep_the_scales(name: str, tensor: bool) -> None:
    model = MLP(4)
    lr = torch.tensor(0.1, dtype=torch.float64) if tensor else 0.1
    groups = param_groups(model, described(model, PLAN), lr=lr)
    optimizer = AdamW(groups, foreach=False)
    scheduler = SCHEDULES[name](optimizer, groups)
    seen: list[float] = []
    for _ in range(STEPS):
        optimizer.step()
        scheduler.step()
        first, *others = base_rates(optimizer)
        assert others == pytest.approx([first, first], rel=1e-12, abs=1e-18)
        seen.append(first)
    assert len({round(rate, 12) for rate in seen}) > 3


def test_reduce_on_plateau_keeps_the_scales_down_to_its_floor() -> None:
    model = MLP(4)
    groups = param_groups(model, described(model, PLAN), lr=0.1)
    optimizer = AdamW(groups)
    scheduler = schedule.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=0, min_lr=scaled(0.01, groups), eps=0
    )
    for _ in range(STEPS):
        optimizer.step()
        scheduler.step(1.0)
        first, *others = base_rates(optimizer)
        assert others == pytest.approx([first, first], rel=1e-12)
    assert base_rates(optimizer) == pytest.approx([0.01, 0.01, 0.01])


def test_eta_min_is_one_number_for_all_groups_and_breaks_the_scales() -> None:
    model = MLP(4)
    optimizer = AdamW(param_groups(model, described(model, PLAN), lr=0.1))
    scheduler = schedule.CosineAnnealingLR(optimizer, STEPS, eta_min=0.01)
    for _ in range(STEPS):
        optimizer.step()
        scheduler.step()
    assert base_rates(optimizer) == pytest.approx([0.01, 0.04, 0.08])


# -- clipping and the equivalent forms ----------------------------------------------------------


def twins(optimizer: Optimizer) -> tuple[tuple[MLP, Manifest], tuple[MLP, Manifest]]:
    """One model in two forms: weights theta times smaller, multipliers theta times larger."""
    torch.manual_seed(0)
    model = MLP(8).double()
    thetas = {"read.weight": 4.0, "mix.weight": 0.5, "write.weight": 0.125}
    twin = MLP(8, (4.0, 0.5, 0.125)).double()
    twin.load_state_dict({n: p / thetas.get(n, 1.0) for n, p in model.state_dict().items()})
    shifted = {
        name: PLAN.get(name, Scales()).shifted(theta, optimizer) for name, theta in thetas.items()
    }
    return (
        (model, described(model, PLAN, optimizer)),
        (twin, described(twin, shifted, optimizer)),
    )


def trained(
    model: MLP, manifest: Manifest, optimizer: Optimizer, clip: Callable[[], object]
) -> Tensor:
    decay = 0.0 if optimizer is Optimizer.ADAM else 0.1
    groups = param_groups(model, manifest, lr=0.1, weight_decay=decay, eps=1e-3)
    return train(model, make(optimizer, groups), clip)


@pytest.mark.parametrize("optimizer", Optimizer)
def test_clipping_means_the_same_in_equivalent_forms(optimizer: Optimizer) -> None:
    (one, plan), (other, shifted) = twins(optimizer)
    first = trained(one, plan, optimizer, lambda: clip_grad_norm_(one, plan, 0.05))
    second = trained(other, shifted, optimizer, lambda: clip_grad_norm_(other, shifted, 0.05))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("optimizer", Optimizer)
def test_plain_clipping_differs_between_equivalent_forms(optimizer: Optimizer) -> None:
    (one, plan), (other, shifted) = twins(optimizer)
    first = trained(one, plan, optimizer, lambda: nn.utils.clip_grad_norm_(one.parameters(), 0.05))
    second = trained(
        other, shifted, optimizer, lambda: nn.utils.clip_grad_norm_(other.parameters(), 0.05)
    )
    assert (first - second).abs().max() > 1e-4


# -- names --------------------------------------------------------------------------------------


class Wrapper(nn.Module):
    """As wrappers do it: the model under one more name."""

    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        self.add_module(name, model)


def compiled(model: nn.Module) -> nn.Module:
    result: object = torch.compile(model)
    assert isinstance(result, nn.Module)
    return result


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": compiled,
    "data parallel": lambda m: nn.DataParallel(m),
    "checkpoint": lambda m: checkpoint_wrapper(m),
    "deepcopy": copy.deepcopy,
    "fsdp": lambda m: Wrapper("_fsdp_wrapped_module", m),
    "two": lambda m: Wrapper("module", Wrapper("_orig_mod", m)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_change_no_group(name: str) -> None:
    model = MLP(4)
    manifest = described(model, PLAN)
    expected = param_groups(model, manifest, lr=0.1)
    wrapped = WRAPPERS[name](model)
    got = param_groups(wrapped, manifest, lr=0.1)
    assert [[p.shape for p in g["params"]] for g in got] == [
        [p.shape for p in g["params"]] for g in expected
    ]
    assert [g["name"] for g in got] == [g["name"] for g in expected]


def test_a_block_can_be_wrapped_alone() -> None:
    model = nn.Sequential(MLP(4), MLP(4))
    manifest = described(model)
    model[1] = checkpoint_wrapper(model[1])
    (group,) = param_groups(model, manifest, lr=0.1)
    assert len(group["params"]) == 8


def test_a_model_s_own_module_called_module_is_no_wrapper() -> None:
    model = Wrapper("module", MLP(4))
    own = described(model)
    assert "module.mix.weight" in own.parameters
    for given in (model, nn.DataParallel(model), copy.deepcopy(model)):
        (group,) = param_groups(given, own, lr=0.1)
        assert len(group["params"]) == 4


def test_names_that_wrappers_make_ambiguous_are_refused() -> None:
    model = Wrapper("module", nn.Linear(2, 2))
    model.weight = nn.Parameter(torch.zeros(2, 2))
    manifest = described(model)
    assert len(param_groups(model, manifest, lr=0.1)[0]["params"]) == 3
    with pytest.raises(MufxError, match=r"another parameter are one"):
        param_groups(Wrapper("module", model), manifest, lr=0.1)


def test_tied_parameters_are_taken_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    manifest = described(model, tied={"0.weight": "1.weight"})
    (group,) = param_groups(model, manifest, lr=0.1)
    assert len(group["params"]) == 1
    model[1].weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(MufxError, match=r"1\.weight and another parameter are one"):
        param_groups(model, manifest, lr=0.1)


def test_frozen_parameters_need_no_entry() -> None:
    model = MLP(4)
    manifest = described(model)
    model.extra = nn.Parameter(torch.zeros(1), requires_grad=False)
    (group,) = param_groups(model, manifest, lr=0.1)
    assert len(group["params"]) == 4


# -- what is refused ----------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_said_at_once() -> None:
    model = MLP(4)
    manifest = described(model)
    model.extra = nn.Parameter(torch.zeros(1))
    model.mix = nn.Linear(4, 5, bias=False)
    del model.write
    for call in (
        lambda: param_groups(model, manifest, lr=0.1),
        lambda: clip_grad_norm_(model, manifest, 1.0),
    ):
        with pytest.raises(MufxError) as refused:
            call()
        assert [d.code for d in refused.value.diagnostics] == ["MUF506"]
        for said in (
            "extra is not in the manifest",
            "mix.weight is [5, 4], in the manifest [4, 4]",
            "write.weight is not in the model",
        ):
            assert said in str(refused.value)


def test_adam_with_decay_is_refused() -> None:
    model = MLP(4)
    manifest = described(model, PLAN, Optimizer.ADAM)
    assert param_groups(model, manifest, lr=0.1)[0]["weight_decay"] == 0
    with pytest.raises(MufxError) as refused:
        param_groups(model, manifest, lr=0.1, weight_decay=0.1)
    assert [d.code for d in refused.value.diagnostics] == ["MUF507"]
    assert "AdamW" in str(refused.value)


# -- the copy in an emitted file ----------------------------------------------------------------


def emitted(folder: Path, model: nn.Module, optimizer: Optimizer = Optimizer.ADAMW) -> ModuleType:
    """The emitted file, alone beside a model and its manifest."""
    (folder / "model_mup.py").write_text("# the model\n", encoding="utf-8")
    digest = hashlib.sha256(b"# the model\n").hexdigest()
    file = folder / "optim_mup.py"
    file.write_bytes(Path(optim_mup.__file__).read_bytes())
    text = dumps(described(model, PLAN, optimizer, emitted=digest))
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("optim_mup", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_emitted_file_gives_the_same_groups_and_norm(tmp_path: Path) -> None:
    model = MLP(4)
    alone = emitted(tmp_path, model)
    manifest = described(model, PLAN)
    assert alone.param_groups(model, 0.1, weight_decay=0.2) == param_groups(
        model, manifest, lr=0.1, weight_decay=0.2
    )
    torch.autograd.backward(model(torch.ones(1, 3)).sum())
    assert torch.equal(alone.clip_grad_norm_(model, 1e9), clip_grad_norm_(model, manifest, 1e9))


def test_the_emitted_file_refuses_a_manifest_of_another(tmp_path: Path) -> None:
    model = MLP(4)
    alone = emitted(tmp_path, model)
    file = tmp_path / "model_mup.py"
    file.write_text(file.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="convert it again"):
        alone.param_groups(model, 0.1)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"schema_version": 1', '"schema_version": 2', "is of schema_version 2, not 1"),
        ('"lr_scale": 0.25', '"lr_scale": 0.5', "was edited: undo that"),
    ],
)
def test_alone_the_emitted_file_refuses_an_edited_manifest(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    emitted(tmp_path, MLP(4))
    file = tmp_path / "manifest.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(before, after), encoding="utf-8")
    assert before in text
    program = """
import sys
sys.modules["mufx"] = None
import optim_mup, torch
optim_mup.param_groups(torch.nn.Linear(1, 1), lr=0.1)
"""

    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert f"RuntimeError: {file} {said}" in run.stderr


def test_the_emitted_file_refuses_a_manifest_without_a_model(tmp_path: Path) -> None:
    model = MLP(4)
    alone = emitted(tmp_path, model)
    plan = described(model, PLAN).model_copy(update={"emitted": None})
    (tmp_path / "manifest.json").write_text(dumps(plan), encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"use mufx\.param_groups"):
        alone.param_groups(model, 0.1)


def test_the_emitted_file_reads_its_manifest_once(tmp_path: Path) -> None:
    model = MLP(4)
    alone = emitted(tmp_path, model)
    first = alone.param_groups(model, 0.1)
    (tmp_path / "manifest.json").unlink()
    assert alone.param_groups(model, 0.1) == first


def test_the_emitted_file_refuses_adam_with_decay(tmp_path: Path) -> None:
    model = MLP(4)
    alone = emitted(tmp_path, model, Optimizer.ADAM)
    with pytest.raises(ValueError, match="convert for adamw"):
        alone.param_groups(model, 0.1, weight_decay=0.1)
