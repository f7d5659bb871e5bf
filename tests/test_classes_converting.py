"""`convert` of one instance, against the conversion of its class at two sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import mufx
from examples import encoder, gpt, llama, mlp, resnet
from mufx import cli, manifest
from mufx.classes import convert_instance
from mufx.diagnostics import MufxError

GROWTH: dict[str, dict[str, float]] = {
    "mlp": {"fc1.weight:0": 8, "fc2.weight:0": 8},
    "gpt": {
        "residual": 4,
        "h.*.mlp.c_fc.weight:0": 4,
        "h.*.attn.c_proj.weight:1.0": 2,
        "h.*.attn.c_proj.weight:1.1": 2,
        "h.*.attn.c_attn.weight:0.0.1": 2,
    },
    "resnet": {
        "conv.weight:0": 4,
        "stage1.*.conv1.weight:0": 4,
        "stage2.0.conv2.weight:0": 4,
        "stage2.*.conv1.weight:0": 4,
        "stage3.0.conv2.weight:0": 4,
        "stage3.*.conv1.weight:0": 4,
    },
}
LAWS: dict[str, dict[str, str | float]] = {
    "mlp": {"*": "fan_in"},
    "gpt": {"*": "fixed"},
    "resnet": {"conv.weight": 0.5, "*": "fan_in"},  # the stem is drawn by its fan-out
}
SIZES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "mlp": ({"width": 64}, {"width": 512}),
    "gpt": ({"n_embd": 64, "n_head": 2}, {"n_embd": 256, "n_head": 4}),
    "resnet": ({"width": 16}, {"width": 64}),
}
MODULES = {"mlp": mlp, "gpt": gpt, "resnet": resnet}


def built(name: str, knobs: Mapping[str, int]) -> nn.Module:
    torch.manual_seed(0)
    if name == "gpt":
        return gpt.GPT(gpt.GPTConfig(n_embd=knobs["n_embd"], n_head=knobs["n_head"]))
    made: nn.Module = {"mlp": mlp.MLP, "resnet": resnet.ResNet}[name](**knobs)
    return made


def forward(text: str) -> list[str]:
    """The lines of an emitted file without its header and its init."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("class "))
    init = next(i for i, line in enumerate(lines) if "def init_weights" in line)
    after = next(i for i in range(init, len(lines)) if "def forward" in lines[i])
    return lines[start:init] + lines[after:]


@pytest.mark.parametrize("name", GROWTH)
def test_an_instance_converts_as_its_class_does(name: str) -> None:
    base, target = SIZES[name]
    module, model = MODULES[name], built(name, target)
    expected = mufx.convert(
        {"mlp": mlp.MLP, "gpt": gpt.GPT, "resnet": resnet.ResNet}[name],
        module.example_inputs,
        base,
        target,
    )

    found = convert_instance(model, module.example_inputs, GROWTH[name], inits=LAWS[name])

    assert forward(found.text) == forward(expected.text)
    exactly = ("role", "shape", "base_shape", "multiplier", "init_scale", "lr_scale", "group")
    for parameter, wanted in expected.manifest.parameters.items():
        entry = found.manifest.parameters[parameter]
        assert {k: getattr(entry, k) for k in exactly} == {k: getattr(wanted, k) for k in exactly}
        assert entry.init_correction == pytest.approx(wanted.init_correction)
        assert entry.init_size == pytest.approx(wanted.init_size, rel=0.4)  # as few as 10 entries


def test_what_grows_nowhere_is_emitted_as_it_is() -> None:
    model = built("gpt", SIZES["gpt"][1]).eval()
    emitted = convert_instance(model, gpt.example_inputs, {}, inits={"*": "fixed"}).module().eval()
    emitted.load_state_dict(model.state_dict())
    inputs = gpt.example_inputs(batch=3)

    torch.testing.assert_close(emitted(*inputs), model(*inputs), rtol=0, atol=0)


def test_an_inner_width_grows_alone() -> None:
    torch.manual_seed(0)
    model = encoder.Encoder(**encoder.target)
    grow = {"encoder.layers.*.linear1.weight:0": 2.0}

    found = convert_instance(model, encoder.example_inputs, grow, inits={"*": "fixed"})

    scaled = {n for n, e in found.manifest.parameters.items() if e.init_scale != 1}
    assert {name.rsplit(".", 2)[1] for name in scaled} == {"linear2"}
    found.module().load_state_dict(model.state_dict())


