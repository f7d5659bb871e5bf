"""The conformance vectors: one real parameter each, in three forms and for two optimizers.

`data/conformance.json` holds role, width multipliers and every scale in full precision; the rules
behind them are those of Tensor Programs V, Tables 3, 8 and 9, relative to base width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mufx
from mufx.api import import_emitted
from mufx.passes import PASSES
from mufx.program import Program
from mufx.source import from_callable

HERE = Path(__file__).parent
VECTORS: dict[str, dict[str, Any]] = {
    v["id"]: v for v in json.loads((HERE / "data" / "conformance.json").read_text())
}
M = import_emitted(HERE / "models" / "vectors.py")
FORMS = {"T3": "table3", "T8": "table8", "T9": "table9"}

ROWS, TOKENS = torch.zeros(2, 20), torch.zeros(2, 6, dtype=torch.long)
SERIES, IMAGES, WIDE = torch.zeros(2, 6, 20), torch.zeros(2, 3, 16, 16), torch.zeros(2, 6, 40)

Case = tuple[Callable[..., nn.Module], Tensor, str, dict[str, int], dict[str, int]]


def knobs(**pairs: tuple[int, int]) -> tuple[dict[str, int], dict[str, int]]:
    return {k: v[0] for k, v in pairs.items()}, {k: v[1] for k, v in pairs.items()}


D = (256, 1024)
CASES: dict[str, Case] = {
    "01": (M.embedding, TOKENS, "net.0.weight", *knobs(d=D)),
    "02": (M.projection, ROWS, "net.1.weight", *knobs(d=D)),
    "03": (M.mlp, ROWS, "net.1.weight", *knobs(d=D, ff=(512, 4096))),
    "04": (M.mlp, ROWS, "net.3.weight", *knobs(d=D, ff=(512, 4096))),
    "05": (M.mlp, ROWS, "net.1.bias", *knobs(d=D, ff=(512, 4096))),
    "06": (M.head, ROWS, "net.2.weight", *knobs(d=D)),
    "07": (M.head, ROWS, "net.2.bias", *knobs(d=D)),
    "08": (M.head, ROWS, "net.1.weight", *knobs(d=D)),
    "09": (M.residual, ROWS, "net.2.weight", *knobs(d=D, ff=(1024, 4096))),
    "10": (M.conv, IMAGES, "net.1.weight", *knobs(c=(64, 256), o=(128, 512))),
    "11": (M.stem, IMAGES, "net.0.weight", *knobs(c=(64, 256))),
    "12": (M.grouped, IMAGES, "net.1.weight", *knobs(c=(64, 256), groups=(64, 256))),
    "13": (M.grouped, IMAGES, "net.1.weight", *knobs(c=(64, 256), groups=(8, 8))),
    "14": (M.grouped, IMAGES, "net.1.weight", *knobs(c=(64, 256), groups=(8, 32))),
    "15": (M.Grouped, SERIES, "k.weight", *knobs(d=D, kv=(1, 2))),
    "16": (M.Experts, ROWS, "router.weight", *knobs(d=D, ff=(1024, 4096), experts=(8, 8))),
    "17": (M.Experts, ROWS, "up", *knobs(d=D, ff=(1024, 4096), experts=(8, 8))),
    "18": (M.LowRank, ROWS, "a.weight", *knobs(d=D)),
    "19": (M.LowRank, ROWS, "b.weight", *knobs(d=D)),
    "20": (M.Biased, SERIES, "bias", *knobs(d=D)),
    "21": (M.Biased, SERIES, "temperature", *knobs(d=D)),
    "22": (M.StateInputs, ROWS, "x_proj.weight", *knobs(d=(512, 2048))),
    "23": (M.xavier, ROWS, "net.1.weight", *knobs(d=D, ff=(512, 4096))),
    "24": (M.Recurrent, WIDE, "lstm.weight_ih_l0", *knobs(h=D)),
    "25": (M.Experts, ROWS, "up", *knobs(d=D, ff=(1024, 4096), experts=(8, 16))),
}
# A fused recurrent layer takes its weights in a list, where form T9 cannot multiply them: it has
# the numbers of T3.
PAIRS = [(v, f) for v in VECTORS for f in FORMS if (v, f) != ("24", "T9")]


@cache
def planned(vector: str, form: str, optimizer: str) -> Program:
    build, x, _, base, target = CASES[vector]
    program = mufx.trace(
        from_callable(build, (x,), base, target), form=FORMS[form], optimizer=optimizer
    )
    for step in PASSES:
        program = step(program)
        if step.__name__ == "plan_parameters":
            break
    by_name = {step.__name__: step for step in PASSES}
    return by_name["scale_inits"](program)


def test_every_vector_has_a_model() -> None:
    assert CASES.keys() == VECTORS.keys()


@pytest.mark.parametrize("vector", VECTORS)
def test_label(vector: str) -> None:
    wanted = VECTORS[vector]
    label = planned(vector, "T3", "adamw").labels[CASES[vector][2]]
    assert (label.role, label.m_in, label.m_out) == (
        wanted["role"],
        wanted["m_in"],
        wanted["m_out"],
    )


@pytest.mark.parametrize("vector", VECTORS)
def test_init_at_both_sizes(vector: str) -> None:
    wanted = VECTORS[vector]
    base, target = planned(vector, "T3", "adamw").inits[CASES[vector][2]]
    if wanted["sp_std_base"] is None:  # a gain or a scalar that starts at 1
        assert (base.constant, target.constant) == (1.0, 1.0)
    else:
        assert base.std == pytest.approx(wanted["sp_std_base"], rel=1e-9)
        assert target.std == pytest.approx(wanted["sp_std_target"], rel=1e-9)


@pytest.mark.parametrize(("vector", "form"), PAIRS)
def test_scales(vector: str, form: str) -> None:
    wanted, name = VECTORS[vector][form], CASES[vector][2]
    adamw, sgd = (planned(vector, form, o).plan[name] for o in ("adamw", "sgd"))
    found = {
        "A": adamw.multiplier,
        "B": adamw.init,
        "adam": adamw.lr,
        "sgd": sgd.lr,
        "eps": adamw.eps,
        "wd_adamw": adamw.weight_decay,
        "wd_sgd": sgd.weight_decay,
    }
    assert found == pytest.approx({key: wanted[key] for key in found}, rel=1e-9)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_recurrent_layer_has_the_scales_of_table3_in_each_form(optimizer: str) -> None:
    name = CASES["24"][2]
    plain, other = (planned("24", form, optimizer) for form in ("T3", "T9"))

    assert other.plan[name] == plain.plan[name]
    assert other.init_corrections[name] == plain.init_corrections[name]


@pytest.mark.parametrize(("vector", "form"), PAIRS)
def test_factor_on_the_constructor_s_own_init(vector: str, form: str) -> None:
    wanted = VECTORS[vector][form].get("corr_vs_sp_target")
    found = planned(vector, form, "adamw").init_corrections[CASES[vector][2]]
    if wanted is None:  # zeros stay zeros; a constant is scaled like a standard deviation
        assert found == pytest.approx(VECTORS[vector][form]["B"], rel=1e-9)
    else:
        assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("vector", VECTORS)
def test_at_base_width_every_scale_is_exactly_one(vector: str) -> None:
    build, x, _, base, _ = CASES[vector]
    source = from_callable(build, (x,), base, base, tuple(base))
    traced = mufx.trace(source)
    program = mufx.run(traced)
    assert all(s == type(s)() for s in program.plan.values())
    assert set(program.init_corrections.values()) == {1.0}
    assert str(program.train.graph) == str(traced.train.graph)


# -- structures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "target", "scale"),
    [
        ({"heads": 4, "size": 64}, {"heads": 4, "size": 128}, 0.0625),
        ({"heads": 4, "size": 64}, {"heads": 16, "size": 64}, 0.125),
        ({"heads": 4, "size": 32}, {"heads": 4, "size": 128}, 0.0441942),
    ],
    ids=["A1", "A2", "A3"],
)
def test_attention_s_scale(base: dict[str, int], target: dict[str, int], scale: float) -> None:
    """1/sqrt(size) at base width, from there on like 1/size."""
    program = mufx.convert(M.Heads, (SERIES,), base, target).program
    (node,) = (n for n in program.train.graph.nodes if "scaled_dot" in str(n.target))
    found = node.kwargs.get("scale") or target["size"] ** -0.5
    assert found == pytest.approx(scale, rel=1e-5)


def tied(gain: bool, form: str, optimizer: str) -> mufx.Conversion:
    base, target = knobs(d=D)
    return mufx.convert(
        partial(M.Tied, gain=gain), (TOKENS,), base, target, form=form, optimizer=optimizer
    )


@pytest.mark.parametrize("form", ["table3", "table8"])
def test_tied_embeddings_keep_the_input_s_scales(form: str) -> None:
    """T1: the readout's 1/m is a multiplication of what the shared matrix gives."""
    adamw, sgd = (tied(False, form, o) for o in ("adamw", "sgd"))
    entry = adamw.manifest.parameters["embed.weight"]

    assert (entry.init_scale, entry.multiplier, entry.lr_scale) == (1, 1, 1)
    assert (entry.eps_scale, entry.weight_decay_scale) == (0.25, 1)
    assert sgd.manifest.parameters["embed.weight"].lr_scale == 4
    assert [(c.before, c.after) for c in adamw.program.changes] == [("1", "0.25")]


def test_a_tied_readout_s_factor_is_the_last_gain_s() -> None:
    """T2: the gain starts at 1/m and learns as slowly; nothing is multiplied."""
    adamw, sgd = (tied(True, "table3", o) for o in ("adamw", "sgd"))
    entry = adamw.manifest.parameters["norm.weight"]

    assert adamw.program.changes == ()
    assert (entry.init_scale, entry.lr_scale, entry.eps_scale) == (0.25, 0.25, 1)
    assert sgd.manifest.parameters["norm.weight"].lr_scale == 0.25
    assert torch.equal(adamw.module().get_parameter("norm.weight"), torch.full((1024,), 0.25))
