"""Inputs that are as wide as the model: a block that takes hidden states."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import mufx
from mufx.check.experiment import planned
from mufx.check.request import Request
from mufx.cli import app
from mufx.inputs import parse_input
from mufx.program import Role
from mufx.recorder import tensors
from mufx.sweep.batches import batches, load_data


class Attending(nn.Module):
    """Attends from what it is given to a context of another width, which grows too."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context, width)
        self.value = nn.Linear(context, width)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        heads = (-1, 2, h.shape[-1] // 2)
        q, k, v = (
            x.unflatten(-1, heads[1:]).transpose(1, 2)
            for x in (self.query(h), self.key(context), self.value(context))
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return h + self.gain * mixed.transpose(1, 2).flatten(2)


def states(batch: int = 2, width: int = 8, context: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 5, width, generator=generator),
        torch.randn(batch, 7, context, generator=generator),
    )


def test_weights_that_contract_a_growing_input_are_hidden() -> None:
    base, target = {"width": 16, "context": 8}, {"width": 64, "context": 16}

    conversion = mufx.convert(Attending, states, base, target)

    labels = conversion.program.labels
    roles = {name: label.role for name, label in labels.items() if name.endswith("weight")}
    assert roles == dict.fromkeys(("query.weight", "key.weight", "value.weight"), Role.HIDDEN)
    assert (labels["key.weight"].m_in, labels["key.weight"].m_out) == (2, 4)
    assert labels["gain"].role is Role.INPUT
    out = conversion.module()(*states(3, **target))
    assert out.shape == (3, 5, 64)
    assert conversion.program.diagnostics == ()


def test_at_base_it_is_the_original() -> None:
    sizes = {"width": 16, "context": 8}

    conversion = mufx.convert(Attending, states, sizes, sizes, vary=("width", "context"))

    torch.manual_seed(0)
    original = Attending(**sizes)
    inputs = states(3, **sizes)
    assert torch.equal(conversion.module(seed=0)(*inputs), original(*inputs))


SOURCE = """
from torch import nn

class Block(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, h):
        return h + self.down(self.up(self.norm(h)).relu())
"""


def test_the_commands_build_inputs_at_every_width(tmp_path: Path) -> None:
    file = tmp_path / "block.py"
    file.write_text(SOURCE)
    options = ["--base", "width=16", "--target", "width=64", "--input", "h:float32[batch,5,width]"]

    for command, status in (
        (["convert", str(file), *options, "-o", str(tmp_path / "out")], 0),
        (["explain", str(file), "up.weight", *options], 0),
        (["audit", str(file), *options], 1),  # in standard parametrization
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == status, done.output


def test_a_check_makes_no_classes_of_an_output_that_is_as_wide_as_the_model(tmp_path: Path) -> None:
    file = tmp_path / "block.py"
    file.write_text(SOURCE)
    sizes = ["--base", "width=16", "--target", "width=64", "--widths", "16,32,64,128"]

    done = CliRunner().invoke(
        app, ["check", str(file), *sizes, "--input", "h:float32[batch,5,width]"]
    )

    assert done.exit_code == 2
    assert "MUF755: forward returns no loss, and its output is as wide as the model" in done.output


LABELLED = """

def data(batch, width):
    while True:
        h = torch.randn(batch, 5, width)
        yield h, h[..., 0].lt(0).long()


class Classifier(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.block = Block(width)
        self.readout = nn.Linear(width, 2)

    def forward(self, h):
        return self.readout(self.block(h))
"""


def test_data_is_given_the_knobs_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "classifier.py"
    file.write_text("import torch\n" + SOURCE + LABELLED)
    sizes = {"width": 16}, {"width": 64}
    source = mufx.load(f"{file}:Classifier", *sizes, [parse_input("h:float32[batch,5,width]")])
    data = load_data(f"{file}:data")

    for width in (16, 64):
        (args, _), _ = batches(data, 3, 2, torch.device("cpu"), {"width": width})
        assert [tuple(a.shape) for a in tensors(args)] == [(3, 5, width), (3, 5)]
    request = Request(widths=(16, 32, 64, 128), steps=4, seeds=1)
    assert planned(source, request, data).feed.data is data
