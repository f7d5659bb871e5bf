"""Small models of what public ones do, each converted and compared at base width."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import transformer

import mufx

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
Build = Callable[[int], nn.Module]


class LearnedQueries(nn.Module):
    """A learned query goes through a projection, as in a pooling head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.query = nn.Parameter(torch.randn(3, width))
        self.project = nn.Linear(width, width)
        self.drop = nn.Dropout(0.0)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        query = self.project(self.drop(self.query)).tanh()
        result: Tensor = self.readout(self.embed(x).mean(1)[:, None] * query)
        return result


class PositionsFromABuffer(nn.Module):
    """A buffer that no operation has used is handed to a module."""

    places: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.table = nn.Embedding(5, width)
        self.register_buffer("places", torch.arange(5).expand(1, -1), persistent=False)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.readout(self.embed(x) + self.table(self.places))
        return result


class Flipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


class AliasOfTheUnused(nn.Module):
    """A module without parameters has two names and is not called."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.flip = Flipped()
        self.again = self.flip
        self.embed = nn.Linear(8, width)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.readout(self.embed(x).tanh())
        return result


class Conditioning(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        result: Tensor = self.inner(x).to(like.dtype).tanh()
        return result


class CalledFromTwoPlaces(nn.Module):
    """A module's second caller names what it hands over by another name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conditioning = Conditioning(width)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = x * 2.0
        hidden = self.conditioning(x, first)
        second = hidden + 1.0
        result: Tensor = self.readout(self.conditioning(x, second) + hidden)
        return result


class DrawnWithNumpy(nn.Module):
    """The standard deviation of an init is a number of numpy's, a dtype a type of Python's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        nn.init.normal_(self.embed.weight, std=1 / np.sqrt(16.0))
        truth: Any = bool
        self.register_buffer("mask", torch.tril(torch.ones((4, 4), dtype=truth)))
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.readout(self.embed(x).tanh().reshape_as(self.embed(x)))
        return result


class ScaledWithNumpy(nn.Module):
    """Attention whose scale is a number of numpy's, between values times another one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x)
        scores = hidden @ hidden.mT / np.sqrt(hidden.shape[-1])
        grown = hidden * np.float32(hidden.shape[-1]) / np.int64(hidden.shape[-1])
        result: Tensor = self.readout(scores.softmax(-1) @ grown)
        return result


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.dense(x) + x)
        return result


