"""What `mufx.apply` refuses, and what a model survives after it."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.optim.lr_scheduler import OneCycleLR

import mufx
from mufx import manifest as manifests
from mufx.optim import scaled
from tests import applying
from tests.applying import BASE, STEPS, TARGET, Model, apart, build, converted, own, pair, train

# -- what it refuses ----------------------------------------------------------------------------


def problems(run: Callable[[], object]) -> list[str]:
    with pytest.raises(mufx.MufxError) as caught:
        run()
    return [str(d) for d in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("options", "factor", "line"),
    [
        ({"attention": "cosine", "tied": False}, "1.414", "F.scaled_dot_product_attention"),
        ({"attention": "separate", "offset": 1.0}, "0.25", "self.readout(self.norm(x))"),
    ],
)
def test_what_fits_nowhere_is_named(options: dict[str, Any], factor: str, line: str) -> None:
    conversion = converted(**options)
    model = own(**options)
    before = copy.deepcopy(model.state_dict())
    found = problems(lambda: mufx.apply(model, conversion.manifest))
    assert all("error MUF508: no parameter can take over the factor" in text for text in found)
    assert all("hint: train the module that `mufx convert` writes" in text for text in found)
    assert all(factor in text for text in found)
    for entry in conversion.manifest.unabsorbed:
        assert entry.line is not None
        assert (
            line in Path(applying.__file__).read_text(encoding="utf-8").splitlines()[entry.line - 1]
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_model_is_refused_as_a_whole() -> None:
    found = problems(lambda: mufx.apply(own(sizes=BASE), converted().manifest))
    assert len(found) == 1
    assert "MUF506" in found[0]
    for name in ("embedding.weight is [13, 16], in the manifest [13, 64]", "blocks.0.down.bias"):
        assert name in found[0]


def trained(model: nn.Module) -> nn.Module:
    train(model, mufx.applied(converted().manifest))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def empty(model: nn.Module) -> nn.Module:
    del model
    with torch.device("meta"):
        return own()


def rescaled(model: nn.Module) -> nn.Module:
    mufx.apply(model, converted().manifest)
    return model


@pytest.mark.parametrize("state", [rescaled, trained, empty])
def test_only_what_its_init_left_is_rescaled(state: Callable[[nn.Module], nn.Module]) -> None:
    model = state(own())
    before = copy.deepcopy(model.state_dict())
    found = problems(lambda: mufx.apply(model, converted().manifest))
    assert all("MUF509" in text and "mufx.applied(manifest)" in text for text in found)
    assert any("blocks.0.q.weight" in text for text in found)
    if state is not empty:
        assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


@pytest.mark.parametrize("seed", range(20))
def test_no_draw_is_refused(seed: int) -> None:
    mufx.apply(own(seed), converted().manifest)


# -- what it survives ---------------------------------------------------------------------------


def copied(model: Model) -> nn.Module:
    return copy.deepcopy(model)


def pickled(model: Model) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def assigned(model: Model) -> nn.Module:
    with torch.device("meta"):
        other = build({"attention": "separate"})(**TARGET)
    other.load_state_dict(model.state_dict(), assign=True)
    other.readout.weight = other.embedding.weight
    return other


def compiled(model: Model) -> nn.Module:
    wrapped: nn.Module = torch.compile(model, backend="eager")  # type: ignore[assignment]
    return wrapped


def differentiated(model: Model) -> nn.Module:
    """Compiled as far as a graph of the backward pass."""
    wrapped: nn.Module = torch.compile(model, backend="aot_eager")  # type: ignore[assignment]
    return wrapped


@pytest.mark.parametrize("change", [copied, pickled, assigned, compiled, differentiated])
def test_survives(change: Callable[[Model], nn.Module]) -> None:
    conversion = converted()
    model, emitted, plan = pair(conversion)
    changed = change(model)
    train(changed, plan)
    train(emitted, conversion.manifest)
    assert apart(getattr(changed, "_orig_mod", changed), emitted, conversion.manifest) < 1e-12


def test_survives_to_empty_and_a_new_init() -> None:
    conversion = converted()
    with torch.device("meta"):
        model = build({"attention": "separate"})(**TARGET)
    model.to_empty(device="cpu")
    model.readout.weight = model.embedding.weight  # to_empty unties
    for _ in range(2):  # a new init is a new start
        torch.manual_seed(5)
        model.init_weights()
        mufx.apply(model, conversion.manifest)
    new = own()
    torch.manual_seed(5)
    new.init_weights()
    mufx.apply(new, conversion.manifest)
    assert all(map(torch.equal, model.parameters(), new.parameters()))


def test_survives_functional_call() -> None:
    conversion = converted()
    model, emitted, plan = pair(conversion)
    train(model, plan, loss=lambda x: functional_call(model, dict(model.named_parameters()), (x,)))
    train(emitted, conversion.manifest)
    assert apart(model, emitted, conversion.manifest) < 1e-12


def one_cycle(optimizer: torch.optim.Optimizer) -> OneCycleLR:
    peaks = scaled(0.02, optimizer.param_groups)
    return OneCycleLR(optimizer, peaks, total_steps=STEPS + 1, cycle_momentum=False)


def test_survives_one_cycle() -> None:
    conversion = converted()
    model, emitted, plan = pair(conversion)
    train(model, plan, schedule=one_cycle)
    train(emitted, conversion.manifest, schedule=one_cycle)
    assert apart(model, emitted, conversion.manifest) < 1e-12


def test_goes_on_from_a_checkpoint_and_a_written_manifest() -> None:
    conversion = converted()
    model, emitted, plan = pair(conversion)
    train(model, plan)
    saved = model.state_dict()
    loaded = own(9).double()
    loaded.load_state_dict(saved)
    read = manifests.loads(manifests.dumps(conversion.manifest))
    train(loaded, mufx.applied(read))
    train(model, manifests.loads(manifests.dumps(plan)))
    assert all(map(torch.equal, loaded.parameters(), model.parameters()))
    assert apart(loaded, emitted, conversion.manifest) > 1e-3


def test_the_class_and_its_attributes_are_untouched() -> None:
    model, untouched = own(), own()
    mufx.apply(model, converted().manifest)
    for one, other in zip(model.modules(), untouched.modules(), strict=True):
        assert type(one) is type(other)
        assert vars(one).keys() == vars(other).keys()
        hooks = (one._forward_hooks, one._forward_pre_hooks, one._backward_hooks)
        assert not any(hooks)
    assert all(not vars(p) for p in model.parameters())
