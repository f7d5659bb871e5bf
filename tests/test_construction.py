"""The recorded constructor against the model's own: replay, single values, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn

import mufx
from mufx.classes import plan_instance
from mufx.construction import record_construction
from mufx.diagnostics import MufxError

Build = Callable[[], nn.Module]


class Inits(nn.Module):
    """Every function of torch.nn.init."""

    def __init__(self) -> None:
        super().__init__()
        init = nn.init
        matrices = [
            init.uniform_(torch.empty(6, 8), -0.3, 0.2),
            init.normal_(torch.empty(6, 8), 1.0, 0.5),
            init.constant_(torch.empty(6, 8), 0.3),
            init.ones_(torch.empty(6, 8)),
            init.zeros_(torch.empty(6, 8)),
            init.eye_(torch.empty(6, 8)),
            init.xavier_uniform_(torch.empty(6, 8)),
            init.xavier_normal_(torch.empty(6, 8), gain=2.0),
            init.kaiming_uniform_(torch.empty(6, 8), nonlinearity="relu"),
            init.kaiming_normal_(torch.empty(6, 8), mode="fan_out"),
            init.trunc_normal_(torch.empty(6, 8), std=0.02, a=-0.04, b=0.04),
            init.orthogonal_(torch.empty(6, 8), gain=0.5),
            init.sparse_(torch.empty(6, 8), 0.3),
            init.dirac_(torch.empty(4, 4, 3), 2),
        ]
        self.matrices = nn.ParameterList(nn.Parameter(m) for m in matrices)


class Buffers(nn.Module):
    """Tables, parts of tensors, ties, and tensors that torch did not make."""

    positions: torch.Tensor
    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        table = torch.zeros(8, 4)
        angle = torch.arange(8).unsqueeze(1) * torch.exp(torch.arange(0, 4, 2) * -0.5)
        table[:, 0::2] = angle.sin()
        table[:, 1::2] = angle.cos()
        self.register_buffer("table", table.unsqueeze(0))
        self.register_buffer("mask", torch.tril(torch.ones(5, 5)).view(1, 1, 5, 5))
        self.register_buffer("positions", torch.arange(8).expand((1, -1)), persistent=False)
        self.register_buffer("grid", torch.from_numpy(np.arange(6.0).reshape(2, 3)))
        self.embedding = nn.Embedding(10, 4, padding_idx=3)
        self.readout = nn.Linear(4, 10, bias=False)
        self.readout.weight = self.embedding.weight
        self.gate = nn.Parameter(torch.randn(4, 4) * 0.3)
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3))
        self.norm = nn.BatchNorm1d(4)
        self.cell = nn.Linear(4, 4)
        with torch.no_grad():
            self.cell.weight[:2] *= 0.5
            self.cell.bias.copy_(torch.linspace(0, 1, 4))
        self.cell.weight.data = self.cell.weight.data + torch.rand(4, 4)


def gpt2() -> nn.Module:
    model: nn.Module = hf.GPT2LMHeadModel(
        hf.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=32)
    )
    return model


def llama() -> nn.Module:
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    model: nn.Module = hf.LlamaForCausalLM(
        hf.LlamaConfig(num_hidden_layers=2, vocab_size=32, **sizes)
    )
    return model


def t5() -> nn.Module:
    sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2}
    model: nn.Module = hf.T5Model(hf.T5Config(num_layers=2, vocab_size=32, **sizes))
    return model


def vit() -> nn.Module:
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    model: nn.Module = hf.ViTModel(
        hf.ViTConfig(num_hidden_layers=2, image_size=8, patch_size=4, **sizes)
    )
    return model


def mamba() -> nn.Module:
    model: nn.Module = hf.MambaForCausalLM(
        hf.MambaConfig(num_hidden_layers=2, hidden_size=16, state_size=4, vocab_size=32)
    )
    return model


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)


def lstm() -> nn.Module:
    return nn.Sequential(nn.LSTM(4, 6, num_layers=2, bidirectional=True), nn.Linear(12, 2))


class Moved(nn.Module):
    """Tensors that a constructor moves to a device by its name: all is on one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).to("cpu")
        q, r = torch.linalg.qr(torch.randn(4, 4).cpu())
        self.register_buffer("q", q.to(torch.device("cpu"), torch.float64))
        self.register_buffer("r", r.to(device="cpu"))
        kept = torch.rand(4)
        kept.to("cpu").mul_(2)
        kept.to("cpu", copy=True).mul_(3)
        self.kept = nn.Parameter(kept.to(self.layer.weight.device))


MODELS: list[Build] = [Inits, Buffers, Moved, gpt2, llama, t5, vit, mamba, encoder, lstm]


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


@pytest.mark.parametrize("build", MODELS)
def test_a_replay_is_bitwise_what_the_constructor_gives(build: Build) -> None:
    replayed = record_construction(build).replay(seed=3)
    random_state = torch.get_rng_state()

    torch.manual_seed(3)
    original = tensors(build())

    assert list(replayed) == list(original)
    different = [n for n, t in original.items() if not torch.equal(t, replayed[n])]
    assert different == []
    assert torch.equal(random_state, torch.get_rng_state())


