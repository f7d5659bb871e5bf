"""The code that trains an emitted module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mufx.program import Optimizer

_CLASSES: Final = {Optimizer.SGD: "SGD", Optimizer.ADAM: "Adam", Optimizer.ADAMW: "AdamW"}
_DEFAULTS: Final[Mapping[Optimizer, Mapping[str, object]]] = {
    Optimizer.SGD: {"lr": 1e-1},
    Optimizer.ADAM: {"lr": 1e-3, "eps": 1e-8},
    Optimizer.ADAMW: {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-8},
}


def training(model: str, optimizer: Optimizer, tuned: Mapping[str, object] | None = None) -> str:
    """What a user writes; `tuned` are settings found at base width, else usual ones stand in."""
    settings = {**_DEFAULTS[optimizer], **(tuned or {})}
    spelled = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return (
        "import torch\n"
        f"from model_mup import {model}\n"
        "from optim_mup import clip_grad_norm_, param_groups\n\n"
        f'model = {model}(device="cpu")\n'
        f"groups = param_groups(model, {spelled})  # as tuned at base width\n"
        f"optimizer = torch.optim.{_CLASSES[optimizer]}(groups)\n\n"
        "# in every step, after loss.backward():\n"
        "clip_grad_norm_(model, 1.0)\n"
        "optimizer.step()\n"
    )
