"""The functions at the end of every emitted `model_mup.py`, copied there as they stand.

They are also what `mufx.optim` is built on, so both give the same groups. They use torch and the
standard library only, and nothing but each other and the names imported here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn


def _manifest() -> dict[str, Any]:
    """Reads manifest.json beside this file, once, and checks that the two belong together."""
    if not _manifest.__dict__:
        here = Path(__file__)
        manifest = json.loads(here.with_name("manifest.json").read_text(encoding="utf-8"))
        if hashlib.sha256(here.read_bytes()).hexdigest() != manifest["emitted"]["digest"]:
            raise RuntimeError(
                f"{here} is not the file that manifest.json was written with, so its scales may "
                "be wrong. Restore both, or change the original model and convert it again."
            )
        _manifest.__dict__.update(manifest)
    return _manifest.__dict__


def _plain_name(name: str) -> str:
    """Drops what torch.compile, DDP, activation checkpointing and FSDP add to a name."""
    wrappers = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
    return ".".join(part for part in name.split(".") if part not in wrappers)


def _parameters(model: nn.Module, manifest: dict[str, Any]) -> dict[str, nn.Parameter]:
    """The parameters by their names in the manifest, in the model's order, tied ones once."""
    entries = manifest["parameters"]
    known = {alias: name for name, entry in entries.items() for alias in (name, *entry["tied"])}
    present = dict(model.named_parameters())
    if not known.keys() >= present.keys():  # a wrapper renamed them, or it is another model
        known = {_plain_name(alias): name for alias, name in known.items()}
        known = {given: known.get(_plain_name(given), "") for given in present}
    found: dict[str, nn.Parameter] = {}
    problems: list[str] = []
    for given, parameter in present.items():
        name, shape = known[given], list(parameter.shape)
        if name in found:
            problems.append(f"{given} and another parameter are one in the manifest, {name}")
        elif name:
            found[name] = parameter
            if shape != (expected := list(entries[name]["shape"])):
                problems.append(f"{given} is {shape}, in the manifest {expected}")
        elif parameter.requires_grad:
            problems.append(f"{given} is not in the manifest")
    problems += [f"{name} is not in the model" for name in entries if name not in found]
    if problems:
        raise ValueError("the model is not the one of the manifest: " + "; ".join(problems))
    return found


def _groups(
    parameters: dict[str, nn.Parameter], manifest: dict[str, Any], values: dict[str, Any]
) -> list[dict[str, Any]]:
    """One dict for each group of the manifest: its parameters, and the values times its scales."""
    if manifest["optimizer"] == "adam" and values["weight_decay"] > 0:
        raise ValueError(
            "Adam adds the decay to the gradient before normalising it, and no scale of the decay "
            "makes that consistent across widths (Tensor Programs V, App. B.3): convert for adamw"
        )
    if manifest["optimizer"] == "sgd":
        values = {key: value for key, value in values.items() if key != "eps"}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        entry = manifest["parameters"][name]
        if entry["group"] not in groups:
            settings = {key: value * entry[f"{key}_scale"] for key, value in values.items()}
            settings |= {"name": entry["group"], "lr_scale": entry["lr_scale"], "params": []}
            groups[entry["group"]] = settings
        groups[entry["group"]]["params"].append(parameter)
    return list(groups.values())


def _clip(
    parameters: dict[str, nn.Parameter], manifest: dict[str, Any], max_norm: float, kind: float
) -> torch.Tensor:
    """Scales all gradients by one factor; the norm is that of gradient * clip_scale."""
    gradients: dict[float, list[torch.Tensor]] = {}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            scale = manifest["parameters"][name]["clip_scale"]
            gradients.setdefault(scale, []).append(parameter.grad)
    norms = [nn.utils.get_total_norm(g, kind) * scale for scale, g in gradients.items()]
    total = norms[0] if len(norms) == 1 else nn.utils.get_total_norm(norms, kind)
    nn.utils.clip_grads_with_norm_(parameters.values(), max_norm, total)
    return total


def param_groups(
    model: nn.Module, lr: float | torch.Tensor, weight_decay: float = 0.0, eps: float = 1e-8
) -> list[dict[str, Any]]:
    """The groups for the optimizer: lr, weight_decay and eps are those tuned at base width."""
    manifest = _manifest()
    values = {"lr": lr, "weight_decay": weight_decay, "eps": eps}
    return _groups(_parameters(model, manifest), manifest, values)


def clip_grad_norm_(model: nn.Module, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
    """Clips like torch's function, to a norm that means the same at every width and form."""
    manifest = _manifest()
    return _clip(_parameters(model, manifest), manifest, max_norm, norm_type)
