"""μP on a live model of the user's own class: its forward pass stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from mufx.diagnostics import Diagnostic, MufxError, error
from mufx.manifest import Manifest, ParameterEntry, grouped
from mufx.optim import matched
from mufx.program import Optimizer, Scales


def apply(model: nn.Module, manifest: Manifest) -> Manifest:
    """Puts a freshly initialised model into the maximal update parametrization, in place.

    Nothing but the values of parameters changes: no module, no attribute, no hook. What the
    forward pass would need as a factor, an emitted module's attention scale or a tied readout's
    1/m, goes into the parameters that it can be moved into exactly.

        plan = mufx.apply(model, manifest)
        optimizer = torch.optim.AdamW(mufx.param_groups(model, plan, lr=3e-3))

    Call it once, after the model's own initialisation and before a checkpoint is loaded. It may
    be sharded by then (every process calls it). To go on from a checkpoint, take the plan from
    `applied(manifest)` instead.

    Args:
        model: The model at target width, as its constructor or its own init function leaves it.
        manifest: What `convert` found for it.

    Returns:
        `applied(manifest)`: the manifest to make groups and clip with.

    Raises:
        MufxError: `MUF506` where parameters or shapes differ from the manifest's, `MUF508` for
            factors that no parameter can take over, `MUF509` for parameters that are not as the
            constructor leaves them, because of a checkpoint or an earlier call. Nothing is
            changed then.
    """
    plan = applied(manifest)
    rescaled = {
        name: (parameter, plan.parameters[name])
        for name, (parameter, _) in matched(model, manifest).items()
        if plan.parameters[name].init_correction != 1.0 or plan.parameters[name].rows
    }
    _check_fresh(rescaled)
    with torch.no_grad():
        for parameter, entry in rescaled.values():
            parameter.mul_(entry.init_correction)
            if entry.rows:
                parameter.mul_(_of_rows(parameter, entry))
    return plan


def applied(manifest: Manifest) -> Manifest:
    """The manifest of the original model at target width after `apply`, with groups to match.

    By the abc-symmetry (Tensor Programs V, Lemma J.1) a factor `a` on a parameter of the forward
    pass is the same as one on its init, with Adam's learning rate times `a` (SGD's times `a**2`),
    eps and weight decay divided by `a`, and the gradient's norm taken times `a`.

    Raises:
        MufxError: `MUF508` for factors that no parameter can take over.
    """
    if manifest.unabsorbed:
        raise MufxError(*(entry.diagnostic for entry in manifest.unabsorbed))
    entries = {n: _shifted(e, manifest.optimizer) for n, e in manifest.parameters.items()}
    parameters, groups = grouped(entries)
    changed = {"parameters": parameters, "groups": groups, "changes": (), "emitted": None}
    return manifest.model_copy(update=changed)


def _shifted(entry: ParameterEntry, optimizer: Optimizer) -> ParameterEntry:
    if entry.absorbed == 1.0:
        return entry.model_copy(update={"multiplier": 1.0})
    scales = Scales(
        1.0,
        entry.init_scale,
        entry.lr_scale,
        entry.weight_decay_scale,
        entry.eps_scale,
        entry.clip_scale,
    ).shifted(1 / entry.absorbed, optimizer)
    return entry.model_copy(
        update={
            "multiplier": 1.0,
            "init_scale": scales.init,
            "init_correction": entry.init_correction * entry.absorbed,
            "lr_scale": scales.lr,
            "weight_decay_scale": scales.weight_decay,
            "eps_scale": 1.0 if optimizer is Optimizer.SGD else scales.eps,
            "clip_scale": scales.clip,
            "absorbed": 1.0,
        }
    )


def _of_rows(parameter: nn.Parameter, entry: ParameterEntry) -> torch.Tensor:
    """The further factors of rows with a role of their own, placed as the parameter is."""
    factors = torch.ones(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    for rows in entry.rows:
        factors.narrow(rows.axis, rows.start, rows.stop - rows.start).fill_(rows.init_correction)
    if not hasattr(parameter, "device_mesh"):
        return factors
    from torch.distributed.tensor import DTensor, distribute_tensor  # seconds, where not sharded

    assert isinstance(parameter, DTensor)
    return distribute_tensor(factors, parameter.device_mesh, parameter.placements)


# -- what a constructor leaves ------------------------------------------------------------------

_NEAR = 1.2
"""What entries that an init leaves out, a padding row of zeros, may change in the size."""
_DEVIATIONS = 6.0


def _check_fresh(rescaled: Mapping[str, tuple[nn.Parameter, ParameterEntry]]) -> None:
    problems = [
        f"{name} {problem}"
        for name, (parameter, entry) in rescaled.items()
        if (problem := _unlike_its_init(parameter, entry)) is not None
    ]
    if problems:
        raise MufxError(*map(_not_fresh, problems))


def _unlike_its_init(parameter: nn.Parameter, entry: ParameterEntry) -> str | None:
    """What shows that a parameter is not as its init leaves it."""
    if parameter.is_meta:
        return "is on meta: it has no values yet"
    drawn = entry.init_size
    if not drawn or not parameter.numel():
        return None
    found, spread = _size(parameter)
    chance = _DEVIATIONS * spread / math.sqrt(2 * parameter.numel())  # of a normal sample's size
    near = min(math.log(_NEAR), abs(math.log(entry.init_correction)) / 2)
    if found > 0 and abs(math.log(found / drawn)) <= near + chance:
        return None
    return f"has the size {found:.4g}, and its constructor gives it {drawn:.4g}"


def _size(parameter: nn.Parameter) -> tuple[float, float]:
    """The root mean square of the entries of all shards, and the part of it that is spread."""
    values, count = parameter.detach(), parameter.numel()
    dtype = torch.promote_types(values.dtype, torch.float32)
    size = _whole(torch.linalg.vector_norm(values, dtype=dtype)) / math.sqrt(count)
    mean = _whole(values.sum(dtype=dtype)) / count
    if not size > 0:  # NaN where memory was never filled
        return size, 0.0
    return size, math.sqrt(max(0.0, 1 - (mean / size) ** 2))


def _whole(value: torch.Tensor) -> float:
    """A number that every shard may hold a part of."""
    gather = getattr(value, "full_tensor", None)
    return float(value if gather is None else gather())


def _not_fresh(what: str) -> Diagnostic:
    return error(
        "MUF509",
        f"{what}; apply rescales what the model's own init drew, once",
        hint="initialise the model anew; to go on from a checkpoint, load it and take the groups "
        "from mufx.applied(manifest)",
    )
