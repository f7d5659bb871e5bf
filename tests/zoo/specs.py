"""The zoo: public models at tiny sizes, one row each.

A row names a model as a user would, `hf:llama` or a factory function, and its knobs: `fixed` at
both sizes, `base`, and `target`, where widths grow by unequal factors. The dynamic checks loop
over the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from mufx.inputs import Inputs
from mufx.source import ExampleInputs, Source, from_callable, load
from tests.zoo import elsewhere

Knobs = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Spec:
    """One model: what to convert, and at which sizes.

    Attributes:
        model: A specification, or a function that builds the model from knobs.
        inputs: Example inputs; None where the adapter of the specification makes them.
        refused: The code of the diagnostic that refuses it; None where it converts.
        fast: Whether it is part of `make test`.
        lr: Learning rate at base of the dynamic check.
        steps: How many it takes.
        seeds: How many runs at each width; more where few heads are drawn at random.
        wide: How many times as wide as the row it is; more where the row has very few channels.
        departs: The ends of the nodes that depart in it, for values that a conversion keeps.
    """

    name: str
    model: str | Callable[..., nn.Module]
    base: Knobs
    target: Knobs
    fixed: Knobs = field(default_factory=dict[str, object])
    inputs: ExampleInputs | None = None
    refused: str | None = None
    fast: bool = False
    lr: float = 1e-3
    steps: int = 8
    seeds: int = 2
    wide: int = 1
    departs: frozenset[str] = frozenset()

    def source(self) -> Source:
        """What mufx converts."""
        base, target = {**self.fixed, **self.base}, {**self.fixed, **self.target}
        if isinstance(self.model, str):
            return load(self.model, base, target, self.inputs)
        assert self.inputs is not None
        return from_callable(self.model, self.inputs, base, target)

    def example(self, batch: int, *, at_target: bool = False) -> Inputs:
        """Inputs that fit."""
        source = self.source()
        return source.inputs(batch, source.target if at_target else source.base)

    def build(self, *, at_target: bool = False) -> nn.Module:
        """The original model, for real."""
        source = self.source()
        return source.build(**(source.target if at_target else source.base))


_TEXT: Knobs = {
    "vocab_size": 100,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SMALL: Knobs = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
_LARGE: Knobs = {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 8}
_GROUPED_SMALL: Knobs = {**_SMALL, "num_key_value_heads": 2}
_GROUPED_LARGE: Knobs = {**_LARGE, "num_key_value_heads": 4}
_IMAGE: Knobs = {"num_hidden_layers": 2, "image_size": 32, "patch_size": 8}
_TWO_SIDED_SMALL: Knobs = {
    "d_model": 64,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
_TWO_SIDED_LARGE: Knobs = {
    "d_model": 256,
    "encoder_ffn_dim": 768,
    "decoder_ffn_dim": 512,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
}
_TWO_SIDED: Knobs = {
    "vocab_size": 100,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_STAGES: Knobs = {"depths": [1, 1, 1, 1]}


def _decoder(name: str, fixed: Knobs | None = None, *, fast: bool = False) -> Spec:
    """A decoder with the usual names of fields, heads and their size both growing."""
    return Spec(name, f"hf:{name}", _SMALL, _LARGE, {**_TEXT, **(fixed or {})}, fast=fast)


def _grouped(
    name: str,
    fixed: Knobs | None = None,
    base: Knobs | None = None,
    target: Knobs | None = None,
    *,
    fast: bool = False,
) -> Spec:
    """The same with fewer key and value heads, which grow as well."""
    return Spec(
        name,
        f"hf:{name}",
        {**_GROUPED_SMALL, **(base or {})},
        {**_GROUPED_LARGE, **(target or {})},
        {**_TEXT, **(fixed or {})},
        fast=fast,
    )


DECODERS = (
    Spec(
        "gpt2",
        "hf:gpt2",
        {"n_embd": 64, "n_inner": 128, "n_head": 4},
        {"n_embd": 256, "n_inner": 768, "n_head": 8},
        {"vocab_size": 100, "n_layer": 2, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 1},
        fast=True,
    ),
    _grouped("llama", fast=True),
    _grouped("mistral"),
    _grouped("qwen2"),
    _grouped("qwen3", base={"head_dim": 16}, target={"head_dim": 32}),
    _grouped("gemma", base={"head_dim": 16}, target={"head_dim": 32}),
    _grouped("gemma2", base={"head_dim": 16}, target={"head_dim": 32}, fast=True),
    _grouped("gemma3_text", base={"head_dim": 16}, target={"head_dim": 32}),
    _grouped("phi3"),
    _grouped("olmo2"),
    _grouped("granite"),
    _grouped("cohere"),
    _grouped("starcoder2"),
    _grouped("stablelm"),
    _grouped("smollm3"),
    _decoder("phi"),
    _decoder("gpt_neox"),
    Spec(
        "opt",
        "hf:opt",
        {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 128, "num_attention_heads": 4},
        {"hidden_size": 256, "word_embed_proj_dim": 256, "ffn_dim": 768, "num_attention_heads": 8},
        _TEXT,
    ),
    Spec(
        "falcon",
        "hf:falcon",
        {"hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4},
        {"hidden_size": 256, "ffn_hidden_size": 768, "num_attention_heads": 8},
        _TEXT,
    ),
    Spec(
        "bloom",
        "hf:bloom",
        {"hidden_size": 64, "n_head": 4},
        {"hidden_size": 256, "n_head": 8},
        {"vocab_size": 100, "n_layer": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    ),
    Spec(
        "gptj",
        "hf:gptj",
        {"n_embd": 64, "n_inner": 128, "n_head": 4},
        {"n_embd": 256, "n_inner": 768, "n_head": 8},
        {"vocab_size": 100, "n_layer": 2, "rotary_dim": 8, "bos_token_id": 1, "eos_token_id": 1},
    ),
    _grouped("mixtral", {"num_local_experts": 4}, fast=True),
    _grouped(
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
        {"moe_intermediate_size": 32},
        {"moe_intermediate_size": 192},
    ),
    _grouped(
        "deepseek_v3",
        {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
        },
        {
            "num_key_value_heads": 4,
            "moe_intermediate_size": 32,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
        },
        {
            "num_key_value_heads": 8,
            "moe_intermediate_size": 192,
            "q_lora_rank": 64,
            "kv_lora_rank": 32,
        },
    ),
    _grouped(
        "gpt_oss",
        {"num_local_experts": 4, "num_experts_per_tok": 2},
        {"head_dim": 16},
        {"head_dim": 32},
    ),
    _grouped("olmo"),
    _grouped("nemotron"),
    replace(_grouped("diffllama"), seeds=4),
    Spec(
        "gpt_neo",
        "hf:gpt_neo",
        {"hidden_size": 64, "intermediate_size": 128, "num_heads": 4},
        {"hidden_size": 256, "intermediate_size": 768, "num_heads": 8},
        {
            "vocab_size": 100,
            "num_layers": 2,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
            "max_position_embeddings": 32,
            "bos_token_id": 1,
            "eos_token_id": 1,
        },
    ),
    Spec(
        "gpt_bigcode",
        "hf:gpt_bigcode",
        {"n_embd": 64, "n_inner": 128, "n_head": 4},
        {"n_embd": 256, "n_inner": 768, "n_head": 8},
        {"vocab_size": 100, "n_layer": 2, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 1},
    ),
    Spec(
        "mpt",
        "hf:mpt",
        {"d_model": 64, "n_heads": 4},
        {"d_model": 256, "n_heads": 8},
        {"vocab_size": 100, "n_layers": 2, "max_seq_len": 32, "expansion_ratio": 2},
    ),
    _grouped("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    _grouped(
        "qwen2_moe",
        {"num_experts": 4, "num_experts_per_tok": 2},
        {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
        {"moe_intermediate_size": 192, "shared_expert_intermediate_size": 128},
    ),
    Spec(
        "mamba",
        "hf:mamba",
        {"hidden_size": 64},
        {"hidden_size": 256},
        {**_TEXT, "state_size": 4},
        lr=4e-3,
        steps=24,
    ),
    Spec(
        "mamba2",
        "hf:mamba2",
        {"hidden_size": 64, "head_dim": 16},
        {"hidden_size": 256, "head_dim": 64},
        {**_TEXT, "state_size": 8, "num_heads": 8, "n_groups": 1, "chunk_size": 8},
        lr=4e-3,
        steps=24,
        seeds=4,
    ),
    Spec(  # A is computed as -(1, ..., heads), and kept
        "mamba2-heads",
        "hf:mamba2",
        {"hidden_size": 64, "num_heads": 8},
        {"hidden_size": 256, "num_heads": 32},
        {**_TEXT, "state_size": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
        seeds=4,
        departs=frozenset({"mixer:mul#3", "mixer:mul#6"}),
    ),
)

ENCODERS = (
    _decoder("bert", fast=True),
    _decoder("roberta"),
    _decoder("electra", {"embedding_size": 24}),
    _decoder("albert", {"embedding_size": 32}),
    _decoder("modernbert", {"cls_token_id": 1, "sep_token_id": 2}),
    _decoder("deberta-v2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    _decoder("esm", {"mask_token_id": 3, "position_embedding_type": "rotary"}),
    _decoder("roformer"),
    Spec(
        "fnet",
        "hf:fnet",
        {"hidden_size": 64, "intermediate_size": 128},
        {"hidden_size": 256, "intermediate_size": 768},
        {**_TEXT, "max_position_embeddings": 16},
        refused="MUF202",  # it takes a Fourier transform over the features
    ),
    Spec(
        "distilbert",
        "hf:distilbert",
        {"dim": 64, "hidden_dim": 128, "n_heads": 4},
        {"dim": 256, "hidden_dim": 768, "n_heads": 8},
        {"vocab_size": 100, "n_layers": 2, "pad_token_id": 0},
    ),
    Spec(
        "clip_text_model",
        "hf:clip_text_model:CLIPTextModelWithProjection",
        _SMALL,
        _LARGE,
        {**_TEXT, "projection_dim": 32},
    ),
)

ENCODER_DECODERS = (
    Spec(
        "t5",
        "hf:t5",
        {"d_model": 64, "d_ff": 128, "num_heads": 4, "d_kv": 16},
        {"d_model": 256, "d_ff": 768, "num_heads": 8, "d_kv": 32},
        {"vocab_size": 100, "num_layers": 2, "num_decoder_layers": 2, "pad_token_id": 0},
        fast=True,
    ),
    Spec("bart", "hf:bart", _TWO_SIDED_SMALL, _TWO_SIDED_LARGE, _TWO_SIDED),
    Spec("mbart", "hf:mbart", _TWO_SIDED_SMALL, _TWO_SIDED_LARGE, _TWO_SIDED),
    Spec(
        "pegasus",
        "hf:pegasus",
        _TWO_SIDED_SMALL,
        _TWO_SIDED_LARGE,
        {name: value for name, value in _TWO_SIDED.items() if name != "bos_token_id"},
    ),
    Spec("marian", "hf:marian", _TWO_SIDED_SMALL, _TWO_SIDED_LARGE, _TWO_SIDED),
    Spec(
        "whisper",
        "hf:whisper",
        _TWO_SIDED_SMALL,
        _TWO_SIDED_LARGE,
        {**_TWO_SIDED, "num_mel_bins": 8, "max_source_positions": 20},
    ),
)

VISION = (
    Spec("vit", "hf:vit", _SMALL, _LARGE, _IMAGE, fast=True),
    Spec(
        "dinov2",
        "hf:dinov2",
        {"hidden_size": 64, "num_attention_heads": 4},
        {"hidden_size": 256, "num_attention_heads": 8},
        _IMAGE,
    ),
    Spec(
        "swin",
        "hf:swin",
        {"embed_dim": 16, "num_heads": [2, 4]},
        {"embed_dim": 64, "num_heads": [4, 8]},
        {"image_size": 32, "patch_size": 2, "depths": [1, 1], "window_size": 4},
    ),
    Spec("deit", "hf:deit", _SMALL, _LARGE, _IMAGE),
    Spec("beit", "hf:beit:BeitForImageClassification", _SMALL, _LARGE, _IMAGE),
    Spec(
        "dinov3_vit",
        "hf:dinov3_vit",
        _SMALL,
        _LARGE,
        _IMAGE,
        refused="MUF103",  # it takes its table of places from a cache, made in another recording
    ),
    Spec("siglip_vision_model", "hf:siglip_vision_model", _SMALL, _LARGE, _IMAGE),
    Spec(
        "clip",
        "hf:clip",
        {"text_config": {**_SMALL, **_TEXT}, "vision_config": {**_SMALL, **_IMAGE}},
        {"text_config": {**_LARGE, **_TEXT}, "vision_config": {**_LARGE, **_IMAGE}},
        {"projection_dim": 32},
        lr=2e-3,
        steps=20,
        seeds=3,
        wide=2,
    ),
    Spec(
        "convnextv2",
        "hf:convnextv2",
        {"hidden_sizes": [8, 16, 32, 64]},
        {"hidden_sizes": [32, 96, 128, 256]},
        {**_STAGES, "image_size": 32},
    ),
    Spec(
        "regnet",
        "hf:regnet",
        {"embedding_size": 8, "hidden_sizes": [16, 32, 32, 64]},
        {"embedding_size": 32, "hidden_sizes": [64, 192, 128, 256]},
        {**_STAGES, "groups_width": 8},
    ),
    Spec(
        "poolformer",
        "hf:poolformer",
        {"hidden_sizes": [8, 16, 32, 64]},
        {"hidden_sizes": [32, 96, 128, 256]},
        _STAGES,
    ),
    Spec(
        "convnext",
        "hf:convnext",
        {"hidden_sizes": [8, 16, 32, 64]},
        {"hidden_sizes": [32, 96, 128, 256]},
        {**_STAGES, "image_size": 32},
    ),
    Spec(
        "resnet",
        "hf:resnet",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64]},
        {"embedding_size": 32, "hidden_sizes": [32, 96, 128, 256]},
        _STAGES,
        fast=True,
        lr=3e-3,
        wide=4,
    ),
    Spec(
        "bit",
        "hf:bit",
        {"embedding_size": 16, "hidden_sizes": [32, 64, 64, 128]},
        {"embedding_size": 64, "hidden_sizes": [128, 192, 256, 384]},
        {**_STAGES, "num_groups": 4},
        lr=3e-3,
        wide=4,
    ),
    Spec(
        "segformer",
        "hf:segformer",
        {"hidden_sizes": [8, 16, 32, 64], "num_attention_heads": [1, 2, 4, 8]},
        {"hidden_sizes": [32, 64, 128, 256], "num_attention_heads": [1, 2, 4, 8]},
        _STAGES,
    ),
)

_WAVES: Knobs = {
    "vocab_size": 32,
    "num_hidden_layers": 2,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "apply_spec_augment": False,
}

AUDIO = (
    Spec("wav2vec2", "hf:wav2vec2", _SMALL, _LARGE, {**_WAVES, "layerdrop": 0.0}),
    Spec("hubert", "hf:hubert", _SMALL, _LARGE, {**_WAVES, "layerdrop": 0.0}),
    Spec(
        "wav2vec2_layerdrop",
        "hf:wav2vec2",
        _SMALL,
        _LARGE,
        {**_WAVES, "layerdrop": 0.1},
        refused="MUF101",  # it draws which layers to leave out
    ),
    Spec(
        "audio-spectrogram-transformer",
        "hf:audio-spectrogram-transformer",
        _SMALL,
        _LARGE,
        {"num_hidden_layers": 2, "max_length": 64, "num_mel_bins": 32},
    ),
)

_TOKENS = torch.randint(100, (2, 16), generator=torch.Generator().manual_seed(0))
_PIXELS = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
_LATENT = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

OTHERS = (
    Spec(
        "unet2d_condition",
        elsewhere.unet2d_condition,
        {"width": 16},
        {"width": 64},
        {"context": 32},
        inputs={
            "sample": _LATENT,
            "timestep": torch.tensor([3, 5]),
            "encoder_hidden_states": torch.randn(
                2, 7, 32, generator=torch.Generator().manual_seed(0)
            ),
        },
        lr=2e-3,
        wide=2,
    ),
    Spec(
        "dit",
        elsewhere.dit,
        {"heads": 4, "head_dim": 16},
        {"heads": 8, "head_dim": 32},
        inputs={
            "hidden_states": _LATENT,
            "timestep": torch.tensor([3, 5]),
            "class_labels": torch.tensor([1, 2]),
        },
    ),
    *(
        Spec(
            name,
            elsewhere.x_decoder,
            {"dim": 64, "heads": 4, "dim_head": 16},
            {"dim": 256, "heads": 8, "dim_head": 32},
            {"flash": flash},
            inputs=(_TOKENS,),
        )
        for name, flash in (("x_decoder", False), ("x_decoder_flash", True))
    ),
    Spec(
        "monai_unet",
        elsewhere.monai_unet,
        {"channels": [8, 16, 32]},
        {"channels": [32, 96, 128]},
        inputs=(_PIXELS,),
        lr=3e-3,
        steps=30,
        wide=4,
    ),
    *(
        Spec(
            kind,
            elsewhere.Recurrent,
            {"width": 32, "hidden": 64},
            {"width": 128, "hidden": 384},
            {"kind": kind},
            inputs=(_TOKENS,),
        )
        for kind in ("rnn", "lstm", "gru")
    ),
)

SPECS: tuple[Spec, ...] = (
    *DECODERS,
    *ENCODERS,
    *ENCODER_DECODERS,
    *VISION,
    *AUDIO,
    *OTHERS,
)
