"""The code that trains an emitted module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mufx.html.document import Block, Code, Words
from mufx.program import Optimizer, Scales

_CLASSES: Final = {Optimizer.SGD: "SGD", Optimizer.ADAM: "Adam", Optimizer.ADAMW: "AdamW"}
_DEFAULTS: Final[Mapping[Optimizer, Mapping[str, object]]] = {
    Optimizer.SGD: {"lr": 1e-1},
    Optimizer.ADAM: {"lr": 1e-3, "eps": 1e-8},
    Optimizer.ADAMW: {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-8},
}
_GROUPED: Final = ("lr", "weight_decay", "eps")
_STAND_INS: Final = "usual values stand in: give those that you tuned at base width"
_CLIPPING: Final = (
    "# where the tuned run clips its gradients, clip these with clip_grad_norm_ of optim_mup:",
    "# its norm means the same at every width",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the optimizer is given, and what these values are.

    Attributes:
        values: By name, as a sweep spells them.
        said: Where they come from.
        hints: Comments on a step.
    """

    values: Mapping[str, object]
    said: str
    hints: tuple[str, ...] = ()


def stand_ins(optimizer: Optimizer) -> Settings:
    """Usual values, where nothing was trained."""
    return Settings(_DEFAULTS[optimizer], _STAND_INS, _CLIPPING)


def blocks(command: str, model: str, optimizer: Optimizer, settings: Settings) -> tuple[Block, ...]:
    """What a user types and writes; there is no command for a conversion from Python."""
    code = Code(training(model, optimizer, settings))
    if not command:
        return Words("In the folder that the conversion is written to:"), code
    return Words("This writes the module:"), Code(command), Words("In its folder:"), code


def training(model: str, optimizer: Optimizer, settings: Settings) -> str:
    """What a user writes beside the emitted module."""
    values = settings.values
    groups = _spelled({name: values[name] for name in _GROUPED if name in values})
    given = _spelled(_of_optimizer(values))
    lines = (
        "import torch",
        f"from model_mup import {model}",
        "from optim_mup import param_groups",
        "",
        f'model = {model}(device="cpu")',
        f"# {settings.said}",
        f"groups = param_groups(model{groups})",
        f"optimizer = torch.optim.{_CLASSES[optimizer]}(groups{given})",
        "",
        "# in every step, after loss.backward():",
        *settings.hints,
        "optimizer.step()",
    )
    return "".join(f"{line}\n" for line in lines)


def grouping(optimizer: Optimizer, scales: Mapping[str, Scales], groups: Mapping[str, str]) -> str:
    """What a user writes to train a model of their own: the groups, by names of parameters."""
    held: dict[str, list[str]] = {}
    for name, group in groups.items():
        held.setdefault(group, []).append(name)
    lines = [
        f"import torch\n\n# {_STAND_INS}\nTUNED = {dict(_DEFAULTS[optimizer])!r}",
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
