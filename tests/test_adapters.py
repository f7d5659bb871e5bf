"""Specifications with a scheme: `hf:llama`, and adapters of others."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import mufx
from mufx import adapters
from mufx.adapters import Adapted
from mufx.cli import app
from mufx.diagnostics import Diagnostic, MufxError
from mufx.factory import factory_of

BASE = {"hidden_size": 64, "num_attention_heads": 4}
TARGET = {"hidden_size": 128, "num_attention_heads": 8}


def refusal(spec: str, base: Mapping[str, object], target: Mapping[str, object]) -> Diagnostic:
    with pytest.raises(MufxError) as caught:
        mufx.load(spec, base, target)
    return caught.value.diagnostics[0]


def test_a_model_type_is_its_language_model_and_tokens_below_its_vocabulary() -> None:
    source = mufx.load("hf:llama", {**BASE, "vocab_size": 50}, {**TARGET, "vocab_size": 50})

    args, inputs = source.inputs(3, source.base)
    tokens = inputs["input_ids"]

    assert source.name == "LlamaForCausalLM"
    assert args == ()
    assert isinstance(tokens, Tensor)
    assert tokens.shape == (3, 16)
    assert int(tokens.max()) < 50


def test_the_class_can_be_named() -> None:
    assert mufx.load("hf:llama:LlamaModel", BASE, TARGET).name == "LlamaModel"


@pytest.mark.parametrize(
    ("kind", "name", "inputs"),
    [
        ("bert", "BertForMaskedLM", {"input_ids": (2, 16)}),
        (
            "whisper",
            "WhisperForConditionalGeneration",
            {"input_features": (2, 80, 3000), "decoder_input_ids": (2, 16)},
        ),
        ("vit", "ViTForImageClassification", {"pixel_values": (2, 3, 224, 224)}),
        ("clip", "CLIPModel", {"input_ids": (2, 16), "pixel_values": (2, 3, 224, 224)}),
        ("wav2vec2", "Wav2Vec2ForCTC", {"input_values": (2, 6400)}),
    ],
)
def test_the_inputs_are_what_the_model_takes(
    kind: str, name: str, inputs: Mapping[str, tuple[int, ...]]
) -> None:
    from mufx.adapters.huggingface import adapt

    made = adapt(kind)

    assert made.factory.name == name
    shapes = {k: tuple(v.shape) for k, v in made.inputs({}, 2).items() if isinstance(v, Tensor)}
    assert shapes == inputs


def test_a_field_has_the_names_that_its_configuration_gives_it() -> None:
    sizes = ({"hidden_size": 64, "n_head": 4}, {"hidden_size": 128, "n_head": 8})

    with torch.device("meta"):
        model = mufx.load("hf:gpt2", *sizes).build(**sizes[1])

    assert model.get_parameter("transformer.wte.weight").shape[1] == 128


def test_positions_without_an_end_leave_the_length_open() -> None:
    sizes = (
        {"d_model": 64, "n_head": 4, "n_layer": 1},
        {"d_model": 128, "n_head": 8, "n_layer": 1},
    )
    tokens = mufx.load("hf:xlnet", *sizes).inputs(2, sizes[0])[1]["input_ids"]
    assert isinstance(tokens, Tensor)
    assert tokens.shape == (2, 16)


def test_a_field_that_every_configuration_takes() -> None:
    fixed = {"num_hidden_layers": 1, "vocab_size": 50, "pad_token_id": 1}
    sizes = ({"hidden_size": 64, **fixed}, {"hidden_size": 128, **fixed})
    assert mufx.load("hf:rwkv", *sizes).base["pad_token_id"] == 1


LLAMA = "hidden_size=64,intermediate_size=128,num_attention_heads=4,num_hidden_layers=1"


def test_one_instance_of_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hf.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.chdir(tmp_path)
    knobs = f"{LLAMA},vocab_size=50"

    listed = CliRunner().invoke(app, ["classes", "hf:llama", "--target", knobs, "--json"])

    assert listed.exit_code == 0, listed.output
    rows = {row["alias"]: row["sizes"] for row in json.loads(listed.stdout)["rows"]}
    assert rows["residual"] == [64]
    audited = ["audit", "hf:llama", "--target", knobs, "--grow", "residual=2", "--json"]
    judged = CliRunner().invoke(app, audited)
    assert judged.exit_code == 1, judged.output
    assert json.loads(judged.stdout)["parameters"]["lm_head.weight"]["role"] == "output"


def test_an_unknown_field_of_one_instance() -> None:
    listed = CliRunner().invoke(app, ["classes", "hf:llama", "--target", "hiden_size=64", "--json"])
    assert listed.exit_code == 2
    assert "did you mean hidden_size?" in listed.output


def test_an_unknown_model_type() -> None:
    problem = refusal("hf:lama", BASE, TARGET)
    assert problem.code == "MUF001"
    assert "did you mean llama?" in problem.hint


def test_an_unknown_class() -> None:
    problem = refusal("hf:llama:LlamaForCausalML", BASE, TARGET)
    assert problem.code == "MUF003"
    assert "did you mean LlamaForCausalLM?" in problem.hint


def test_an_unknown_field() -> None:
    problem = refusal("hf:llama", {"hiden_size": 64}, {"hiden_size": 128})
    assert problem.code == "MUF007"
    assert problem.place is not None
    assert problem.place.cls == "LlamaForCausalLM"
    assert "did you mean hidden_size?" in problem.hint


def test_a_configuration_that_the_model_does_not_accept() -> None:
    problem = refusal("hf:llama", {**BASE, "hidden_act": "?"}, {**TARGET, "hidden_act": "?"})
    assert problem.code == "MUF011"


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    problem = refusal("hf:llama", BASE, TARGET)
    assert problem.code == "MUF017"
    assert "pip install 'mufx[hf]'" in problem.hint


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(7, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


def adapt_net(rest: str) -> Adapted:
    def inputs(knobs: Mapping[str, object], batch: int) -> Mapping[str, object]:
        return {"x": torch.zeros(batch, 7)}

    assert rest == "net"
    return Adapted(factory_of(Net), inputs, sys.modules[__name__])


def registered(monkeypatch: pytest.MonkeyPatch, scheme: str, where: str) -> None:
    point = EntryPoint(scheme, where, "mufx.adapters")
    monkeypatch.setattr(adapters, "entry_points", lambda group: [point])


def installed(folder: Path, body: str) -> None:
    """A package whose metadata registers an adapter, as pip leaves it in a folder of packages."""
    metadata = folder / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mufx.adapters]\nmine = theirs:adapt\n")
    (folder / "theirs.py").write_text(body)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("theirs", None)


def test_an_adapter_of_another_package(packages: Path) -> None:
    installed(packages, f"from {__name__} import adapt_net as adapt\n")

    source = mufx.load("mine:net", {"width": 8}, {"width": 16})

    assert source.name == "Net"
    assert source.spec == "mine:net"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("def adapt(rest):\n    return {}[rest]\n", "raised on 'net': KeyError: 'net'"),
        ("def adapt(rest):\n    return rest\n", "returns a str, not an Adapted"),
        ("def adopt(rest):\n    pass\n", "cannot be imported"),
        ("1 / 0\n", "cannot be imported: division by zero"),
    ],
)
def test_an_adapter_that_fails_is_named(packages: Path, body: str, why: str) -> None:
    installed(packages, body)
    problem = refusal("mine:net", {"width": 8}, {"width": 16})
    assert problem.code == "MUF017"
    assert f"mine: is theirs:adapt, which {why}" in problem.message
    assert "the package that registers it" in problem.hint


def test_what_an_adapter_refuses_is_its_own(packages: Path) -> None:
    body = "from mufx.adapters.huggingface import adapt as hf\nadapt = lambda rest: hf('lama')\n"
    installed(packages, body)
    assert refusal("mine:net", {"width": 8}, {"width": 16}).code == "MUF001"


def test_an_adapter_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "mine", "not_there:adapt")
    problem = refusal("mine:net", {"width": 8}, {"width": 16})
    assert problem.code == "MUF017"
    assert "not_there:adapt" in problem.message


def test_inputs_that_an_adapter_cannot_make(monkeypatch: pytest.MonkeyPatch) -> None:
    def adapt(rest: str) -> Adapted:
        return Adapted(factory_of(Net), lambda knobs, batch: {"x": torch.zeros(-batch)}, home)

    home = sys.modules[__name__]
    monkeypatch.setattr(home, "adapt_wrongly", adapt, raising=False)
    registered(monkeypatch, "mine", f"{__name__}:adapt_wrongly")

    problem = refusal("mine:net", {"width": 8}, {"width": 16})

    assert problem.code == "MUF013"
    assert "no example inputs for mine:net: its adapter raised RuntimeError" in problem.message
    assert "--input" in problem.hint
    assert problem.place is not None
    assert (problem.place.file, problem.place.cls) == (__file__, "Net")


def test_ours_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "hf", "not_there:adapt")
    assert mufx.load("hf:llama", BASE, TARGET).name == "LlamaForCausalLM"
