"""Specifications with a scheme: `hf:llama`, and adapters of others."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import mufx
from mufx import adapters
from mufx.adapters import Adapted
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

    args, inputs = source.inputs(3)
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


def test_an_adapter_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    home = ModuleType("their_package")
    vars(home)["adapt"] = adapt_net
    monkeypatch.setitem(sys.modules, "their_package", home)
    registered(monkeypatch, "mine", "their_package:adapt")

    source = mufx.load("mine:net", {"width": 8}, {"width": 16})

    assert source.name == "Net"
    assert source.spec == "mine:net"


def test_an_adapter_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "mine", "not_there:adapt")
    problem = refusal("mine:net", {"width": 8}, {"width": 16})
    assert problem.code == "MUF017"
    assert "not_there:adapt" in problem.message


def test_ours_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "hf", "not_there:adapt")
    assert mufx.load("hf:llama", BASE, TARGET).name == "LlamaForCausalLM"
