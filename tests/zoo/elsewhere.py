"""Models of other libraries, as functions of their widths."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor, nn


def package(name: str) -> Any:
    """A library of the extra `zoo`: without it the types of this file can be checked as well."""
    return import_module(name)


def unet2d_condition(width: int, context: int) -> nn.Module:
    """diffusers: a denoiser with cross-attention to a context; `width` is of the first level."""
    model: nn.Module = package("diffusers").UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(width, 2 * width),
        layers_per_block=1,
        cross_attention_dim=context,
        attention_head_dim=4,  # counts heads here, so that their size grows
        norm_num_groups=4,
    )
    return model


def dit(heads: int, head_dim: int) -> nn.Module:
    """diffusers: a diffusion transformer with adaptive norms, class-conditional."""
    model: nn.Module = package("diffusers").DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=4,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_num_groups=4,
    )
    return model


def x_decoder(dim: int, heads: int, dim_head: int, flash: bool) -> nn.Module:
    """x-transformers: a decoder, with attention spelled out or by one kernel."""
    library = package("x_transformers")
    layers: Any = library.Decoder(
        dim=dim, depth=2, heads=heads, attn_dim_head=dim_head, attn_flash=flash, ff_mult=3
    )
    model: nn.Module = library.TransformerWrapper(
        num_tokens=100, max_seq_len=32, attn_layers=layers
    )
    return model


def monai_unet(channels: list[int]) -> nn.Module:
    """monai: a residual U-Net with strided convolutions."""
    model: nn.Module = package("monai.networks.nets").UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=3,
        channels=channels,
        strides=(2, 2),
        num_res_units=1,
    )
    return model


class Recurrent(nn.Module):
    """A recurrent layer of torch between an embedding and a readout."""

    def __init__(self, kind: str, width: int, hidden: int, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, width)
        made = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.layers: Any = made(width, hidden, layers, batch_first=True)
        self.readout = nn.Linear(hidden, 100)

    def forward(self, tokens: Tensor) -> Tensor:
        states: Tensor = self.layers(self.embedding(tokens))[0]
        logits: Tensor = self.readout(states)
        return logits