class Stack(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = Layer(width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


class ComputedForNothing(nn.Module):
    """The result of the second of two equal modules is left, as of CANINE's last encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.first, self.second = Stack(width), Stack(width)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(self.embed(x))
        self.second(hidden)
        result: Tensor = self.readout(hidden)
        return result


class CausalEncoder(nn.Module):
    """Torch's encoder with a mask, which torch compares with a causal one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        result: Tensor = self.readout(self.encoder(self.embed(x), mask))
        return result


class CausalDecoder(nn.Module):
    """Torch's encoder and decoder, of which only the decoder has a mask."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.both = nn.Transformer(width, 2, 1, 1, 2 * width, dropout=0.0, batch_first=True)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        hidden = self.embed(x)
        result: Tensor = self.readout(self.both(hidden, hidden.flip(1), tgt_mask=mask))
        return result


class Taught(nn.Module):
    """A teacher is a copy of the student, buffers included; it is not trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(5, track_running_stats=True)
        self.student = nn.Sequential(nn.Linear(8, width), norm, nn.Linear(width, 4))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            wanted: Tensor = self.teacher(x)
        distance: Tensor = self.student(x) - wanted
        return distance


MODELS: tuple[Build, ...] = (
    Taught,
    CausalEncoder,
    CausalDecoder,
    LearnedQueries,
    PositionsFromABuffer,
    AliasOfTheUnused,
    CalledFromTwoPlaces,
    DrawnWithNumpy,
    ScaledWithNumpy,
    ComputedForNothing,
)


@pytest.mark.parametrize("build", MODELS)
def test_at_base_the_emitted_model_is_the_original(build: Build) -> None:
    knobs = {"width": 16}
    emitted = mufx.convert(build, (X,), knobs, knobs, vary=["width"]).module(seed=3)
    torch.manual_seed(3)
    original = build(16)

    torch.testing.assert_close(emitted.state_dict(), original.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(emitted(X), original(X), rtol=0, atol=0)


@pytest.mark.parametrize(("build", "attentions"), [(CausalEncoder, 2), (CausalDecoder, 3)])
def test_the_attention_of_torch_s_transformers_is_corrected(build: Build, attentions: int) -> None:
    changes = mufx.convert(build, (X,), {"width": 16}, {"width": 64}).manifest.changes

    assert [(c.before, c.after) for c in changes] == [("1/sqrt(32)", "sqrt(8)/32")] * attentions


def test_a_mask_is_looked_into_again_once_recorded() -> None:
    detect: Callable[..., bool] = vars(transformer)["_detect_is_causal_mask"]
    mufx.convert(CausalEncoder, (X,), {"width": 16}, {"width": 64})

    assert vars(transformer)["_detect_is_causal_mask"] is detect
    assert detect(nn.Transformer.generate_square_subsequent_mask(3))


def test_a_learned_query_is_an_input_and_what_projects_it_is_hidden() -> None:
    program = mufx.convert(LearnedQueries, (X,), {"width": 16}, {"width": 64}).program

    roles = {name: (str(la.role), la.m_in, la.m_out) for name, la in program.labels.items()}

    assert roles["query"] == ("input", 1.0, 4.0)
    assert roles["project.weight"] == ("hidden", 4.0, 4.0)
    assert roles["project.bias"] == ("input", 1.0, 4.0)


class Disentangled(nn.Module):
    """A scale made as a tensor, and corrected after it is made."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x)
        scale = torch.sqrt(torch.tensor(hidden.size(-1), dtype=torch.float))
        scores = torch.bmm(hidden, hidden.transpose(-1, -2) / scale)
        result: Tensor = self.readout(torch.bmm(scores.softmax(-1), hidden))
        return result


def test_numbers_of_numpy_are_corrected_like_those_of_python() -> None:
    conversion = mufx.convert(ScaledWithNumpy, (X,), {"width": 16}, {"width": 64})

    changes = [(c.before, c.after) for c in conversion.manifest.changes]
    assert changes == [("sqrt(64)", "64/sqrt(16)")]
    assert "np." not in conversion.text


def test_a_scale_made_as_a_tensor_is_corrected_and_proven() -> None:
    program = mufx.convert(Disentangled, (X,), {"width": 16}, {"width": 64}).program

    assert len(program.changes) == 1


@dataclass
class Answer:
    """What it says, and in evaluation what it saw, or else how sure it is."""

    logits: Tensor
    seen: tuple[Tensor, Tensor] | None = None
    sure: Tensor | None = None


class Answering(nn.Module):
    """A model whose results have other names in evaluation, as those of XLNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.readout = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Answer:
        hidden = self.embed(x)
        logits = self.readout(hidden)
        if self.training:
            return Answer(logits, sure=logits.sigmoid())
        return Answer(logits, seen=(x, hidden))


def test_results_may_have_other_names_in_evaluation() -> None:
    conversion = mufx.convert(Answering, (X,), {"width": 16}, {"width": 16}, vary=["width"])
    emitted, original = conversion.module(seed=0), Answering(16)
    original.load_state_dict(emitted.state_dict())

    for training in (True, False):
        got, wanted = emitted.train(training)(X), original.train(training)(X)
        for name in ("logits", "seen", "sure"):
            torch.testing.assert_close(getattr(got, name), getattr(wanted, name), rtol=0, atol=0)


class Routed(nn.Module):
    """Four experts of fixed size, and who is asked: two readouts of one value, one call inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, 4, bias=False)
        self.experts = nn.Parameter(torch.randn(4, width, 8) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        asked = self.router(x).softmax(-1)
        return torch.einsum("bef,be->bf", torch.einsum("bd,edf->bef", x, self.experts), asked)


class Expert(nn.Module):
    """One layer before them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.moe = nn.Linear(10, width), Routed(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.moe(self.first(x))
        return out


def test_a_multiplier_is_written_before_the_call_that_takes_it() -> None:
    """Form table8 multiplies what both readouts take: outside of the call that both are in."""
    x = torch.randn(2, 10)
    plain, explicit = (
        mufx.convert(Expert, (x,), base={"width": 16}, target={"width": 64}, form=form)
        for form in ("table3", "table8")
    )
    weights = plain.module().state_dict()
    theirs = {n: w if n.startswith("first") else 4 * w for n, w in weights.items()}
    model = explicit.module()
    model.load_state_dict(theirs)
    torch.testing.assert_close(model(x), plain.module()(x))
