"""The same numbers as microsoft/mup, where a model converted by hand with it is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import mup
import mup.init
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import mufx
from mufx.api import Conversion
from tests.models.mup_gpt import Block

Make = Callable[..., nn.Module]
WIDTHS = ({"width": 16}, {"width": 64})


class MLP(nn.Module):
    """Two hidden layers."""

    def __init__(self, width: int, readout: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.hidden = nn.Linear(width, 2 * width)
        self.again = nn.Linear(2 * width, width)
        self.last = readout(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.again(F.relu(self.hidden(F.relu(self.first(x)))))))
        return out


class CNN(nn.Module):
    """Convolutions with batch norm."""

    def __init__(self, width: int, readout: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, bias=False)
        self.last = readout(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.norm(self.stem(x)))))
        out: Tensor = self.last(x.mean((2, 3)))
        return out


class Transformer(nn.Module):
    """Grouped keys, a gated feed-forward layer and an untied readout; head size 8."""

    def __init__(self, width: int, readout: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.positions = nn.Embedding(9, width)
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width // 2)
        self.v = nn.Linear(width, width // 2)
        self.out = nn.Linear(width, width)
        self.gate = nn.Linear(width, 3 * width, bias=False)
        self.up = nn.Linear(width, 3 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)
        self.last = readout(width, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        h = self.norm(x)
        q, k, v = (p(h).unflatten(-1, (-1, 8)).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        out: Tensor = self.last(x)
        return out


class Wide(nn.Module):
    """Two heads whose size grows: attention's scale must follow."""

    def __init__(
        self,
        width: int,
        readout: Callable[[int, int], nn.Module] = nn.Linear,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Linear(6, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.last = readout(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.first(x)).chunk(3, -1)
        q, k, v = (p.unflatten(-1, (2, -1)).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        out: Tensor = self.last(y.transpose(1, 2).flatten(2))
        return out


class GPT(nn.Module):
    """Three blocks, positions and an untied readout, drawn with one std as in GPT-2."""

    def __init__(
        self,
        width: int,
        readout: Callable[[int, int], nn.Module] = nn.Linear,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.positions = nn.Embedding(9, width)
        self.blocks = nn.ModuleList(Block(width, 2, scale) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.last = readout(width, 11)
        self.draw(nn.init.normal_)

    def draw(self, normal_: Callable[..., object]) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.last(self.norm(x))
        return out


def rows(batch: int) -> Tensor:
    return torch.randn(batch, 5, 6)


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 8, 8)


def tokens(batch: int) -> Tensor:
    return torch.randint(0, 11, (batch, 7))


CASES: dict[str, tuple[Make, Callable[[int], Tensor], dict[str, Any]]] = {
    "mlp": (MLP, rows, {}),
    "cnn": (CNN, images, {}),
    "transformer": (Transformer, tokens, {}),
    # 1/d with the base constant, by hand
    "wide": (Wide, rows, {"scale": 8**0.5 / 32}),
    "gpt": (GPT, tokens, {"scale": 8**0.5 / 32}),
}
MU: dict[str, Any] = {"adamw": mup.MuAdamW, "sgd": mup.MuSGD}
PLAIN: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def by_hand(case: str) -> tuple[nn.Module, nn.Module]:
    """The model as its author would convert it with mup, and the same before mup rescaled it."""
    make, _, extra = CASES[case]
    models: list[nn.Module] = []
    for rescale in (True, False):
        torch.manual_seed(1)
        model = make(**WIDTHS[1], readout=mup.MuReadout, **extra)
        base = make(**WIDTHS[0], readout=mup.MuReadout)
        delta = make(width=24 if case != "transformer" else 32, readout=mup.MuReadout)
        mup.set_base_shapes(model, base, delta=delta, rescale_params=rescale)
        if isinstance(model, GPT):  # who draws with a std of his own takes mup's drop-in
            model.draw(mup.init.normal_ if rescale else nn.init.normal_)
        models.append(model)
    return models[0], models[1]


def converted(case: str, optimizer: str) -> Conversion:
    make, inputs, _ = CASES[case]
    return mufx.convert(
        make, lambda batch=2: (inputs(batch),), *WIDTHS, form="table8", optimizer=optimizer
    )


@pytest.mark.parametrize("case", CASES)
def test_init_factors(case: str) -> None:
    rescaled, plain = by_hand(case)
    before = dict(plain.named_parameters())
    manifest = converted(case, "adamw").manifest
    for name, parameter in rescaled.named_parameters():
        factor = manifest.parameters[name].init_correction
        assert torch.equal(before[name] * factor, parameter), name


@pytest.mark.parametrize("optimizer", MU)
@pytest.mark.parametrize("case", CASES)
def test_learning_rates_and_weight_decays(case: str, optimizer: str) -> None:
    model, _ = by_hand(case)
    names = {id(p): n for n, p in model.named_parameters()}
    theirs = MU[optimizer](model.parameters(), lr=0.5, weight_decay=0.25)
    conversion = converted(case, optimizer)
    ours = mufx.param_groups(conversion.module(), conversion.manifest, lr=0.5, weight_decay=0.25)
    expected = {
        names[id(p)]: (g["lr"], g["weight_decay"]) for g in theirs.param_groups for p in g["params"]
    }
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in ours
        for name, entry in conversion.manifest.parameters.items()
        if entry.group == group["name"]
    }
    assert found == expected


@pytest.mark.parametrize("optimizer", MU)
@pytest.mark.parametrize("case", CASES)
def test_weights_after_four_steps(case: str, optimizer: str) -> None:
    theirs = by_hand(case)[0].double()
    conversion = converted(case, optimizer)
    ours = conversion.module().double()
    state = theirs.state_dict()
    ours.load_state_dict(state, strict=False)
    for name, buffer in ours.named_buffers():
        buffer.copy_(state[name])
    values: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
    groups = mufx.param_groups(ours, conversion.manifest, **values)
    for group in groups:
        if optimizer == "adamw":  # it follows the gradient's scale in ours, and in theirs nothing
            group["eps"] = 1e-8
    pairs = [
        (theirs, MU[optimizer](theirs.parameters(), **values)),
        (ours, PLAIN[optimizer](groups)),
    ]
    for model, opt in pairs:
        torch.manual_seed(2)
        for _ in range(4):
            x = CASES[case][1](4)
            out = model(x.double() if x.is_floating_point() else x)
            opt.zero_grad()
            torch.autograd.backward((out - 1).pow(2).mean())
            opt.step()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter, dict(theirs.named_parameters())[name], rtol=1e-6, atol=1e-12
        )


# -- where mup is wrong, and mufx differs on purpose --------------------------------------------


class Tied(nn.Module):
    """One matrix as embedding and as readout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.embedding(tokens)))
        return out


class ConvReadout(nn.Module):
    """A 1x1 convolution as readout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.stem(x)))
        return out


