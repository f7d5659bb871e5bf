"""`hf:llama`, `hf:llama:LlamaForCausalLM`: any model type of `transformers`, without a download.

The knobs are the fields of its configuration. Without a class the model is the one that
`transformers` trains for the type's first task in `_TASKS`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from mufx.adapters import Adapted
from mufx.adapters.huggingface_inputs import example_inputs
from mufx.diagnostics import Diagnostic, MufxError, error
from mufx.factory import Factory, Knob, factory_of, place_of
from mufx.knobs import did_you_mean

_ENCODER_DECODERS = ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ")
_TASKS = (
    "MASKED_LM", "CAUSAL_LM", "ZERO_SHOT_IMAGE_CLASSIFICATION", "IMAGE_CLASSIFICATION",
    "VIDEO_CLASSIFICATION", "CTC", "AUDIO_CLASSIFICATION", "SEMANTIC_SEGMENTATION",
    "OBJECT_DETECTION", "DEPTH_ESTIMATION", "SEQUENCE_CLASSIFICATION",
)  # fmt: skip


_COMMON = (
    "num_labels", "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id",
    "output_attentions", "attn_implementation",
)  # fmt: skip
"""Fields that every configuration takes, whether it lists them or not."""


def adapt(rest: str) -> Adapted:
    """The model of `llama` or `llama:LlamaForCausalLM`.

    Raises:
        MufxError: `MUF017` without transformers, `MUF001` for an unknown model type, `MUF003` for
            an unknown class.
    """
    transformers = _transformers()
    kind, _, name = rest.partition(":")
    configuration = _configuration(transformers, kind)
    model = _class(transformers, kind, name, configuration)
    made = _factory(model, configuration)
    return Adapted(
        factory=made,
        inputs=lambda knobs, batch: example_inputs(model, _config(configuration, knobs), batch),
        module=import_module(model.__module__),
    )


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as problem:
        raise MufxError(
            error(
                "MUF017",
                f"hf: names models of transformers, which cannot be imported: {problem}",
                hint="install it: pip install 'mufx[hf]'",
            )
        ) from problem


def _configuration(transformers: Any, kind: str) -> type:
    known = list(transformers.CONFIG_MAPPING.keys())
    if kind in known:
        found: type = transformers.CONFIG_MAPPING[kind]
        return found
    raise MufxError(
        error(
            "MUF001",
            f"transformers {transformers.__version__} has no model type {kind!r}",
            hint=f"{did_you_mean(kind, known)}name one of its {len(known)} model types: hf:llama",
        )
    )


def _class(transformers: Any, kind: str, name: str, configuration: type) -> type[nn.Module]:
    name = name or _default_class(kind, configuration)
    found = getattr(transformers, name, None) if name else None
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    raise MufxError(_no_class(transformers, kind, name))


def _default_class(kind: str, configuration: type) -> str:
    mappings = import_module("transformers.models.auto.modeling_auto")
    two_sided = bool(getattr(configuration, "is_encoder_decoder", False))
    tasks = (*_ENCODER_DECODERS, *_TASKS) if two_sided else (*_TASKS, *_ENCODER_DECODERS)
    tables = [getattr(mappings, f"MODEL_FOR_{task}_MAPPING_NAMES", {}) for task in tasks]
    for table in (*tables, mappings.MODEL_MAPPING_NAMES):
        found = table.get(kind)
        if found is not None:
            return str(found if isinstance(found, str) else found[0])
    return ""


def _no_class(transformers: Any, kind: str, name: str) -> Diagnostic:
    classes = [n for n in dir(transformers) if "For" in n or n.endswith("Model")]
    if not name:
        return error(
            "MUF003",
            f"transformers has no model for {kind} alone",
            hint=f"name its class: hf:{kind}:Class",
        )
    return error(
        "MUF003",
        f"transformers has no model class {name}",
        hint=f"{did_you_mean(name, classes)}name a class: hf:{kind}:Class",
    )


def _factory(model: type[nn.Module], configuration: type) -> Factory:
    """How to build the model from the fields of its configuration, and their other names."""
    made = factory_of(configuration)
    unlisted = [Knob(name, default=None) for name in (*_COMMON, *_read(model))]
    others = [*_aliases(configuration, made.knobs), *unlisted]
    known = {knob.name for knob in made.knobs}

    def build(**knobs: object) -> nn.Module:
        return model(_config(configuration, knobs))

    return dataclasses.replace(
        made,
        build=build,
        knobs=(*made.knobs, *(knob for knob in others if knob.name not in known)),
        name=model.__name__,
        place=place_of(model),
    )


def _aliases(configuration: type, knobs: tuple[Knob, ...]) -> list[Knob]:
    """The other names of fields: `hidden_size` of GPT-2 is `n_embd`."""
    names: Mapping[str, str] = getattr(configuration, "attribute_map", {})
    fields = {knob.name: knob for knob in knobs}
    return [
        dataclasses.replace(fields[name], name=alias)
        for alias, name in names.items()
        if name in fields
    ]


def _read(model: type[nn.Module]) -> list[str]:
    """Fields that the model reads where there are any, and the configuration does not list."""
    source = inspect.getsource(import_module(model.__module__))
    return list(dict.fromkeys(re.findall(r'getattr\(\w*\.?config, "(\w+)"', source)))


def _config(configuration: type, knobs: Mapping[str, object]) -> Any:
    """The configuration; without a cache, which is for generation."""
    cache = (
        {"use_cache": False} if "use_cache" in inspect.signature(configuration).parameters else {}
    )
    return configuration(**{**cache, **knobs})
