"""Classes of one instance against two sizes of it, on models of `transformers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.agreement import Pair, disagreements

pytestmark = pytest.mark.zoo

TEXT = {"num_hidden_layers": 2, "vocab_size": 64, "max_position_embeddings": 64}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
LARGE = {"hidden_size": 64, "intermediate_size": 112, "num_attention_heads": 8}
MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
VISION = {"image_size": 32, "num_hidden_layers": 2, "patch_size": 8}


@dataclass(frozen=True)
class Sizes:
    """A model of transformers at two sizes: class names, and configs."""

    model: str
    config: str
    base: dict[str, Any]
    target: dict[str, Any]
    images: bool = False

    def pair(self) -> Pair:
        inputs: dict[str, object] = {"input_ids": torch.zeros(2, 12, dtype=torch.long)}
        if self.images:
            inputs = {"pixel_values": torch.zeros(2, 3, 32, 32)}
        return Pair(self._build(self.base), self._build(self.target), ((), inputs))

    def _build(self, knobs: dict[str, Any]) -> nn.Module:
        config = getattr(transformers, self.config)(**knobs)
        if not self.images and hasattr(config, "use_cache"):
            config.use_cache = False
        with torch.device("meta"):
            model: nn.Module = getattr(transformers, self.model)(config)
        return model


def decoder(name: str, base: dict[str, Any], target: dict[str, Any], **same: object) -> Sizes:
    fixed = {**TEXT, **same}
    return Sizes(
        f"{name}ForCausalLM", f"{name}Config", {**fixed, **SMALL, **base},
        {**fixed, **LARGE, **target},
    )  # fmt: skip


KV = {"num_key_value_heads": 2}
MLA = {
    "kv_lora_rank": 8, "q_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 8, "n_group": 2, "topk_group": 1,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1,
}  # fmt: skip

ZOO = {
    "gpt2": Sizes(
        "GPT2LMHeadModel", "GPT2Config",
        {"n_embd": 32, "n_head": 2, "n_layer": 2, "vocab_size": 64},
        {"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 64},
    ),
    "llama, fixed kv heads": decoder("Llama", KV, KV),
    "mistral, heads grow": decoder(
        "Mistral", {**KV, "head_dim": 8}, {"num_key_value_heads": 4, "head_dim": 8}
    ),
    "qwen3, heads and head_dim grow": decoder(
        "Qwen3", {**KV, "head_dim": 8}, {"num_key_value_heads": 4, "head_dim": 16}
    ),
    "gemma2, softcap": decoder("Gemma2", {**KV, "head_dim": 8}, {**KV, "head_dim": 24}),
    "phi3, fused rows": decoder(
        "Phi3", KV, {"num_key_value_heads": 4}, pad_token_id=0
    ),
    "olmo2, norms of heads": decoder("Olmo2", KV, {"num_key_value_heads": 4}),
    "gpt_neox, interleaved rows": decoder(
        "GPTNeoX", {"num_attention_heads": 2}, {"num_attention_heads": 2}
    ),
    "falcon, rows of one kv head": decoder("Falcon", {}, {}),
    "opt": decoder(
        "OPT", {"word_embed_proj_dim": 32, "ffn_dim": 48},
        {"word_embed_proj_dim": 64, "ffn_dim": 112},
    ),
    "mixtral": decoder("Mixtral", KV, KV, **MOE),
    "gpt_oss, sinks": decoder("GptOss", {**KV, "head_dim": 8}, {**KV, "head_dim": 16}, **MOE),
    "deepseek_v3, low ranks": decoder(
        "DeepseekV3", {"num_key_value_heads": 4, "moe_intermediate_size": 16},
        {"num_key_value_heads": 8, "moe_intermediate_size": 40}, **MLA,
    ),
    "mamba": decoder("Mamba", {}, {}, state_size=4),
    "mamba2": decoder(
        "Mamba2", {"num_heads": 8}, {"num_heads": 16}, state_size=4, head_dim=8, n_groups=1
    ),
    "bert": Sizes("BertForMaskedLM", "BertConfig", {**TEXT, **SMALL}, {**TEXT, **LARGE}),
    "vit": Sizes(
        "ViTForImageClassification", "ViTConfig", {**VISION, **SMALL}, {**VISION, **LARGE}, True
    ),
    "resnet": Sizes(
        "ResNetForImageClassification", "ResNetConfig",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
        {"embedding_size": 32, "hidden_sizes": [32, 96], "depths": [1, 1]}, True,
    ),
    "convnext": Sizes(
        "ConvNextForImageClassification", "ConvNextConfig",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32},
        {"hidden_sizes": [16, 32, 48, 96], "depths": [1, 1, 1, 1], "image_size": 32}, True,
    ),
    "swin": Sizes(
        "SwinForImageClassification", "SwinConfig",
        {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "image_size": 32,
         "patch_size": 2, "window_size": 4},
        {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "image_size": 32,
         "patch_size": 2, "window_size": 4}, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_classes_and_two_sizes_agree(name: str) -> None:
    wrong, count = disagreements(ZOO[name].pair())
    assert not wrong, f"{len(wrong)} nodes, {count} axes"
    assert count > 200
