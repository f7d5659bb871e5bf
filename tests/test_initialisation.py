"""`init_weights` as text, and against what the model's own constructor gives."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import mufx
from mufx.api import convert_source, import_emitted
from mufx.construction import record_construction
from mufx.diagnostics import MufxError
from mufx.emit.initialisation import InitScale, init_body
from mufx.source import from_callable, load

GOLDEN = Path(__file__).parent / "golden" / "initialisation"
EXAMPLES = Path(__file__).parent.parent / "examples"
Build = Callable[[], nn.Module]


class Everything(nn.Module):
    """One of every way to fill a tensor."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.conv = nn.Conv2d(3, 4, 3)
        self.embedding = nn.Embedding(10, 8, padding_idx=3)
        self.lstm = nn.LSTM(8, 8)
        self.gain = nn.Parameter(torch.randn(4, 4) * 0.3)
        self.transposed = nn.Parameter(torch.randn(4, 4).t())
        self.temperature = nn.Parameter(torch.tensor(2.6592))
        self.normalised = nn.Parameter(nn.functional.normalize(torch.rand(3, 20), dim=1))
        self.orthogonal = nn.Parameter(torch.empty(6, 5))
        self.sparse = nn.Parameter(torch.empty(6, 6))
        self.dirac = nn.Parameter(torch.empty(4, 4, 3))
        nn.init.orthogonal_(self.orthogonal, gain=0.5)
        nn.init.sparse_(self.sparse, 0.3)
        nn.init.dirac_(self.dirac, groups=2)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.xavier_uniform_(self.linear.weight)
        for name, bias in self.lstm.named_parameters():
            if name.startswith("bias_hh"):
                nn.init.ones_(bias[8:16])
        self.conv.weight.data = self.conv.weight.data * 0.5
        self.register_buffer("mask", torch.tril(torch.ones(5, 5)).view(1, 1, 5, 5))
        self.bilinear = nn.Bilinear(3, 4, 5)
        self.weight_normed = nn.Linear(4, 4)
        nn.utils.parametrizations.weight_norm(self.weight_normed)
        self.norm = nn.BatchNorm2d(3)
        self.scales = nn.ParameterList([torch.ones(3) * i for i in range(3)])


class Layered(nn.Module):
    """Standard deviations that differ from layer to layer."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(depth)])
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.5 / math.sqrt(i + 1))


def encoder(depth: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, depth)


def small(depth: int) -> dict[str, Any]:
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    return {**sizes, "num_hidden_layers": depth}


def tokens() -> dict[str, Any]:
    return {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def gpt2(depth: int) -> nn.Module:
    config = hf.GPT2Config(n_embd=32, n_layer=depth, n_head=2, **tokens())
    model: nn.Module = hf.GPT2LMHeadModel(config)
    return model


def llama(depth: int) -> nn.Module:
    model: nn.Module = hf.LlamaForCausalLM(hf.LlamaConfig(**tokens(), **small(depth)))
    return model


def mamba(depth: int) -> nn.Module:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": depth, "state_size": 4}
    model: nn.Module = hf.MambaForCausalLM(hf.MambaConfig(**tokens(), **sizes))
    return model


def t5(depth: int) -> nn.Module:
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4}
    model: nn.Module = hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=100, num_layers=depth, **sizes)
    )
    return model


def vit(depth: int) -> nn.Module:
    model: nn.Module = hf.ViTForImageClassification(
        hf.ViTConfig(image_size=32, patch_size=8, **small(depth))
    )
    return model


def swin(depth: int) -> nn.Module:
    sizes: dict[str, Any] = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "window_size": 4}
    model: nn.Module = hf.SwinModel(hf.SwinConfig(depths=[depth, depth], num_heads=[2, 4], **sizes))
    return model


class Teacher(nn.Module):
    """Blocks, and a copy of each."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(depth)])
        self.averages = copy.deepcopy(self.blocks)


Deep = Callable[[int], nn.Module]
DEEP: dict[str, Deep] = {
    "encoder": encoder, "gpt2": gpt2, "llama": llama, "mamba": mamba, "t5": t5, "vit": vit,
    "swin": swin, "teacher": Teacher,
}  # fmt: skip
MODELS: dict[str, Build] = {
    "everything": Everything,
    "layered": lambda: Layered(4),
    "linear": lambda: nn.Linear(4, 4),
    "sequential": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8)),
    "lstm": lambda: nn.LSTM(8, 8, 2),
    **{name: partial(build, 3) for name, build in DEEP.items()},
}


