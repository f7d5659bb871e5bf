"""The examples are models that run, learn and build at both sizes."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import mufx

EXAMPLES = Path(__file__).parent.parent / "examples"
ROOTS = {
    "mlp": "MLP",
    "gpt": "GPT",
    "llama": "Llama",
    "resnet": "ResNet",
    "encoder": "Encoder",
}
CONFIGS = {"gpt": "GPTConfig", "llama": "LlamaConfig"}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build(example: ModuleType, name: str, knobs: dict[str, int]) -> nn.Module:
    root = getattr(example, ROOTS[name])
    config = getattr(example, CONFIGS[name])(**knobs) if name in CONFIGS else None
    model: nn.Module = root(**knobs) if config is None else root(config)
    return model


def loss_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The model's own loss, or the cross-entropy against fixed classes."""
    output = model(*inputs)
    if isinstance(output, tuple):
        loss: Tensor = output[1]
        return loss
    classes = torch.arange(output[..., 0].numel()) % output.shape[-1]
    return nn.functional.cross_entropy(output.flatten(0, -2), classes)


def trained_losses(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: tuple[Tensor, ...]
) -> list[float]:
    losses: list[float] = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model, inputs)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", ROOTS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    example = load(name)
    model = build(example, name, example.base)

    torch.autograd.backward(loss_of(model, example.example_inputs()))

    without = [key for key, p in model.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("name", ROOTS)
def test_the_loss_falls_under_sgd(name: str) -> None:
    torch.manual_seed(0)
    example = load(name)
    model = build(example, name, example.base)
    inputs = example.example_inputs(batch=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    losses = trained_losses(model, optimizer, inputs)

    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", ROOTS)
def test_the_target_is_wider_and_has_the_same_parameters(name: str) -> None:
    example = load(name)

    with torch.device("meta"):
        small = dict(build(example, name, example.base).named_parameters())
        large = dict(build(example, name, example.target).named_parameters())

    assert list(small) == list(large)
    assert sum(p.numel() for p in large.values()) > 4 * sum(p.numel() for p in small.values())


@pytest.mark.parametrize("name", ROOTS)
def test_the_batch_of_the_example_inputs_is_free(name: str) -> None:
    assert {len(tensor) for tensor in load(name).example_inputs(batch=3)} == {3}


@pytest.mark.parametrize(
    ("name", "width", "heads"),
    [("gpt", "n_embd", "n_head"), ("llama", "dim", "n_heads"), ("encoder", "d_model", "nhead")],
)
def test_the_heads_of_the_transformers_grow(name: str, width: str, heads: str) -> None:
    example = load(name)

    assert (
        example.target[width] // example.target[heads] > example.base[width] // example.base[heads]
    )


@pytest.mark.parametrize("name", ROOTS)
def test_an_example_needs_torch_only(name: str) -> None:
    assert "mufx" not in (EXAMPLES / f"{name}.py").read_text()


def outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    output = model(*inputs)
    return list(output) if isinstance(output, tuple) else [output]


@cache
def converted(name: str, *, wide: bool) -> mufx.Conversion:
    """The example converted to its target, or to its base, where it stays itself."""
    example = load(name)
    target = example.target if wide else example.base
    return mufx.convert(
        lambda **k: build(example, name, k),
        example.example_inputs,
        base=example.base,
        target=target,
        vary=() if wide else tuple(example.base),
    )


def at_base(name: str) -> tuple[nn.Module, nn.Module]:
    """The example at base width, and what it is converted to there, after the same seed."""
    example = load(name)
    torch.manual_seed(0)
    original = build(example, name, example.base)
    return original, converted(name, wide=False).module(device="cpu", seed=0)


@pytest.mark.parametrize("name", ROOTS)
def test_at_base_width_a_converted_example_is_the_example(name: str) -> None:
    original, model = at_base(name)

    example = load(name)
    torch.testing.assert_close(model.state_dict(), original.state_dict(), rtol=0, atol=0)
    for training, batch in [(True, 2), (False, 3)]:
        inputs = example.example_inputs(batch)
        expected = outputs(original.train(training), inputs)
        got = outputs(model.train(training), inputs)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gpt", "llama", "resnet", "encoder"])
@pytest.mark.parametrize("size", [9, 24])
def test_a_converted_example_takes_other_lengths(name: str, size: int) -> None:
    original, model = (m.eval() for m in at_base(name))
    shapes = [t.shape[:-1] for t in load(name).example_inputs(batch=3)]
    if name == "resnet":
        inputs: tuple[Tensor, ...] = (torch.randn(3, 3, size, size),)
    else:
        inputs = tuple(torch.randint(0, 256, (*shape, size)) for shape in shapes)

    expected = outputs(original, inputs)
    got = outputs(model, inputs)

    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ROOTS)
def test_at_target_width_a_converted_example_learns(name: str) -> None:
    example, conversion = load(name), converted(name, wide=True)
    model = conversion.module(device="cpu", seed=0)
    inputs = example.example_inputs(batch=4)
    optimizer = torch.optim.AdamW(mufx.param_groups(model, conversion.manifest, lr=3e-3))

    losses = trained_losses(model, optimizer, inputs)

    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", ROOTS)
@pytest.mark.parametrize("wide", [False, True])
def test_a_converted_example_compiles_as_one_graph(name: str, wide: bool) -> None:
    torch.compiler.reset()
    model = converted(name, wide=wide).module(device="cpu", seed=0)
    compiled = copy.deepcopy(model)
    compiled.compile(fullgraph=True, backend="aot_eager")
    inputs = load(name).example_inputs(batch=2)

    expected, got = loss_of(model, inputs), loss_of(compiled, inputs)
    torch.autograd.backward([expected, got])

    torch.testing.assert_close(got, expected)
    gradients = {n: p.grad for n, p in compiled.named_parameters()}
    torch.testing.assert_close(gradients, {n: p.grad for n, p in model.named_parameters()})


@pytest.mark.parametrize("name", ROOTS)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_converted_example_is_the_example_in_bfloat16(name: str, autocast: bool) -> None:
    original, model = at_base(name)
    inputs = load(name).example_inputs(batch=2)
    if not autocast:
        original, model = original.bfloat16(), model.bfloat16()
        inputs = tuple(t.bfloat16() if t.is_floating_point() else t for t in inputs)

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = outputs(original, inputs)
        got = outputs(model, inputs)

    assert torch.bfloat16 in {t.dtype for t in got}
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


EMITTED = """
import torch
from torch import nn

__all__ = ["Bigrams"]


class Bigrams(nn.Module):
    def __init__(self, device=None):
        super().__init__()
        self.table = nn.Embedding(256, 256, device=device)

    def forward(self, idx, targets=None):
        logits = self.table(idx)
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""

OPTIM = """
from torch import nn


def param_groups(model, lr, weight_decay=0.0):
    return [{"params": list(model.parameters()), "lr": lr, "weight_decay": weight_decay}]


def clip_grad_norm_(model, max_norm):
    return nn.utils.clip_grad_norm_(model.parameters(), max_norm)
"""


def trained(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_training_an_emitted_folder_lowers_its_losses(tmp_path: Path) -> None:
    (tmp_path / "model_mup.py").write_text(EMITTED)
    (tmp_path / "optim_mup.py").write_text(OPTIM)

    run = trained(str(tmp_path), "--steps", "60", "--lr", "0.1", "--megabytes", "0.2")

    assert (run.returncode, run.stderr) == (0, "")
    reported = [line.split() for line in run.stdout.splitlines() if " -> " in line]
    assert [line[0] for line in reported] == ["train", "held-out"]
    assert all(float(line[-1]) < float(line[-3]) - 1 for line in reported)


def test_training_wants_a_converted_folder(tmp_path: Path) -> None:
    run = trained(str(tmp_path))

    assert run.returncode == 2
    assert "run mufx convert first" in run.stderr