def test_the_model_takes_no_memory() -> None:
    model = record_construction(Buffers).model
    parameters = {p.device.type for p in model.parameters()}
    assert parameters == {"meta"}


def test_recording_leaves_the_random_state_and_torch_alone() -> None:
    functions = [nn.init.trunc_normal_.__code__, nn.init.orthogonal_.__code__]
    state = torch.get_rng_state()
    record_construction(Inits)
    assert torch.equal(state, torch.get_rng_state())
    assert [nn.init.trunc_normal_.__code__, nn.init.orthogonal_.__code__] == functions


def test_one_tensor_is_computed_without_the_others() -> None:
    construction = record_construction(Buffers)
    assert torch.equal(construction.value("table"), Buffers().table)
    assert torch.equal(construction.value("positions"), Buffers().positions)
    assert len(construction.program("positions")) < 5


def test_what_is_drawn_and_what_is_computed() -> None:
    construction = record_construction(Buffers)
    drawn = {name for name in construction.tensors if construction.draws(name)}
    assert {"gate", "embedding.weight", "readout.weight", "cell.weight"} < drawn
    assert drawn.isdisjoint({"table", "mask", "positions", "grid", "norm.weight"})


def test_tied_tensors_are_one_node() -> None:
    tensors = record_construction(Buffers).tensors
    assert tensors["embedding.weight"] == tensors["readout.weight"]


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2) if torch.rand(()) > 0.5 else nn.Linear(2, 3)


class Normalised(nn.Module):
    """A weight divided by its norm, as a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        norm = self.layer.weight.norm().item()
        nn.init.constant_(self.layer.weight, norm)


class Doubled(nn.Module):
    """A weight that numpy has doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.layer.weight.data = torch.from_numpy(self.layer.weight.detach().numpy() * 2)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        raise ValueError("no such width")


@pytest.mark.parametrize(("build", "code"), [(Undecided, "MUF109"), (Broken, "MUF104")])
def test_refusals_name_the_line_of_the_constructor(build: Build, code: str) -> None:
    with pytest.raises(MufxError) as raised:
        record_construction(build)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == code
    assert diagnostic.place is not None
    assert diagnostic.place.file == __file__


@pytest.mark.parametrize(
    ("build", "message", "hint"),
    [
        (Undecided, "takes a decision from a random draw", "Python's random module"),
        (Normalised, "into a Python number, by item()", "keep it a tensor"),
        (Doubled, "into a numpy array, by numpy()", "keep it a tensor"),
    ],
)
def test_a_draw_that_leaves_torch_is_refused_for_what_takes_it(
    build: Build, message: str, hint: str
) -> None:
    with pytest.raises(MufxError) as raised:
        record_construction(build)
    (diagnostic,) = raised.value.diagnostics
    assert message in diagnostic.message
    assert hint in diagnostic.hint
    assert diagnostic.place is not None
    assert diagnostic.place.file == __file__


# -- tensors that the constructor does not register ---------------------------------------------


class Unregistered(nn.Module):
    """A table, a list of indices, and what nobody reads, as plain attributes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.table = torch.arange(1.0, width + 1)
        self.rows = torch.arange(2)
        self.spare = torch.ones(3)
        self.last = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.first(x[self.rows]) + self.table.detach())
        return out


def test_a_plain_attribute_becomes_a_buffer_and_is_told() -> None:
    inputs = (torch.randn(2, 6),)
    conversion = mufx.convert(Unregistered, inputs, {"width": 16}, {"width": 64})

    made, own = conversion.module(seed=3), Unregistered(64)
    assert sorted(n for n, _ in made.named_buffers()) == ["rows", "table"]
    assert made.state_dict().keys() == own.state_dict().keys()
    own.load_state_dict(made.state_dict())
    assert torch.equal(made(*inputs), own(*inputs))
    told = {d.message.split()[0]: d for d in conversion.program.diagnostics}
    assert told.keys() == {"Unregistered.table", "Unregistered.rows"}
    for diagnostic in told.values():
        assert (diagnostic.code, diagnostic.place and diagnostic.place.file) == ("MUF114", __file__)


class View(nn.Module):
    """A plain attribute in the memory of a parameter: as a buffer it would not learn."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
        self.gain = self.first.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.first(x) * self.gain)
        return out


def test_a_view_of_a_parameter_is_no_buffer() -> None:
    with pytest.raises(MufxError, match="MUF103"):
        mufx.convert(View, (torch.randn(2, 6),), {"width": 16}, {"width": 64})


def test_a_tensor_that_an_instance_does_not_register_is_refused() -> None:
    with pytest.raises(MufxError) as raised:
        plan_instance(Unregistered(64), (torch.zeros(2, 6),), {"first.weight:0": 4})
    found = {d.hint.partition(": ")[2]: d for d in raised.value.diagnostics}
    assert set(found) == {
        'self.register_buffer("rows", tensor, persistent=False)',
        'self.register_buffer("table", tensor, persistent=False)',
    }
    for diagnostic in found.values():
        assert diagnostic.code == "MUF103"
        assert diagnostic.place is not None
        assert diagnostic.place.file == __file__
        assert diagnostic.place.cls == "Unregistered"