class Transposed(nn.Module):
    """A transposed convolution that halves its channels: its fan-in is dim 0."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.up = nn.ConvTranspose2d(width, inner, 2)
        self.last = nn.Conv2d(inner, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.up(F.relu(self.stem(x)))))
        return out


class Experts(nn.Module):
    """Stacked experts in one tensor of three axes."""

    def __init__(
        self,
        width: int,
        inner: int,
        experts: int = 4,
        readout: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.up = nn.Parameter(torch.randn(experts, width, inner) * width**-0.5)
        self.last = readout(inner, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.bmm(self.first(x).expand(len(self.up), -1, -1), self.up)
        out: Tensor = self.last(h.relu().mean(0))
        return out


class Feed(nn.Module):
    """The Conv1D of transformers: its fan-in is dim 0."""

    def __init__(
        self, width: int, inner: int, readout: Callable[[int, int], nn.Module] = nn.Linear
    ) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.up = Conv1D(inner, width)
        self.last = readout(inner, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.up(self.first(x))))
        return out


@dataclass(frozen=True)
class Scales:
    """What a weight gets: the factor on its constructor's draw, on its rate, on its product."""

    init: float
    lr: float
    multiplier: float = 1.0


def sizes(knobs: dict[str, tuple[int, int]]) -> list[dict[str, int]]:
    return [{k: v[i] for k, v in knobs.items()} for i in (0, 1)]


def ours(make: Make, x: Tensor, name: str, **knobs: tuple[int, int]) -> tuple[str, Scales]:
    """Role and scales, for AdamW in mup's form."""
    base, target = sizes(knobs)
    entry = mufx.convert(make, (x,), base, target, form="table8").manifest.parameters[name]
    scales = Scales(entry.init_correction, entry.lr_scale, entry.multiplier)
    return str(entry.role), scales


