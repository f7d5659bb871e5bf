"""Optimizer groups and gradient clipping for a module that a manifest describes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from mufx.diagnostics import MufxError, error
from mufx.emit import optim_mup
from mufx.manifest import Manifest
from mufx.program import Optimizer


def param_groups(
    module: nn.Module,
    manifest: Manifest,
    *,
    lr: float | torch.Tensor,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    no_decay: Callable[[str, nn.Parameter], bool] | None = None,
) -> list[dict[str, Any]]:
    """The parameter groups to give to the optimizer that the manifest was made for.

    The values are those tuned at base width. Every group holds its own: `lr`, `weight_decay` and,
    for Adam and AdamW, `eps`, beside `lr_scale` and `name`, which torch keeps and ignores. A
    learning rate given as a tensor becomes one new tensor for each group. At base width there is
    one group, with the parameters in the order of `module.parameters()`.

    Names are the original model's: what torch.compile, DDP, FSDP and activation checkpointing
    add to them is dropped. Wrappers that flatten or shard parameters into other shapes come
    after the groups.

    Args:
        module: The emitted model, or a copy or wrapper of it.
        manifest: The manifest written with it.
        lr: Learning rate at base width.
        weight_decay: Weight decay at base width.
        eps: Adam's eps at base width; SGD has none.
        no_decay: Called with the name and the parameter; where it is true the decay is 0.

    Raises:
        MufxError: `MUF506` where parameters or shapes differ from the manifest's (all of them
            in one), `MUF507` for Adam with weight decay.
    """
    if manifest.optimizer is Optimizer.ADAM and weight_decay > 0:
        raise MufxError(
            error(
                "MUF507",
                "Adam adds the decay to the gradient before normalising it, and no scale of the "
                "decay makes that consistent across widths (Tensor Programs V, App. B.3)",
                hint='convert with optimizer="adamw" and train with torch.optim.AdamW',
            )
        )
    found = matched(module, manifest)
    values = {"lr": lr, "weight_decay": weight_decay, "eps": eps}
    groups = optim_mup._groups(found, manifest.optimizer.value, values)
    if no_decay is None:
        return groups
    excluded = {id(p) for name, (p, _) in found.items() if no_decay(name, p)}
    return [part for group in groups for part in _split(group, excluded)]


def clip_grad_norm_(
    module: nn.Module, manifest: Manifest, max_norm: float, norm_type: float = 2.0
) -> torch.Tensor:
    """Scales all gradients by one factor, so that their norm is at most `max_norm`.

    The norm is taken over gradient * clip_scale. A gradient's size depends on which of the
    equivalent forms the model is written in (Tensor Programs V, Lemma J.1: a weight theta times
    smaller has a gradient theta times larger), and a plain norm would clip them differently. At
    base width this is torch.nn.utils.clip_grad_norm_, bit for bit.

    Returns:
        The norm before clipping, a scalar tensor.

    Raises:
        MufxError: `MUF506` where the module's parameters are not the manifest's.
    """
    return optim_mup._clip(matched(module, manifest), max_norm, norm_type)


def scaled(value: float, groups: Iterable[Mapping[str, Any]]) -> list[float]:
    """A learning rate at base width as one for each group.

    For the arguments of schedulers that are absolute learning rates: `max_lr` of OneCycleLR,
    `base_lr` and `max_lr` of CyclicLR, `min_lr` of ReduceLROnPlateau (with `eps=0`: its eps is
    absolute too). Schedulers that multiply need nothing. CosineAnnealingLR takes `eta_min` as
    one number for all groups and fits only at 0; a floor that scales is a LambdaLR:
    `lambda step: floor + (1 - floor) * (1 + math.cos(math.pi * step / steps)) / 2`.
    """
    return [value * group["lr_scale"] for group in groups]


def matched(module: nn.Module, manifest: Manifest) -> dict[str, Any]:
    """Parameters and their entries by name, without a copy: clipping needs them every step."""
    entries = {name: vars(entry) for name, entry in manifest.parameters.items()}
    try:
        return optim_mup._entries(module, {"parameters": entries})
    except ValueError as problem:
        raise MufxError(
            error(
                "MUF506",
                "; ".join(_differences(module, manifest)) or str(problem),
                hint="give the module that the manifest was written with, before wrappers that "
                "flatten its parameters",
            )
        ) from None


def _differences(module: nn.Module, manifest: Manifest) -> list[str]:
    """Everything that keeps a module from being the one of a manifest."""
    names = {n: name for name, e in manifest.parameters.items() for n in (name, *e.tied)}
    present = dict(module.named_parameters())
    key = str if names.keys() >= present.keys() else optim_mup._plain
    names = {key(n): name for n, name in names.items()}
    problems: list[str] = []
    taken: set[str] = set()
    for given, parameter in present.items():
        name, shape = names.get(key(given)), tuple(parameter.shape)
        if name is None:
            problems += [f"{given} is not in the manifest"] * parameter.requires_grad
        elif name in taken:
            problems.append(f"{given} and another parameter are one in the manifest, {name}")
        elif shape != (wanted := manifest.parameters[name].shape):
            problems.append(f"{given} is {list(shape)}, in the manifest {list(wanted)}")
        taken.add(name or "")
    missing = manifest.parameters.keys() - taken
    return problems + [f"{name} is not in the model" for name in sorted(missing)]


def _split(group: dict[str, Any], excluded: set[int]) -> list[dict[str, Any]]:
    decayed = [p for p in group["params"] if id(p) not in excluded]
    free = [p for p in group["params"] if id(p) in excluded]
    without: dict[str, Any] = {
        "name": f"{group['name']}, no decay",
        "params": free,
        "weight_decay": 0.0,
    }
    if free and isinstance(group["lr"], torch.Tensor):
        without["lr"] = group["lr"].clone()  # a scheduler fills each group's in place
    parts = [{**group, "params": decayed}, {**group, **without}]
    return [part for part in parts if part["params"]]