# -- questions and refusals ---------------------------------------------------------------------


class Drawn(nn.Module):
    """A readin, a readout and a gain."""

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.read = nn.Linear(4, 64, bias=False)
        self.gain = nn.Parameter(gain)
        self.write = nn.Linear(64, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.write(torch.relu(self.read(x)) * self.gain)
        return out


def refused(gain: Tensor, inits: Mapping[str, str | float] | None) -> list[str]:
    with pytest.raises(MufxError) as caught:
        convert_instance(Drawn(gain), (torch.zeros(2, 4),), {"read.weight:0": 4}, inits=inits)
    return [f"{d.code}: {d.message}" for d in caught.value.diagnostics]


ONES = torch.ones(64)


def test_every_draw_is_asked_for() -> None:
    torch.manual_seed(0)
    asked = refused(ONES, None)

    assert [line.split(" starts")[0] for line in asked] == [
        "MUF711: read.weight",
        "MUF711: write.weight",
    ]


def test_a_constant_that_equals_a_power_of_the_width_is_asked_for() -> None:
    (asked,) = refused(torch.full((64,), 0.125), {"*.weight": "fan_in"})

    assert asked == (
        "MUF711: gain is 0.125, 1/sqrt(64) of a size that grows: how does that follow the width?"
    )


@pytest.mark.parametrize(
    ("inits", "message"),
    [
        ({"*": "wider"}, "'wider' is neither fixed nor fan_in nor a positive number"),
        ({"*": -1.0}, "-1.0 is neither fixed nor fan_in nor a positive number"),
        ({"*": "fixed", "raed.weight": "fixed"}, "no parameter is called raed.weight"),
        (
            {"*": "fixed", "gain": "fan_in"},
            "gain has no fan-in: no operation contracts it, or what it is added to",
        ),
    ],
)
def test_an_answer_that_does_not_fit(inits: dict[str, str | float], message: str) -> None:
    assert f"MUF712: {message}" in refused(ONES, inits)


@pytest.mark.parametrize(
    ("gain", "message"),
    [
        (torch.linspace(0.5, 1.5, 64), "gain has mean 1 and root mean square 1.04"),
        (torch.randn(64) * torch.arange(64).clamp(max=1), "gain is 0 in some entries"),
        (torch.tensor([1.0, float("nan")] * 32), "gain holds values that are not finite"),
    ],
    ids=["trained", "partly zero", "not finite"],
)
def test_values_that_tell_no_init(gain: Tensor, message: str) -> None:
    (told,) = refused(gain, {"*": "fixed"})

    assert told.startswith(f"MUF713: {message}")


def test_a_table_of_numbers_is_refused() -> None:
    """The angles of rotary embeddings: the instance has the cosines, not how they come about."""
    model = llama.Llama(llama.LlamaConfig(**llama.base))
    grow = {"layers.*.mlp.w_up.weight:0": 2.0}
    with pytest.raises(MufxError, match="MUF713: cos is a table of"):
        convert_instance(model, llama.example_inputs, grow, inits={"*": "fixed"})


def test_equal_layers_have_one_standard_deviation() -> None:
    """0.02 is what thousands of draws are sure of, and not the digits of each layer."""
    text = convert_instance(
        built("gpt", SIZES["gpt"][1]), gpt.example_inputs, GROWTH["gpt"], inits=LAWS["gpt"]
    ).text

    draws = [line for line in text.splitlines() if "nn.init.normal_" in line and "block." in line]
    assert len(draws) == 4
    assert "nn.init.normal_(self.wte.weight, std=0.02, generator=generator)" in text


# -- the command --------------------------------------------------------------------------------

LIVE = """
import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def example_inputs(batch=2):
    return (torch.zeros(batch, 4),)
"""


def test_the_command_converts_an_instance(tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(LIVE)
    out = tmp_path / "out"
    words = ["convert", f"{tmp_path}/live.py:net", "--grow", "0.weight:0=4", "--grow",
             "2.weight:0=4", "--init", "*=fan_in", "-o", str(out), "--json"]  # fmt: skip

    result = CliRunner().invoke(cli.app, words)

    assert (result.exit_code, result.exception) == (0, None)
    assert json.loads(result.stdout)["written"] == [
        str(out / name) for name in ("model_mup.py", "optim_mup.py", "manifest.json")
    ]
    found = manifest.load(out / "manifest.json")
    assert found.parameters["2.weight"].lr_scale == 0.25