def of_mup(make: Make, name: str, **knobs: tuple[int, int]) -> Scales:
    """What mup does to the same parameter, by running it; it has multipliers in MuReadout only."""
    base, target = sizes(knobs)
    weights: list[Tensor] = []
    rates: list[float] = []
    for rescale in (True, False):
        torch.manual_seed(1)
        model = make(**target)
        mup.set_base_shapes(model, make(**base), delta=make(**target), rescale_params=rescale)
        weights.append(model.get_parameter(name).detach())
        groups = mup.MuAdamW(model.parameters(), lr=1.0).param_groups
        rates += [g["lr"] for g in groups for p in g["params"] if p is model.get_parameter(name)]
    return Scales(float(weights[0].std() / weights[1].std()), rates[0])


def test_a_tied_embedding_is_not_rescaled() -> None:
    """mup's shared readout multiplies the embedding by sqrt(m), and so what the lookup gives."""

    def shared(width: int) -> nn.Module:
        model = Tied(width)
        model.head = mup.MuSharedReadout(model.embedding.weight, bias=False)
        return model

    assert of_mup(shared, "embedding.weight", width=(16, 64)) == Scales(init=2.0, lr=1.0)
    found = ours(Tied, tokens(2), "embedding.weight", width=(16, 64))
    assert found == ("input", Scales(init=1.0, lr=1.0))  # an input keeps its std at any width


def test_a_convolution_can_be_a_readout() -> None:
    """mup has a readout for nn.Linear only, and takes the convolution for one that is right."""
    assert of_mup(ConvReadout, "last.weight", width=(16, 64)) == Scales(init=1.0, lr=1.0)
    found = ours(ConvReadout, images(2), "last.weight", width=(16, 64))
    # A readout: 1/m as its multiplier, and what is drawn as large as at base width.
    assert found == ("output", Scales(init=2.0, lr=1.0, multiplier=1 / 4))


def test_a_transposed_convolution_contracts_dimension_0() -> None:
    """mup takes the last axis that grows for the fan-in, as does torch when it draws."""
    knobs = {"width": (16, 64), "inner": (8, 16)}
    assert of_mup(Transposed, "up.weight", **knobs) == Scales(init=1.0, lr=1 / 2)
    role, found = ours(Transposed, images(2), "up.weight", **knobs)
    # 1/m_in on the rate. torch draws at 1/sqrt(2) of its base std, and m_in**-1/2 is 1/2.
    assert (role, found.lr, found.multiplier) == ("hidden", 1 / 4, 1.0)
    assert found.init == pytest.approx(2**-0.5, rel=1e-12)


def test_stacked_experts_are_hidden_each() -> None:
    """mup takes the fan-out for the fan-in."""
    knobs = {"width": (16, 64), "inner": (16, 32)}
    with_readout = partial(Experts, readout=mup.MuReadout)
    assert of_mup(with_readout, "up", **knobs) == Scales(init=1.0, lr=1 / 2)
    assert ours(Experts, rows(2)[0], "up", **knobs) == ("hidden", Scales(init=1.0, lr=1 / 4))


def test_more_experts_change_none() -> None:
    """mup knows no weight with three axes that grow."""
    knobs = {"width": (16, 64), "inner": (16, 32), "experts": (4, 8)}
    with pytest.raises(NotImplementedError, match="more than 2 inf dimensions"):
        of_mup(partial(Experts, readout=mup.MuReadout), "up", **knobs)
    assert ours(Experts, rows(2)[0], "up", **knobs) == ("hidden", Scales(init=1.0, lr=1 / 4))


def test_conv1d_of_transformers_has_its_fan_in_from_the_operation() -> None:
    """mup takes the fan-out for the fan-in."""
    knobs = {"width": (16, 64), "inner": (32, 256)}
    with_readout = partial(Feed, readout=mup.MuReadout)
    assert of_mup(with_readout, "up.weight", **knobs) == Scales(init=1.0, lr=1 / 8)
    # Conv1D draws with one std at any width, of which m_in**-1/2 is right.
    assert ours(Feed, rows(2), "up.weight", **knobs) == ("hidden", Scales(init=1 / 2, lr=1 / 4))