def example(name: str) -> Build:
    source = load(str(EXAMPLES / f"{name}.py"))
    return lambda: source.build(**source.target)


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters(remove_duplicate=False))
    return {**named, **dict(model.named_buffers(remove_duplicate=False))}


def initialise(model: nn.Module, lines: list[str], generator: torch.Generator | None) -> None:
    body = "\n".join(f"    {line}" for line in lines)
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": nn.functional}
    exec(f"@torch.no_grad()\ndef init_weights(self, generator):\n{body}\n", scope)
    scope["init_weights"](model, generator)


def garbage(build: Build) -> nn.Module:
    """The model, structure only: every tensor holds what no constructor would give it."""
    with torch.random.fork_rng():
        model = build()
    for tensor in tensors(model).values():
        tensor.data.fill_(77)
    return model


def assert_bitwise(build: Build) -> None:
    lines = init_body(record_construction(build), [])
    torch.manual_seed(3)
    expected, after = tensors(build()), torch.rand(1)
    model = garbage(build)
    torch.manual_seed(3)
    initialise(model, lines, None)
    found = tensors(model)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("name", MODELS)
def test_bitwise(name: str) -> None:
    assert_bitwise(MODELS[name])


@pytest.mark.parametrize("name", ["gpt", "llama", "mlp", "resnet", "encoder"])
def test_examples_bitwise(name: str) -> None:
    assert_bitwise(example(name))


@pytest.mark.parametrize("name", ["lstm", "gpt2", "mamba", "vit"])
def test_generator_is_used_for_every_draw(name: str) -> None:
    build = MODELS[name]
    lines = init_body(record_construction(build), [])
    models = [garbage(build), garbage(build)]
    for model in models:
        before = torch.get_rng_state()
        initialise(model, lines, torch.Generator().manual_seed(9))
        assert torch.equal(before, torch.get_rng_state())
    first, second = (tensors(model) for model in models)
    assert [n for n in first if not torch.equal(first[n], second[n])] == []


@pytest.mark.parametrize("name", DEEP)
def test_lines_do_not_grow_with_depth(name: str) -> None:
    build = DEEP[name]
    few = init_body(record_construction(lambda: build(3)), [])
    many = init_body(record_construction(lambda: build(6)), [])
    assert len(few) == len(many)


class Shadowing(nn.Module):
    """Local variables of the constructor that are called like the variables of loops."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        linear = torch.rand(8)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            layer.bias.data.copy_(linear + linear.exp())


def test_loops_do_not_shadow() -> None:
    assert_bitwise(Shadowing)


@pytest.mark.parametrize("name", [*MODELS])
def test_lines_fit(name: str) -> None:
    lines = init_body(record_construction(MODELS[name]), [])
    assert [line for line in lines if len(line) > 92] == []


@pytest.mark.parametrize("name", ["gpt", "layered"])
def test_text(name: str) -> None:
    build = example("gpt") if name == "gpt" else MODELS[name]
    construction = record_construction(build)
    scales = [
        InitScale(parameter, 0.5, "std 0.02 -> 0.01")
        for parameter in construction.tensors
        if parameter.endswith(("c_proj.weight", "first.weight"))
    ]
    lines = init_body(construction, scales)
    assert "\n".join(lines) + "\n" == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_scales() -> None:
    construction = record_construction(lambda: Layered(4))
    names = [f"layers.{i}.weight" for i in range(4)]
    scales = [InitScale(name, 0.25, "std 1 -> 0.25") for name in names]
    plain, scaled = garbage(lambda: Layered(4)), garbage(lambda: Layered(4))
    initialise(plain, init_body(construction, []), torch.Generator().manual_seed(1))
    initialise(scaled, init_body(construction, scales), torch.Generator().manual_seed(1))
    expected = tensors(plain)
    for name, tensor in tensors(scaled).items():
        assert torch.equal(tensor, expected[name] * (0.25 if name in names else 1))


def test_nano_gpt_is_short() -> None:
    assert len(init_body(record_construction(example("gpt")), [])) <= 35


class Table(nn.Module):
    """A table from outside of torch."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        values = numpy.random.default_rng(0).normal(size=(rows, 4))
        self.register_buffer("table", torch.from_numpy(values).float())


def test_small_foreign_table_is_written_out() -> None:
    assert_bitwise(lambda: Table(3))


