"""Example inputs for a model of `transformers`, from its configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_TOKENS = 16
_IMAGE = 64  # pixels a side, where the configuration leaves it open
_FRAMES = 40  # of a spectrogram


def example_inputs(model: type[nn.Module], config: Any, batch: int) -> dict[str, object]:
    """The main input of the model, and what forward needs beside it; no masks.

    Token ids (batch, 16), images (batch, channels, height, width), waveforms (batch, samples),
    spectrograms as the configuration describes them.
    """
    generator = torch.Generator().manual_seed(0)
    parameters = inspect.signature(model.forward).parameters
    names = [n for n in _wanted(model, config) if n in parameters]
    return {name: _MAKERS[name](config, batch, generator) for name in names if name in _MAKERS}


def _wanted(model: type[nn.Module], config: Any) -> list[str]:
    main = str(getattr(model, "main_input_name", "input_ids"))
    wanted = [main]
    if getattr(config, "is_encoder_decoder", False):
        wanted.append("decoder_input_ids")
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        wanted += ["pixel_values"] if not hasattr(model, "generate") else []
    return wanted


def _part(config: Any, name: str) -> Any:
    """The part of a composed configuration that describes one kind of input."""
    return getattr(config, name, None) or config


def _first(config: Any, *names: str, default: Any = None) -> Any:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return value
    return default


def _tokens(config: Any, batch: int, generator: torch.Generator) -> Tensor:
    text = _part(config, "text_config")
    size = int(_first(text, "vocab_size", default=100))
    longest = int(_first(text, "max_position_embeddings", "n_positions", default=_TOKENS))
    length = min(_TOKENS, longest) if longest > 0 else _TOKENS  # -1: any length
    return torch.randint(size, (batch, length), generator=generator)


def _image(config: Any, batch: int, generator: torch.Generator) -> Tensor:
    vision = _part(config, "vision_config")
    size = _first(vision, "image_size", "input_size", default=_IMAGE)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = int(_first(vision, "num_channels", "in_channels", "in_chans", default=3))
    frames = _first(vision, "num_frames")
    shape = (batch, channels) if frames is None else (batch, int(frames), channels)
    return torch.randn(*shape, height, width, generator=generator)


def _waveform(config: Any, batch: int, generator: torch.Generator) -> Tensor:
    """Samples for some steps of the convolutions, or a spectrogram where there are bins."""
    bins = _first(config, "num_mel_bins")
    if bins is not None:
        return torch.randn(batch, int(_first(config, "max_length")), int(bins), generator=generator)
    stride = math.prod(_first(config, "conv_stride", default=(160,)))
    return torch.randn(batch, 20 * stride, generator=generator)


def _spectrogram(config: Any, batch: int, generator: torch.Generator) -> Tensor:
    """`(batch, bins, frames)` where the number of positions fixes the frames, else transposed."""
    bins = int(
        _first(config, "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim")
    )
    positions = _first(config, "max_source_positions")
    if positions is not None and hasattr(config, "num_mel_bins"):
        return torch.randn(batch, bins, 2 * int(positions), generator=generator)
    return torch.randn(batch, _FRAMES, bins, generator=generator)


_MAKERS: dict[str, Callable[[Any, int, torch.Generator], Tensor]] = {
    "input_ids": _tokens,
    "decoder_input_ids": _tokens,
    "pixel_values": _image,
    "pixel_values_videos": _image,
    "input_values": _waveform,
    "input_features": _spectrogram,
}
