"""What a point trains: the user's class at a width, or its conversion, with its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import nn

from mufx.api import Conversion, convert_source
from mufx.diagnostics import MufxError, error
from mufx.factory import Factory
from mufx.knobs import did_you_mean
from mufx.optim import param_groups
from mufx.source import Source
from mufx.sweep.settings import Parametrization, Point
from mufx.sweep.values import Value
from mufx.sweep.widths import Knobs, growing

Made = tuple[nn.Module, torch.optim.Optimizer]

_CLASSES: Final[Mapping[str, type[torch.optim.Optimizer]]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
_COMMON: Final[Mapping[str, tuple[str, ...]]] = {
    "adam": ("beta1", "beta2"),
    "adamw": ("beta1", "beta2"),
    "sgd": ("momentum",),
}
_FUSED: Final = ("cpu", "cuda")
_DEFAULTS: Final = {"lr": 1e-3, "weight_decay": 0.0, "eps": 1e-8}  # for both parametrizations


def optimizer_settings(optimizer: str) -> tuple[str, ...]:
    """The hyperparameters of an optimizer that a sweep can set."""
    return _grouped(optimizer) + _COMMON[optimizer]


def _grouped(optimizer: str) -> tuple[str, ...]:
    """The settings that a group scales; SGD has no eps."""
    return ("lr", "weight_decay") if optimizer == "sgd" else ("lr", "weight_decay", "eps")


def knobs_among(values: Mapping[str, Value], optimizer: str) -> dict[str, Value]:
    """The values that are not the optimizer's: those are knobs of the model."""
    settings = optimizer_settings(optimizer)
    return {name: value for name, value in values.items() if name not in settings}


def check_names(names: Sequence[str], source: Source, factory: Factory, optimizer: str) -> None:
    """Every name is a setting of the optimizer or a knob of the model that does not grow.

    Raises:
        MufxError: `MUF751`, one for each that is neither.
    """
    widths = growing(source)
    knobs = [knob.name for knob in factory.knobs if knob.name not in widths]
    known = [*optimizer_settings(optimizer), *knobs]
    unknown = [n for n in names if n not in known and (n in widths or not factory.takes_any)]
    if unknown:
        raise MufxError(
            *(
                error(
                    "MUF751",
                    f"{name} is no setting of {optimizer} and no knob of {factory.name} that "
                    "stays the same at every width",
                    hint=f"{did_you_mean(name, known)}hyperparameters: {', '.join(known)}",
                    place=factory.place,
                )
                for name in unknown
            )
        )


@dataclass
class Models:
    """Makes the models of one sweep; a conversion is made once for each width and its knobs.

    Attributes:
        source: The user's model.
        widths: By width: all knobs there.
        optimizer: "adam", "adamw" or "sgd".
        form: The form of the converted models.
        device: Where they are trained.
        convert: How a source is converted; with passes of one's own, say.
    """

    source: Source
    widths: Mapping[int, Knobs]
    optimizer: str
    form: str
    device: torch.device
    convert: Callable[..., Conversion] = convert_source
    _converted: dict[str, Conversion] = field(default_factory=dict[str, Conversion])

    def made(self, point: Point, values: Mapping[str, Value]) -> Made:
        """The model of a point, initialised with its seed, and its optimizer.

        Raises:
            MufxError: what the conversion refuses.
        """
        knobs = knobs_among(values, self.optimizer)
        grouped: dict[str, Any] = {
            n: float(values.get(n, _DEFAULTS[n])) for n in _grouped(self.optimizer)
        }
        if point.parametrization is Parametrization.MUP:
            conversion = self.conversion(self.widths[point.width], knobs)
            model = conversion.module(device=self.device, seed=point.seed)
            groups = param_groups(model, conversion.manifest, **grouped)
        else:
            model = self._plain({**self.widths[point.width], **knobs}, point.seed)
            groups = [{"params": list(model.parameters()), **grouped}]
        # Where a width is large the update is as slow as the step; fused it is one pass.
        common: dict[str, Any] = {
            "fused": self.device.type in _FUSED,
            **_common(self.optimizer, values),
        }
        return model, _CLASSES[self.optimizer](groups, **common)

    def conversion(self, target: Knobs, knobs: Mapping[str, Value] | None = None) -> Conversion:
        """The conversion from base to some width, both with the same other knobs."""
        knobs = knobs or {}
        base, target = {**self.source.base, **knobs}, {**target, **knobs}
        key = repr(sorted(target.items()))
        if key not in self._converted:
            vary = tuple(growing(self.source)) if base == target else ()
            source = replace(self.source, base=base, target=target, vary=vary)
            converted = self.convert(source, optimizer=self.optimizer, form=self.form)
            self._converted[key] = converted
        return self._converted[key]

    def _plain(self, knobs: Knobs, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        with self.device:
            model = self.source.build(**knobs)
        return model.to(self.device)  # what comes from numpy was made elsewhere


def _numbers(values: Mapping[str, Value]) -> dict[str, Any]:
    return {name: float(value) for name, value in values.items()}


def _common(optimizer: str, values: Mapping[str, Value]) -> dict[str, Any]:
    """The settings that are the same for all groups, as torch names them."""
    if optimizer == "sgd":
        return _numbers({n: values[n] for n in _COMMON["sgd"] if n in values})
    betas = float(values.get("beta1", 0.9)), float(values.get("beta2", 0.999))
    return {"betas": betas}
