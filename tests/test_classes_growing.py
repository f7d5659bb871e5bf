"""One instance and what grows in it, against two sizes of the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from examples import encoder, gpt, llama, mlp, resnet
from mufx.classes import find_identities, plan_instance, trace_instance
from mufx.diagnostics import MufxError
from mufx.passes import PASSES, find_corrections
from mufx.sizes import Number
from mufx.source import BATCH, from_callable
from tests.agreement import disagreements


@pytest.mark.parametrize(
    ("build", "module"),
    [
        (mlp.MLP, mlp),
        (gpt.GPT, gpt),
        (llama.Llama, llama),
        (encoder.Encoder, encoder),
        (resnet.ResNet, resnet),
    ],
)
def test_classes_and_two_sizes_agree_on_the_examples(
    build: Callable[..., nn.Module], module: Any
) -> None:
    source = from_callable(build, module.example_inputs, module.base, module.target)
    with torch.device("meta"):
        found = find_identities(source.build(**source.target), source.inputs(BATCH, source.target))
    wrong, count = disagreements(found, mufx.trace(source))
    assert not wrong
    assert count > 20


# -- a Program from one instance ----------------------------------------------------------------

GPT_GROWTH = {
    "residual": 4,
    "h.*.mlp.c_fc.weight:0": 4,
    "h.*.attn.c_proj.weight:1.0": 2,
    "h.*.attn.c_proj.weight:1.1": 2,
    "h.*.attn.c_attn.weight:0.0.1": 2,
}


def test_an_instance_gets_what_two_sizes_give() -> None:
    sizes = {"n_embd": 64, "n_head": 2}, {"n_embd": 256, "n_head": 4}
    expected = mufx.trace(from_callable(gpt.GPT, gpt.example_inputs, *sizes))
    for step in PASSES[: PASSES.index(find_corrections) + 1]:
        expected = step(expected)
    model = gpt.GPT(gpt.GPTConfig(n_embd=256, n_head=4))
    plan = plan_instance(model, gpt.example_inputs, GPT_GROWTH)
    assert plan.program.plan == expected.plan
    assert plan.program.corrections == expected.corrections
    assert [(label.role, label.m_in, label.m_out) for label in plan.program.labels.values()] == [
        (label.role, label.m_in, label.m_out) for label in expected.labels.values()
    ]
    assert {name: p.base_shape for name, p in plan.parameters.items()} == {
        name: tuple(p.shape) for name, p in expected.base.model.named_parameters()
    }
    assert {(f.operation, f.factor) for f in plan.forward} == {
        ("scaled_dot_product_attention", 2**-0.5),
        ("linear", 0.25),
    }


def test_groups_of_a_plan_are_what_an_optimizer_takes() -> None:
    model = gpt.GPT(gpt.GPTConfig(n_embd=256, n_head=4))
    plan = plan_instance(model, gpt.example_inputs, GPT_GROWTH)
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=1e-3, weight_decay=0.1))
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(model.wte.weight)] == 1e-3
    assert rates[id(model.get_parameter("h.0.mlp.c_fc.weight"))] == 1e-3 / 4
    assert len(rates) == len(list(model.parameters()))


def test_an_instance_does_not_say_how_it_is_built() -> None:
    program = trace_instance(nn.Linear(8, 8), torch.zeros(2, 8), {"weight:0": 2})
    with pytest.raises(MufxError, match="MUF709"):
        program.source.build()


# -- numbers ------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """A literal in the forward pass, and a buffer."""

    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.head = nn.Linear(width, 11)
        self.factor = width**-0.5
        self.register_buffer("scale", torch.tensor(float(width)) ** 0.5)

    def forward(self, idx: Tensor) -> Tensor:
        x = F.normalize(self.embed(idx), dim=-1) * self.scale
        out: Tensor = self.head(x) * self.factor
        return out


def codes(problem: pytest.ExceptionInfo[MufxError]) -> list[str]:
    return [d.code for d in problem.value.diagnostics]


IDX = torch.zeros(2, 8, dtype=torch.long)
GROW = {"embed.weight:1": 4}


def test_numbers_that_may_follow_the_width_are_asked_for() -> None:
    with pytest.raises(MufxError) as problem:
        trace_instance(Scaled(64), (IDX,), GROW)
    assert codes(problem) == ["MUF706", "MUF706"]
    first, second = problem.value.diagnostics
    assert first.place is not None
    assert first.place.file == __file__
    assert "sqrt(64)" in str(first)
    assert "1/sqrt(64)" not in str(first)
    assert "1/sqrt(64)" in str(second)
    assert f"--number {__file__.rpartition('/')[2]}:" in second.hint


class Together(nn.Module):
    """Two numbers in one line, of which one is a power of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.head = nn.Linear(width, 11)
        self.factor = width**-0.5

    def forward(self, idx: Tensor) -> Tensor:
        out: Tensor = self.head(self.embed(idx)) * self.factor * 3.0
        return out


@pytest.mark.parametrize("answer", ["grows", 0.5])
def test_an_answer_is_about_the_number_that_was_asked_for(answer: str | float) -> None:
    key = f"{Path(__file__).name}:{Together.forward.__code__.co_firstlineno + 1}"
    program = trace_instance(Together(64), (IDX,), GROW, numbers={key: answer})

    assert program.train.numbers == {("mul", 1): Number(0.25, 0.125, 0.0625)}