class Positions(nn.Module):
    """Tables that numpy computes: of one a part is read, another is kept as it is."""

    kept: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        angles = numpy.outer(numpy.arange(12), 0.01 ** (numpy.arange(width) / width))
        self.table = nn.Parameter(torch.zeros(1, 6, width), requires_grad=False)
        self.table.data.copy_(torch.from_numpy(numpy.sin(angles)).float()[None, ::2])
        self.register_buffer("kept", torch.FloatTensor(numpy.cos(angles)[:6]), persistent=False)
        self.out = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[1](torch.relu(self.layers[0](x + self.table + self.kept)))
        out: torch.Tensor = self.out(x)
        return out


def test_large_foreign_tables_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    source = from_callable(
        Positions, lambda n, width: (torch.randn(n, 6, width),), {"width": 16}, {"width": 64}
    )
    conversion = convert_source(source)

    conversion.write(tmp_path)

    assert sorted(torch.load(tmp_path / "tables_mup.pt")) == ["kept", "table"]
    made, own = import_emitted(tmp_path / "model_mup.py").Positions(), Positions(64)
    assert torch.equal(made.table, own.table)
    assert torch.equal(made.kept, own.kept)
    told = [d for d in conversion.program.diagnostics if d.code == "MUF410"]
    assert [d.message.split()[:4] for d in told] == [
        ["table", "starts", "from", "768"],
        ["kept", "starts", "from", "384"],
    ]
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    places = [d.place for d in told]
    assert [p is not None and lines[p.line - 1].strip() for p in places] == [
        "self.table.data.copy_(torch.from_numpy(numpy.sin(angles)).float()[None, ::2])",
        "class Positions(nn.Module):",
    ]


class Unusual(nn.Module):
    """What needs care to be written."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = nn.Parameter(nn.init.eye_(torch.empty(6, 8)))
        self.outer = nn.Parameter(torch.empty(3, 2))
        with torch.no_grad():
            outer = torch.einsum("i, j -> ij", torch.arange(3.0), torch.arange(2.0))
            self.outer.copy_(outer.clamp(min=0.25, max=1.5) * 0.0123456789 + 1.23456789)
        lists = [nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]) for _ in range(3)]
        self.list = nn.ModuleList(lists)


class ThroughViews(nn.Module):
    """A table of which views are written with `*=` and its kin, and one that is a view itself."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.stack([torch.arange(3.0), torch.arange(3.0)]).t().contiguous().unsqueeze(0)
        table[:, :, 0] /= 2
        table *= 8
        flat = table.view(-1)
        flat += 1
        turned = table.transpose(1, 2)
        turned -= 0.5
        self.register_buffer("table", table.sign() * table.abs().log2())


class FilledViews(nn.Module):
    """Parameters that are views of what was made, and are filled again."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3).unsqueeze(-1).unsqueeze(-1))
        nn.init.constant_(self.gain, 0.5)
        self.turned = nn.Parameter(torch.zeros(3, 2).t())
        self.turned.data.fill_(2.0)


class NoParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.randn(3)
        self.register_buffer("table", torch.rand(3))


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("build", [Unusual, ThroughViews, FilledViews, NoParameters])
def test_unusual_bitwise(build: Build) -> None:
    assert_bitwise(build)


def test_loop_variables_hide_no_builtin() -> None:
    assert "for list in" not in "\n".join(init_body(record_construction(Unusual), []))


def test_a_generator_of_its_own_is_refused_where_it_is_used() -> None:
    with pytest.raises(MufxError) as raised:
        init_body(record_construction(OwnGenerator), [])
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "MUF402"
    assert diagnostic.place is not None
    assert diagnostic.place.file == __file__


# -- stages of unlike depth ---------------------------------------------------------------------


class Steps(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).relu()
        return x


class Stages(nn.Module):
    def __init__(self, width: int, depths: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Linear(8, width)
        self.stages = nn.ModuleList(Steps(width, depth) for depth in depths)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for stage in self.stages:
            x = stage(x)
        return x


@pytest.mark.parametrize("depths", [(2, 3), (3, 2), (3, 4, 6, 3), (1, 1, 4, 2), (3, 3, 3)])
def test_stages_of_unlike_depth_draw_every_layer_once(depths: tuple[int, ...]) -> None:
    def build(width: int) -> nn.Module:
        return Stages(width, depths)

    sizes = {"width": 16}
    conversion = mufx.convert(build, (torch.randn(2, 8),), sizes, sizes, vary=["width"])
    torch.manual_seed(3)
    expected = build(16).state_dict()

    drawn = conversion.module(seed=3).state_dict()
    assert [name for name in expected if not torch.equal(drawn[name], expected[name])] == []
