"""The code that trains an emitted module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mufx.program import Optimizer, Scales

_CLASSES: Final = {Optimizer.SGD: "SGD", Optimizer.ADAM: "Adam", Optimizer.ADAMW: "AdamW"}
_DEFAULTS: Final[Mapping[Optimizer, Mapping[str, object]]] = {
    Optimizer.SGD: {"lr": 1e-1},
    Optimizer.ADAM: {"lr": 1e-3, "eps": 1e-8},
    Optimizer.ADAMW: {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-8},
}
_GROUPED: Final = ("lr", "weight_decay", "eps")


def training(model: str, optimizer: Optimizer, tuned: Mapping[str, object] | None = None) -> str:
    """What a user writes; `tuned` is what was found at base width, else usual values stand in."""
    settings = {**_DEFAULTS[optimizer]} if tuned is None else {**tuned}
    groups = _spelled({name: settings[name] for name in _GROUPED if name in settings})
    given = _spelled(_of_optimizer(settings))
    return (
        "import torch\n"
        f"from model_mup import {model}\n"
        "from optim_mup import clip_grad_norm_, param_groups\n\n"
        f'model = {model}(device="cpu")\n'
        f"groups = param_groups(model{groups})  # as tuned at base width\n"
        f"optimizer = torch.optim.{_CLASSES[optimizer]}(groups{given})\n\n"
        "# in every step, after loss.backward():\n"
        "clip_grad_norm_(model, 1.0)\n"
        "optimizer.step()\n"
    )


def grouping(optimizer: Optimizer, scales: Mapping[str, Scales], groups: Mapping[str, str]) -> str:
    """What a user writes to train a model of their own: the groups, by names of parameters."""
    held: dict[str, list[str]] = {}
    for name, group in groups.items():
        held.setdefault(group, []).append(name)
    lines = [
        f"import torch\n\nTUNED = {dict(_DEFAULTS[optimizer])!r}  # at base width",
        "GROUPS = [",
    ]
    for group, names in held.items():
        factors = _factors(scales[names[0]], optimizer)
        lines += [f"    ({factors!r}, [  # {group}", *(f"        {n!r}," for n in names), "    ]),"]
    return "\n".join(
        [
            *lines,
            "]\n",
            "named = dict(model.named_parameters())",
            f"optimizer = torch.optim.{_CLASSES[optimizer]}([",
            '    {"params": [named[name] for name in names],',
            "     **{key: TUNED[key] * factor for key, factor in factors.items()}}",
            "    for factors, names in GROUPS",
            "])\n",
        ]
    )


def _factors(scales: Scales, optimizer: Optimizer) -> dict[str, float]:
    """Of the settings that the optimizer is given."""
    known = {"lr": scales.lr, "weight_decay": scales.weight_decay, "eps": scales.eps}
    return {name: float(f"{known[name]:.6g}") for name in _DEFAULTS[optimizer]}


def _of_optimizer(settings: Mapping[str, object]) -> dict[str, object]:
    """What is the same for all groups."""
    found: dict[str, object] = {}
    if "beta1" in settings or "beta2" in settings:
        found["betas"] = (settings.get("beta1", 0.9), settings.get("beta2", 0.999))
    if "momentum" in settings:
        found["momentum"] = settings["momentum"]
    return found


def _spelled(settings: Mapping[str, object]) -> str:
    return "".join(f", {name}={value!r}" for name, value in settings.items())