def test_answers_are_what_two_sizes_show() -> None:
    line = Scaled.forward.__code__.co_firstlineno + 2
    key = f"{__file__.rpartition('/')[2]}:{line}"
    program = trace_instance(Scaled(64), (IDX,), GROW, numbers={key: "grows", "scale": "grows"})
    source = mufx.Source(
        lambda **k: Scaled(**k),
        lambda batch, knobs: ((IDX,), {}),
        {"width": 16},
        {"width": 64},
        (),
        "S",
        "",
        "",
    )
    expected = mufx.trace(source)
    assert [n.ratio for n in program.train.numbers.values()] == [0.5]
    constants = [p.constants(p.train) for p in (program, expected)]
    nodes = [
        next(n for n in p.train.graph.nodes if n.target == "scale") for p in (program, expected)
    ]
    ratios = [c.magnitude(n).ratio for c, n in zip(constants, nodes, strict=True)]
    assert ratios == pytest.approx([2.0, 2.0])


def test_fixed_numbers_stay() -> None:
    line = Scaled.forward.__code__.co_firstlineno + 2
    key = f"{__file__.rpartition('/')[2]}:{line}"
    program = trace_instance(Scaled(64), (IDX,), GROW, numbers={key: "fixed", "scale": "fixed"})
    assert not program.train.numbers


def test_an_answer_that_was_not_asked_for_is_an_error() -> None:
    with pytest.raises(MufxError, match=r"nowhere\.py:3") as problem:
        trace_instance(nn.Linear(8, 8), torch.zeros(2, 8), {}, numbers={"nowhere.py:3": "fixed"})
    assert codes(problem) == ["MUF707"]


class Ratio(nn.Module):
    """A multiplier relative to base width, as in Table 8."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 64)
        self.down = nn.Linear(64, 16)
        self.factor = 16 / 64

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(torch.relu(self.up(x))) * self.factor
        return out


def test_a_number_that_equals_several_powers_needs_its_ratio() -> None:
    line = Ratio.forward.__code__.co_firstlineno + 1
    key = f"{__file__.rpartition('/')[2]}:{line}"
    grow = {"up.weight:0": 4, "down.weight:0": 0.25}  # 16 -> 64, and 64 -> 16
    ask = (Ratio(), torch.zeros(2, 8), grow)
    with pytest.raises(MufxError, match=f"{key}=0.25 or {key}=2") as problem:
        trace_instance(*ask)
    assert codes(problem) == ["MUF706"]
    with pytest.raises(MufxError) as problem:
        trace_instance(*ask, numbers={key: "grows"})
    assert codes(problem) == ["MUF707"]
    program = trace_instance(*ask, numbers={key: 0.25})
    assert [n.base for n in program.train.numbers.values()] == [1.0]


# -- what a user may get wrong ------------------------------------------------------------------


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 32)
        self.down = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).view(len(x), 4, 8).transpose(1, 2).transpose(1, 2)
        out: Tensor = self.down(y.reshape(len(x), 32))
        return out


@pytest.mark.parametrize(
    ("grow", "code", "text"),
    [
        ({"up.wieght:0": 2}, "MUF701", "did you mean up.weight:0"),
        ({"up.weight:0": 2}, "MUF702", "up.weight:0.0 * up.weight:0.1"),
        ({"up.weight:0.0": 3}, "MUF703", "no 3-fold"),
        ({"up.weight:0.0": 0}, "MUF703", "no factor"),
        ({"up.weight:0.0": 2, "down.weight:1.0": 4}, "MUF703", "2 elsewhere"),
    ],
)
def test_growth_that_cannot_be(grow: dict[str, float], code: str, text: str) -> None:
    with pytest.raises(MufxError, match=text.replace("*", r"\*")) as problem:
        trace_instance(Heads(), torch.zeros(2, 8), grow)
    assert codes(problem) == [code]


class Squared(nn.Module):
    """All products of two features."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 4)
        self.down = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        out: Tensor = self.down((y[:, :, None] * y[:, None, :]).flatten(1))
        return out


def test_an_axis_of_one_class_twice_grows_twice() -> None:
    program = trace_instance(Squared(), torch.zeros(2, 8), {"up.weight:0": 2})
    assert program.base.model.get_parameter("down.weight").shape == (8, 4)
    with pytest.raises(MufxError, match="MUF702"):
        trace_instance(Squared(), torch.zeros(2, 8), {"down.weight:1": 4})


class Strided(nn.Module):
    """Reads its features through a window, which no rule follows."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 32)
        self.down = nn.Linear(31, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).unfold(1, 2, 1).sum(-1)
        out: Tensor = self.down(y)
        return out


def test_an_axis_that_is_lost_is_an_error_only_where_it_grows() -> None:
    trace_instance(Strided(), torch.zeros(2, 8), {"down.weight:0": 2})
    with pytest.raises(MufxError, match="unfold") as problem:
        trace_instance(Strided(), torch.zeros(2, 8), {"up.weight:0": 2})
    assert codes(problem) == ["MUF704"]
    (diagnostic,) = problem.value.diagnostics
    assert diagnostic.place is not None
    assert diagnostic.place.file == __file__


class Reshaped(nn.Module):
    """Six heads of four, and four heads of six, of one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 24)
        self.six = nn.Parameter(torch.zeros(6, 1))
        self.down = nn.Parameter(torch.zeros(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        six, eight = y.view(-1, 6, 4) * self.six, y.view(-1, 8, 3) * self.down
        out: Tensor = six.sum() + eight.sum()
        return out


def test_parts_that_do_not_fit_must_grow_alike() -> None:
    with pytest.raises(MufxError) as problem:
        trace_instance(Reshaped(), torch.zeros(2, 8), {"six:0": 2})
    assert set(codes(problem)) == {"MUF705"}
