"""`mufx.apply` on models of transformers: they train as the emitted modules do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import mufx
from mufx.manifest import Manifest

pytestmark = pytest.mark.zoo

VOCABULARY, STEPS = 61, 5


def gpt2(width: int, heads: int) -> nn.Module:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=32,
        n_embd=width,
        n_layer=2,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model: nn.Module = GPT2LMHeadModel(config)
    return model


def llama(width: int, heads: int, tied: bool = True) -> nn.Module:
    model: nn.Module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
        )
    )
    return model


def qwen3(width: int, heads: int) -> nn.Module:
    model: nn.Module = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            head_dim=width // heads,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )
    return model


@dataclass(frozen=True)
class Case:
    """A model, its sizes, and the parameters of its first layer that take over factors."""

    build: Callable[..., nn.Module]
    base: Mapping[str, int]
    target: Mapping[str, int]
    absorbs: Mapping[str, float] = field(default_factory=dict)


SQRT = 0.5**0.5
CASES = {
    "GPT-2, more heads": Case(gpt2, {"width": 32, "heads": 2}, {"width": 128, "heads": 8}),
    "GPT-2, larger heads": Case(
        gpt2,
        {"width": 32, "heads": 2},
        {"width": 64, "heads": 2},
        {
            "transformer.h.0.attn.c_attn.weight": 0.5**0.25,
            "transformer.h.0.attn.c_attn.bias": 0.5**0.25,
            "transformer.h.0.attn.c_proj.weight": 2**0.25,
        },
    ),
    "Llama, more heads": Case(llama, {"width": 32, "heads": 4}, {"width": 64, "heads": 8}),
    "Llama, larger heads": Case(
        llama,
        {"width": 32, "heads": 4},
        {"width": 64, "heads": 4},
        {"model.layers.0.self_attn.q_proj.weight": SQRT},
    ),
    "Llama, untied": Case(
        partial(llama, tied=False),
        {"width": 32, "heads": 4},
        {"width": 64, "heads": 4},
        {"model.layers.0.self_attn.q_proj.weight": SQRT},
    ),
    "Qwen3, larger heads": Case(
        qwen3,
        {"width": 32, "heads": 4},
        {"width": 64, "heads": 4},
        {"model.layers.0.self_attn.q_norm.weight": SQRT},
    ),
}
Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, tuple[Make, dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-5}),
    "sgd": (lambda g: torch.optim.SGD(g, momentum=0.9), {"lr": 0.05, "weight_decay": 0.1}),
}


def train(model: nn.Module, manifest: Manifest, optimizer: str) -> Tensor:
    make, values = OPTIMIZERS[optimizer]
    opt = make(mufx.param_groups(model, manifest, **values))
    generator = torch.Generator().manual_seed(0)
    loss = torch.zeros(())
    for _ in range(STEPS):
        tokens = torch.randint(VOCABULARY, (2, 12), generator=generator)
        logits = model(input_ids=tokens).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        opt.zero_grad()
        torch.autograd.backward(loss)
        mufx.clip_grad_norm_(model, manifest, 1.0)
        opt.step()
    return loss.detach()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CASES)
def test_trains_as_the_emitted_module_does(name: str, optimizer: str) -> None:
    case = CASES[name]
    inputs = {"input_ids": torch.zeros(2, 8, dtype=torch.long)}
    conversion = mufx.convert(case.build, inputs, case.base, case.target, optimizer=optimizer)
    entries = conversion.manifest.parameters
    first = {n: e.absorbed for n, e in entries.items() if ".0." in n and e.absorbed != 1.0}
    assert first == pytest.approx(case.absorbs)

    torch.manual_seed(3)
    model = case.build(**case.target)
    plan = mufx.apply(model, conversion.manifest)
    emitted = conversion.module(seed=3).double().train()
    model.double().train()
    for key, parameter in model.named_parameters():
        wanted = emitted.get_parameter(key) * entries[key].absorbed
        torch.testing.assert_close(parameter, wanted, rtol=1e-6, atol=0.0)
        parameter.data.copy_(wanted)

    start = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    losses = train(model, plan, optimizer), train(emitted, conversion.manifest, optimizer)
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0.0)
    for key, parameter in model.named_parameters():
        assert (parameter - emitted.get_parameter(key) * entries[key].absorbed).abs().max() < 1e-10
    moved = (float((p - start[key]).detach().abs().max()) for key, p in model.named_parameters())
    assert min(moved) > 0


def test_generates() -> None:
    case = CASES["Llama, larger heads"]
    inputs = {"input_ids": torch.zeros(2, 8, dtype=torch.long)}
    manifest = mufx.convert(case.build, inputs, case.base, case.target).manifest
    model: Any = case.build(**case.target)
    mufx.apply(model, manifest)
    prompt = torch.arange(4)[None]
    found = model.eval().generate(prompt, max_new_tokens=4, do_sample=False)
    for length in range(4, 8):  # with a cache as without
        logits = model(input_ids=found[:, :length]).logits
        assert int(logits[0, -1].argmax()) == int(found[0, length])
