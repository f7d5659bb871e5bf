"""An adapter: what mufx has to know of models that a library builds from a configuration.

mufx convert examples/custom_adapter.py -o out/gpt2
mufx convert examples/custom_adapter.py --base width=64 --target width=1024

It says how to build the model from a few knobs, and which inputs to record it with. Knobs that
belong together are one here: the width moves the number of heads and the feed-forward layer, and
the size of a head is fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

base = {"width": 64}
target = {"width": 256}

HEAD = 32


def build(width: int = 64, layers: int = 2) -> nn.Module:
    """GPT-2 without dropout, with heads of a fixed size."""
    config = GPT2Config(
        n_embd=width,
        n_head=width // HEAD,
        n_inner=4 * width,
        n_layer=layers,
        vocab_size=256,
        n_positions=128,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model: nn.Module = GPT2LMHeadModel(config)
    return model


def example_inputs(batch: int = 2) -> dict[str, Tensor]:
    """By the names of forward's parameters: those that training uses."""
    tokens = torch.randint(0, 256, (batch, 16))
    return {"input_ids": tokens, "labels": tokens}
