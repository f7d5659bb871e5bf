"""Optimizer groups and gradient clipping for the model beside this file, by its manifest.json.

Written beside every model that mufx converts, always the same; it needs torch and not mufx.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn


@cache
def _manifest() -> dict[str, Any]:
    """What manifest.json says; it must be the one that was written with the model."""
    path = Path(__file__).with_name("manifest.json")
    manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if (version := manifest.get("schema_version")) != 1:
        raise RuntimeError(f"{path} is of schema_version {version}, not 1: convert the model again")
    digest = manifest.pop("digest", None)
    if digest != _sha256(f"{json.dumps(manifest, sort_keys=True, indent=2)}\n".encode()):
        raise RuntimeError(f"{path} was edited: undo that, or convert the model again")
    if manifest["emitted"] is None:
        raise RuntimeError(f"{path} was made for a model's own class: use mufx.param_groups")
    model = path.with_name(manifest["emitted"]["file"])
    if manifest["emitted"]["digest"] != _sha256(model.read_bytes()):
        raise RuntimeError(f"{model} or its manifest.json was changed: convert it again")
    return manifest


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _plain(name: str) -> str:
    """A parameter's name without what torch.compile, DDP, FSDP and checkpointing add to it."""
    wrappers = {"_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
    return ".".join(part for part in name.split(".") if part not in wrappers)


def _entries(model: nn.Module, manifest: dict[str, Any]) -> dict[str, Any]:
    """Parameters and their entries in the manifest, by name, in the model's order."""
    known = {n: (name, e) for name, e in manifest["parameters"].items() for n in (name, *e["tied"])}
    present = dict(model.named_parameters())
    key = str if known.keys() >= present.keys() else _plain
    known = {key(name): entry for name, entry in known.items()}
    found: dict[str, Any] = {}
    for given, parameter in present.items():
        name, entry = known.get(key(given), (given, None))
        if entry is not None and name not in found and tuple(entry["shape"]) == parameter.shape:
            found[name] = (parameter, entry)
        elif entry is not None or parameter.requires_grad:
            raise ValueError(f"{given} is not the parameter that manifest.json describes")
    if missing := manifest["parameters"].keys() - found:
        raise ValueError(f"the model lacks {', '.join(sorted(missing))}")
    return found


def _groups(found: dict[str, Any], optimizer: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    if optimizer == "adam" and values["weight_decay"] > 0:
        raise ValueError("no scale of Adam's L2 decay fits all widths: convert for adamw")
    if optimizer == "sgd":
        del values["eps"]
    groups: dict[str, dict[str, Any]] = {}
    for parameter, entry in found.values():
        group = {key: value * entry[f"{key}_scale"] for key, value in values.items()}
        group |= {"name": entry["group"], "lr_scale": entry["lr_scale"], "params": []}
        groups.setdefault(entry["group"], group)["params"].append(parameter)
    return list(groups.values())


def _clip(found: dict[str, Any], max_norm: float, norm_type: float) -> torch.Tensor:
    pairs = [(p, e["clip_scale"]) for p, e in found.values() if p.grad is not None]
    norms = [nn.utils.get_total_norm([p.grad], norm_type) * scale for p, scale in pairs]
    total = nn.utils.get_total_norm(norms, norm_type)
    nn.utils.clip_grads_with_norm_([p for p, _ in pairs], max_norm, total)
    return total


def param_groups(
    model: nn.Module, lr: float | torch.Tensor, weight_decay: float = 0.0, eps: float = 1e-8
) -> list[dict[str, Any]]:
    """The groups for the optimizer: lr, weight_decay and eps are those tuned at base width."""
    manifest, values = _manifest(), {"lr": lr, "weight_decay": weight_decay, "eps": eps}
    return _groups(_entries(model, manifest), manifest["optimizer"], values)


def clip_grad_norm_(model: nn.Module, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
    """Clips like torch's function, to a norm that means the same at every width and form."""
    return _clip(_entries(model, _manifest()), max_norm, norm_type)
