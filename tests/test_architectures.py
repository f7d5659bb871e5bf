"""The hard rules of architectures, one case each: what a parameter is, and what it gets.

A case names the parameters in question with their role and the width multipliers of the axes
that they contract and keep. The numbers follow from Tensor Programs V, Table 3, relative to base
width, as `wanted` restates it; no number is taken from what mufx prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mufx
from mufx.api import Conversion, import_emitted
from mufx.diagnostics import MufxError, Severity
from mufx.manifest import ParameterEntry

M = import_emitted(Path(__file__).parent / "models" / "architectures.py")
X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.zeros(2, 5, dtype=torch.long)

Kind = tuple[str, float, float]
Knobs = Mapping[str, int]


def wanted(kind: Kind) -> tuple[float, float, float]:
    """Init, Adam's learning rate and its eps, of a role with m_in and m_out.

    A readout is one also where a norm takes its size back: what its input learns would outgrow
    what it learns itself. At three numbers behind an instance norm the change had a slope of
    +0.25 over width with an init of a hidden weight, and none with a readout's.

    So is the way down of a low-rank update, which public recipes start like a hidden weight. Two
    residual layers with updates of rank 4, Adam at rates of 1/m for A and 1 for B, widths 64 to
    2048: where all parameters train, the change of A x had a slope of +0.27 over width after 6
    steps with a hidden weight's init (+0.48 from 1024 to 2048), and -0.13 with a readout's. Where
    only A and B train, both had +0.1 after 20 steps; the smaller init learns more slowly in the
    first few.
    """
    role, m_in, m_out = kind
    init = {"hidden": m_in**-0.5, "output": 1 / m_in}.get(role, 1.0)
    return init, 1 / m_in, 1 / m_out


@dataclass(frozen=True, eq=False)
class Case:
    """A model at two widths, and what its parameters are.

    Attributes:
        kinds: By parameter: role, m_in, m_out.
        rows: By parameter: the rows that read out although it is hidden.
        changes: What of the forward pass is another number: `before -> after`.
        warned: The codes of warnings and notes.
    """

    name: str
    build: Callable[..., nn.Module]
    sizes: Mapping[str, tuple[int, int]]
    kinds: Mapping[str, Kind]
    rows: Mapping[str, list[tuple[int, int]]] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...] = (X,)
    fixed: Mapping[str, object] = field(default_factory=dict)
    warned: tuple[str, ...] = ()


# Unequal factors, so that no axis can be taken for another: the residual stream x 4.
D, FF, INNER, HEADS, RANK = 4.0, 6.0, 8.0, 2.0, 3.0

EXPERTS = (
    Case(
        "a router reads out, an expert is hidden",
        M.experts,
        {"d": (16, 64), "ff": (8, 48)},
        {
            "piece.router.weight": ("output", D, 1),
            "piece.up": ("hidden", D, FF),
            "piece.down": ("hidden", FF, D),
        },
    ),
    Case(
        "more experts, of which two that share the whole: their number is an axis that is kept",
        M.experts,
        {"d": (16, 64), "ff": (8, 48), "experts": (4, 8)},
        {
            "piece.router.weight": ("hidden", D, 2),
            "piece.up": ("hidden", D, 2 * FF),
            "piece.down": ("hidden", FF, 2 * D),
        },
        fixed={"normed": True},
    ),
)

GATED = (
    Case(
        "a gated layer needs nothing more than one without a gate",
        M.gated,
        {"d": (16, 64), "ff": (8, 48)},
        {
            "piece.gate.weight": ("hidden", D, FF),
            "piece.up.weight": ("hidden", D, FF),
            "piece.down.weight": ("hidden", FF, D),
        },
    ),
)

ATTENTION = (
    *(
        Case(
            f"fused queries, keys and values that all grow, by {parted}",
            M.attention,
            {"d": (16, 64), "heads": (4, 8), "kv": (2, 4)},
            {
                "piece.qkv.weight": ("hidden", D, HEADS),
                "piece.qkv.bias": ("input", 1, HEADS),
                "piece.out.weight": ("hidden", HEADS, D),
            },
            fixed={"size": 4, "parted": parted, "bias": True},
        )
        for parted in ("split", "heads")
    ),
    *(
        Case(
            f"keys and values of a fixed number of heads read out, by {parted}",
            M.attention,
            {"d": (16, 64), "heads": (4, 8)},
            {"piece.qkv.weight": ("hidden", D, HEADS), "piece.qkv.bias": ("input", 1, HEADS)},
            rows={"piece.qkv.weight": rows},
            fixed={"size": 4, "kv": kv, "parted": parted, "bias": True},
            warned=("MUF207",),
        )
        for parted, kv, rows in (
            ("split", 1, [(32, 40)]),
            ("heads", 1, [(32, 40)]),
            ("heads", 2, [(32, 48)]),
            # Two groups of 4 queries, a key and a value, of 4 features each.
            ("groups", 2, [(16, 24), (40, 48)]),
        )
    ),
    *(
        Case(
            f"one head of keys and values that grows is hidden, by {parted}",
            M.attention,
            {"d": (16, 64), "heads": (4, 8), "size": (4, 12)},
            # Queries grow x 2 x 3, keys and values x 3: the largest says how small gradients are.
            {"piece.qkv.weight": ("hidden", D, 6), "piece.qkv.bias": ("input", 1, 6)},
            changes=("1/sqrt(12) -> sqrt(4)/12",),
            fixed={"kv": 1, "parted": parted, "bias": True},
        )
        for parted in ("split", "heads", "groups")
    ),
    Case(
        "fixed heads of keys and values with weights of their own; norms over a fixed head",
        M.apart,
        {"d": (16, 64), "heads": (4, 8)},
        {
            "piece.q.weight": ("hidden", D, HEADS),
            "piece.k.weight": ("output", D, 1),
            "piece.v.weight": ("output", D, 1),
            "piece.q_norm.weight": ("scalar", 1, 1),
            "piece.k_norm.weight": ("scalar", 1, 1),
            "piece.sink": ("input", 1, HEADS),
            "piece.out.weight": ("hidden", HEADS, D),
        },
        fixed={"kv": 2, "size": 4},
        warned=("MUF207",),
    ),
    Case(
        "one head of keys and values, repeated for the heads of queries, in attention by hand",
        M.repeated,
        {"d": (16, 64), "heads": (4, 8)},
        {
            "piece.q.weight": ("hidden", D, HEADS),
            "piece.k.weight": ("output", D, 1),
            "piece.v.weight": ("output", D, 1),
            "piece.out.weight": ("hidden", HEADS, D),
        },
        warned=("MUF207",),
    ),
    Case(
        "attention of one size beside a stream that grows: all of it reads out",
        M.repeated,
        {"d": (16, 64)},
        {
            "piece.q.weight": ("output", D, 1),
            "piece.k.weight": ("output", D, 1),
            "piece.v.weight": ("output", D, 1),
            "piece.out.weight": ("input", 1, D),
        },
        fixed={"heads": 4},
    ),
    Case(
        "heads that grow in size: normed queries and keys are correlated; a number for each head",
        M.apart,
        {"d": (16, 64), "size": (4, 12)},
        {
            "piece.k.weight": ("hidden", D, 3),
            "piece.q_norm.weight": ("input", 1, 3),
            "piece.k_norm.weight": ("input", 1, 3),
            "piece.sink": ("scalar", 1, 1),
            "piece.out.weight": ("hidden", 3, D),
        },
        changes=("1/sqrt(12) -> sqrt(4)/12",),
        fixed={"heads": 4, "kv": 2},
    ),
    Case(
        "queries of more heads that grow, and one key: logits may all start at zero",
        M.one_key,
        {"d": (16, 64), "heads": (4, 8), "size": (4, 12)},
        {
            "piece.q.weight": ("hidden", D, 6),
            "piece.k.weight": ("hidden", D, 3),
            "piece.v.weight": ("hidden", D, 3),
        },
        changes=("sqrt(12) -> 12/sqrt(4)",),
    ),
    Case(
        "queries of more heads that grow, and one table of distances: a mask of logits",
        M.relative_keys,
        {"d": (16, 64), "heads": (4, 8), "size": (4, 12)},
        {
            "piece.qkv.weight": ("hidden", D, 6),
            "piece.distances.weight": ("input", 1, 3),
            "piece.out.weight": ("hidden", 6, D),
        },
        changes=("1/sqrt(12) -> sqrt(4)/12", "1/sqrt(12) -> sqrt(4)/12"),
    ),
    *(
        Case(
            f"cosines keep their size, and their temperatures: {how}",
            M.cosine,
            {"d": (16, 64), "size": (4, 12), **heads},
            {"piece.qkv.weight": ("hidden", D, qkv), "piece.temperature": temperature},
            fixed=fixed,
        )
        for how, heads, fixed, qkv, temperature in (
            ("one for each of more heads", {"heads": (4, 8)}, {}, 6, ("input", 1, HEADS)),
            ("as many as before", {}, {"heads": 4}, 3, ("scalar", 1, 1)),
        )
    ),
    *(
        Case(
            f"linear attention, {how}: its state is made of vectors, and read over one of its axes",
            M.linear_attention,
            {"d": (16, 64), "heads": (4, 8), "size": (4, 12)},
            {"piece.qkv.weight": ("hidden", D, 6), "piece.out.weight": ("hidden", 6, D)},
            changes=changes,
            fixed={"normed": normed},
            warned=warned,
        )
        for how, normed, changes, warned in (
            ("as it is", False, (f"1 -> {1 / 3:.6g}",), ("MUF304",)),
            ("divided by the sum of its weights", True, (), ()),
        )
    ),
    Case(
        "heads of two blocks, joined by a copy: a fixed part of each of more heads is hidden",
        M.blocked,
        {"d": (16, 64), "heads": (4, 8), "size": (4, 12)},
        {"piece.qkv.weight": ("hidden", D, 6), "piece.out.weight": ("hidden", 6, D)},
        changes=("1/sqrt(12) -> sqrt(4)/12",),
    ),
    Case(
        "heads of two blocks, joined by a copy: a fixed part of a fixed number of them reads out",
        M.blocked,
        {"d": (16, 64), "size": (4, 12)},
        {"piece.qkv.weight": ("hidden", D, 3)},
        # In each block of 72 two queries, two keys and two values; 2 of 12 of a key are turned.
        rows={"piece.qkv.weight": [(r, r + 2) for r in (0, 12, 24, 36, 72, 84, 96, 108)]},
        changes=("1/sqrt(12) -> sqrt(4)/12",),
        fixed={"heads": 4},
    ),
    *(
        Case(
            f"attention to a context, {how}",
            M.Cross,
            {"d": (16, 64), **grown},
            {
                "q.weight": ("hidden", D, D),
                "k.weight": kept,
                "v.weight": kept,
                "read.weight": read,
            },
            changes=("1/sqrt(32) -> sqrt(8)/32",),
            fixed=fixed,
            inputs=(X, X),
        )
        for how, grown, fixed, kept, read in (
            (
                "that grows by its own factor",
                {"context": (8, 24)},
                {},
                ("hidden", 3, D),
                ("input", 1, 3),
            ),
            ("of a fixed width", {}, {"context": 8}, ("input", 1, D), ("scalar", 1, 1)),
        )
    ),
    Case(
        "scores of a graph's nodes read out, for each of more heads",
        M.graph_attention,
        {"d": (16, 64), "heads": (4, 8), "size": (4, 12)},
        {
            "piece.values.weight": ("hidden", D, 6),
            "piece.mine": ("output", 3, HEADS),
            "piece.its": ("output", 3, HEADS),
            "piece.out.weight": ("hidden", 6, D),
        },
    ),
    Case(
        "low ranks that grow are hidden; the shared rotary key reads out",
        M.latent,
        {"d": (16, 64), "heads": (4, 8), "rank": (4, 12)},
        {
            "piece.q_down.weight": ("hidden", D, RANK),
            "piece.q_up.weight": ("hidden", RANK, HEADS),
            "piece.kv_down.weight": ("hidden", D, RANK),
            "piece.kv_up.weight": ("hidden", RANK, HEADS),
        },
        rows={"piece.kv_down.weight": [(12, 14)]},
    ),
    Case(
        "low ranks that are fixed: the way down reads out, the way up is an input",
        M.latent,
        {"d": (16, 64), "heads": (4, 8)},
        {
            "piece.q_down.weight": ("output", D, 1),
            "piece.q_up.weight": ("input", 1, HEADS),
            "piece.kv_down.weight": ("output", D, 1),
            "piece.kv_up.weight": ("input", 1, HEADS),
        },
        fixed={"rank": 4},
    ),
)

STATES = (
    Case(
        "Mamba with a rank that grows",
        M.mamba,
        {"d": (16, 64), "inner": (32, 256), "rank": (2, 6)},
        {
            "piece.in_proj.weight": ("hidden", D, INNER),
            "piece.conv1d.weight": ("input", 1, INNER),
            "piece.conv1d.bias": ("input", 1, INNER),
            "piece.x_proj.weight": ("hidden", INNER, RANK),
            "piece.dt_proj.weight": ("hidden", RANK, INNER),
            "piece.dt_proj.bias": ("input", 1, INNER),
            "piece.A_log": ("input", 1, INNER),
            "piece.D": ("input", 1, INNER),
            "piece.out_proj.weight": ("hidden", INNER, D),
        },
        rows={"piece.x_proj.weight": [(6, 12)]},
    ),
    Case(
        "Mamba with a fixed rank",
        M.mamba,
        {"d": (16, 64), "inner": (32, 256)},
        {
            "piece.x_proj.weight": ("output", INNER, 1),
            "piece.dt_proj.weight": ("input", 1, INNER),
            "piece.dt_proj.bias": ("input", 1, INNER),
        },
        fixed={"rank": 2},
    ),
    Case(
        "Mamba-2: B and C read out, behind the convolution that they share with x",
        M.mamba2,
        {"d": (16, 64), "heads": (4, 8)},
        {
            "piece.in_proj.weight": ("hidden", D, HEADS),
            "piece.conv1d.weight": ("input", 1, HEADS),
            "piece.conv1d.bias": ("input", 1, HEADS),
            "piece.dt_bias": ("input", 1, HEADS),
            "piece.out_proj.weight": ("hidden", HEADS, D),
        },
        # 32 of the gate, 32 of x, then 3 of B and 3 of C.
        rows={"piece.in_proj.weight": [(64, 70)]},
    ),
    Case(
        "a state of Mamba-2 that grows is one of linear attention",
        M.mamba2,
        {"d": (16, 64), "heads": (4, 8), "state": (3, 6)},
        {
            "piece.in_proj.weight": ("hidden", D, HEADS),
            "piece.out_proj.weight": ("hidden", HEADS, D),
        },
        changes=("1 -> 0.5",),
        warned=("MUF304",),
    ),
)

CONDITIONS = (
    Case(
        "modulation from a condition of fixed size",
        M.AdaptiveNorm,
        {"d": (16, 64)},
        {
            "condition.weight": ("scalar", 1, 1),
            "modulation.weight": ("input", 1, D),
            "modulation.bias": ("input", 1, D),
        },
        fixed={"condition": 6},
        inputs=(X, X),
    ),
    Case(
        "modulation from a condition that grows",
        M.AdaptiveNorm,
        {"d": (16, 64), "condition": (6, 18)},
        {
            "condition.weight": ("input", 1, 3),
            "modulation.weight": ("hidden", 3, D),
            "modulation.bias": ("input", 1, D),
        },
        inputs=(X, X),
    ),
    Case(
        "a low-rank update of fixed rank: learning rates are a width apart",
        M.low_rank,
        {"d": (16, 64)},
        {"piece.A": ("output", D, 1), "piece.B": ("input", 1, D)},
        fixed={"rank": 2},
    ),
    Case(
        "a low-rank update whose rank grows: alpha / rank stays what it is at base",
        M.low_rank,
        {"d": (16, 64), "rank": (2, 6)},
        {"piece.A": ("hidden", D, RANK), "piece.B": ("hidden", RANK, D)},
        changes=("2.66667 -> 8",),
    ),
)

NORMED = "parametrizations.weight.original"
STANDARDIZED = ("a batch norm", "a layer norm", "var_mean", "mean and var", "std", "squares")
"""Rows whose entries are of size 1."""

WEIGHT_NORM = (
    Case(
        "weight norm: the direction learns like the weight, the length is a gain",
        M.Normed,
        {"d": (16, 64)},
        {
            f"first.{NORMED}1": ("input", 1, D),
            f"first.{NORMED}0": ("input", 1, D),
            f"hidden.{NORMED}1": ("hidden", D, D),
            f"hidden.{NORMED}0": ("input", 1, D),
            f"last.{NORMED}1": ("output", D, 1),
        },
    ),
    Case(
        "weight norm over all channels",
        M.normed_taps,
        {"d": (16, 64)},
        {f"piece.conv.{NORMED}1": ("hidden", D, D)},
    ),
    *(
        Case(
            f"rows over their size, by {how}: they learn like the weight",
            M.directed,
            {"d": (16, 64)},
            {"piece.weight": ("hidden", D, D), "piece.gain": gain},
            changes=changes,
            fixed={"how": how},
            warned=warned,
        )
        for how, changes, warned, gain in (
            *((how, ("1 -> 0.5",), ("MUF205", "MUF304"), ("scalar", 1, 1)) for how in STANDARDIZED),
            ("a vector norm", ("1/sqrt(64) -> 1/sqrt(16)",), ("MUF205",), ("scalar", 1, 1)),
            ("normalize", (), ("MUF205",), ("scalar", 1, 1)),
            ("their sum", (), ("MUF205",), ("scalar", 1, 1)),
            ("a batch norm with a gain", (), (), ("input", 1, D)),
            ("a norm", (), (), ("input", 1, D)),
        )
    ),
)

FREQUENCIES = (
    Case(
        "a weight for each frequency",
        M.spectral,
        {"d": (16, 64)},
        {"piece.weight": ("hidden", D, D)},
        fixed={"centred": True},
    ),
)

SHARING = (
    Case(
        "a layer at three depths",
        M.shared,
        {"d": (16, 64), "ff": (8, 48)},
        {
            "piece.up.weight": ("hidden", D, FF),
            "piece.up.bias": ("input", 1, FF),
            "piece.down.weight": ("hidden", FF, D),
            "piece.norm.weight": ("input", 1, D),
        },
    ),
    Case(
        "an encoder of two inputs, and a temperature",
        M.TwoTowers,
        {"d": (16, 64)},
        {
            "hidden.weight": ("hidden", D, D),
            "project.weight": ("output", D, 1),
            "temperature": ("scalar", 1, 1),
        },
        inputs=(X, X),
    ),
    Case(
        "a weight and its transpose, both of which grow alike",
        M.autoencoder,
        {"d": (16, 64), "code": (8, 32)},
        {"piece.weight": ("hidden", D, D)},
    ),
    Case(
        "a weight and its transpose that grow unlike: both rates are right, the smaller init",
        M.autoencoder,
        {"d": (16, 64), "code": (8, 48)},
        # The transpose contracts 6 times as much: its rate is 1/6, so a multiplier of 4/6.
        {"piece.weight": ("hidden", D, 6)},
        changes=(f"1 -> {4 / 6:.6g}",),
        warned=("MUF203", "MUF304"),
    ),
)

POSITIONS = (
    Case(
        "tables of positions, and a bias for each of a fixed number of heads",
        M.positions,
        {"d": (16, 64)},
        {"piece.learned": ("input", 1, D), "piece.distance.weight": ("scalar", 1, 1)},
        changes=("1/sqrt(16) -> sqrt(4)/16",),
        fixed={"heads": 4},
    ),
    Case(
        "a bias for each of more heads",
        M.positions,
        {"d": (16, 64), "heads": (4, 16)},
        {"piece.learned": ("input", 1, D), "piece.distance.weight": ("input", 1, 4)},
    ),
)

CASES = (
    *EXPERTS,
    *GATED,
    *ATTENTION,
    *STATES,
    *CONDITIONS,
    *WEIGHT_NORM,
    *FREQUENCIES,
    *SHARING,
    *POSITIONS,
)
each = pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES])


@cache
def converted(case: Case) -> Conversion:
    base, target = ({k: v[i] for k, v in case.sizes.items()} for i in (0, 1))
    return mufx.convert(case.build, case.inputs, {**case.fixed, **base}, {**case.fixed, **target})


def entry(case: Case, parameter: str) -> ParameterEntry:
    return converted(case).manifest.parameters[parameter]


@each
def test_parameters_have_the_role_and_scales_of_the_rule(case: Case) -> None:
    found = {name: entry(case, name) for name in case.kinds}

    assert {n: (str(e.role), e.m_in, e.m_out) for n, e in found.items()} == case.kinds
    for name, e in found.items():
        scales = wanted(case.kinds[name])
        assert (e.init_scale, e.lr_scale, e.eps_scale) == pytest.approx(scales)


@each
def test_rows_read_out_where_what_they_make_is_fixed(case: Case) -> None:
    """A readout's 1/m_in over a hidden weight's m_in**-1/2."""
    parameters = converted(case).manifest.parameters
    blocks = {name: e.rows for name, e in parameters.items() if e.rows}

    assert {n: [(r.start, r.stop) for r in rows] for n, rows in blocks.items()} == case.rows
    for name, rows in blocks.items():
        further = wanted(("output", parameters[name].m_in, 1))[0] / parameters[name].init_scale
        assert [r.init_correction for r in rows] == pytest.approx([further] * len(rows))


@each
def test_the_forward_pass_changes_where_it_must(case: Case) -> None:
    manifest = converted(case).manifest

    assert tuple(f"{c.before} -> {c.after}" for c in manifest.changes) == case.changes
    assert tuple(d.code for d in manifest.diagnostics) == case.warned


def test_keys_and_values_of_one_size_have_one_note_at_its_place() -> None:
    case = next(case for case in CASES if case.build is M.repeated)
    (found,) = converted(case).manifest.diagnostics

    assert found.message.startswith("piece.k.weight (and 1 more): keys or values")
    assert "1/4 times" in found.message
    assert "1/sqrt(4) times" in found.message
    assert found.place is not None
    assert found.place.file.endswith("architectures.py")
    assert found.severity is Severity.NOTE
    assert "grow with the queries'" in found.hint


# -- what is not a role alone -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "gain", "factor"),
    [
        # A readout's rows grow longer as sqrt(m) and should have entries of 1/m.
        (M.Normed, f"last.{NORMED}0", D**-0.5),
        # Over all channels the length grows as m where the entries should fall as sqrt(m).
        (M.normed_taps, f"piece.conv.{NORMED}0", D**0.5),
    ],
    ids=["readout", "all channels"],
)
def test_the_length_of_a_normed_weight_takes_what_its_direction_cannot(
    build: Callable[..., nn.Module], gain: str, factor: float
) -> None:
    """Of v only the direction counts, so g starts and learns with the factor that v lacks."""
    own = mufx.convert(build, (X,), {"d": 16}, {"d": 64}).manifest.parameters[gain]

    assert (own.init_scale, own.lr_scale) == pytest.approx((factor, factor))


def weight_of(model: nn.Module, module: str) -> Tensor:
    gain, direction = (model.get_parameter(f"{module}.{NORMED}{i}").detach() for i in (0, 1))
    axes = [i for i in range(direction.dim()) if gain.shape[i] == 1]
    length: Tensor = torch.linalg.vector_norm(direction, dim=axes, keepdim=True)
    return gain * direction / length


@pytest.mark.parametrize(
    ("build", "module", "role"),
    [
        (M.Normed, "first", ("input", 1.0, D)),
        (M.Normed, "hidden", ("hidden", D, D)),
        (M.Normed, "last", ("output", D, 1.0)),
        (M.normed_taps, "piece.conv", ("hidden", D, D)),
    ],
)
def test_the_weight_under_weight_norm_starts_as_its_role_says(
    build: Callable[..., nn.Module], module: str, role: Kind
) -> None:
    torch.manual_seed(0)
    base = weight_of(build(256), module)
    wide = weight_of(mufx.convert(build, (X,), {"d": 256}, {"d": 1024}).module(seed=0), module)

    assert float(wide.std() / base.std()) == pytest.approx(wanted(role)[0], rel=0.03)


def test_the_weight_of_a_frequency_starts_as_a_hidden_one() -> None:
    """Its init is 1/d, and should be the base's times m**-1/2."""

    def weight(model: nn.Module) -> Tensor:
        return torch.view_as_real(model.get_parameter("piece.weight").detach())

    torch.manual_seed(0)
    base = weight(M.spectral(64, centred=True))
    fixed = {"centred": True}
    conversion = mufx.convert(M.spectral, (X,), {"d": 64, **fixed}, {"d": 256, **fixed})
    wide = weight(conversion.module(seed=0))

    for part in (0, 1):
        assert float(wide[..., part].std() / base[..., part].std()) == pytest.approx(0.5, rel=0.03)


def test_a_tied_readout_folds_into_the_norm_before_it() -> None:
    """The embedding stays an input, and 1/m goes into the norm: init and rate 1/m, eps 1."""
    conversion = mufx.convert(M.Tied, (TOKENS,), {"d": 16}, {"d": 64})
    parameters = conversion.manifest.parameters
    embedding = parameters["embedding.weight"]

    assert (str(embedding.role), embedding.init_scale, embedding.lr_scale) == ("input", 1, 1)
    for name in ("norm.weight", "norm.bias"):
        own = parameters[name]
        assert str(own.role) == "input"
        assert (own.init_scale, own.lr_scale, own.eps_scale) == pytest.approx((1 / D, 1 / D, 1.0))
    assert conversion.manifest.changes == ()


# -- what has no limit at large width -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Refusal:
    """A model at two widths, and why it is not converted: code, what the place says, hint."""

    name: str
    build: Callable[..., nn.Module]
    sizes: Mapping[str, tuple[int, int]]
    code: str
    line: str
    hint: str
    fixed: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[Tensor, ...] = (X,)


KEEP_FIXED = "keep one of these two sizes fixed"

THEN: Mapping[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda w: w,
    "joined of parts": lambda w: torch.cat([w[:, :2], w[:, 2:]], 1),
    "stacked and summed": lambda w: torch.stack([w, w.roll(1, -1)], -1).sum(-1),
    "masked": lambda w: torch.where(w > 0, w, torch.zeros_like(w)).tril(),
    "normed by a softmax": lambda w: w.softmax(-1),
    "repeated and averaged": lambda w: w[:, None].repeat(1, 2, 1, 1).mean(1),
    "times a style": lambda w: torch.einsum("bij,bj->bij", w, w.mean(1)),
}
"""What is done to a weight before it is used."""

REFUSALS = (
    Refusal(
        "experts, and how many of them a token has, grow together",
        M.experts,
        {"d": (16, 64), "experts": (4, 8), "chosen": (2, 4)},
        "MUF202",
        "weights, chosen = self.router(x).softmax(-1).topk(self.chosen, dim=-1)",
        "keep their number fixed",
        {"ff": 8, "normed": True},
    ),
    Refusal(
        "two of more experts, by weights that do not share the whole",
        M.experts,
        {"d": (16, 64), "experts": (4, 8)},
        "MUF301",
        "weights, chosen = self.router(x).softmax(-1).topk(self.chosen, dim=-1)",
        "divide what is chosen by its sum",
        {"ff": 8, "normed": False},
    ),
    *(
        Refusal(f"{what} makes a weight", build, {"d": (16, 64)}, "MUF202", line, KEEP_FIXED)
        for what, build, line in (
            (
                "a style",
                M.modulated,
                "y = F.conv1d(features, weight.reshape(b * d, d, 3), padding=1, groups=b)",
            ),
            ("a lookup", M.relations, 'return torch.einsum("btj,tij->bti", x, weight).tanh()'),
            ("a product", M.spelled_out, "return (x.unsqueeze(-2) * self.weight).sum(-1)"),
            ("a mixture", M.mixed, "return x @ weight"),
            ("a triangle", M.triangular, "return x @ whole"),
            ("a block", M.blocks, "return x @ whole"),
        )
    ),
    *(
        Refusal(
            f"a layer makes a weight, {name}",
            M.hypernetwork,
            {"d": (16, 64)},
            "MUF202",
            'return torch.einsum("btj,bij->bti", x, weight).tanh()',
            KEEP_FIXED,
            {"then": then},
        )
        for name, then in THEN.items()
    ),
    *(
        Refusal(
            f"rows that keep a size of their own, by {how}",
            M.directed,
            {"d": (16, 64)},
            "MUF202",
            "return F.linear(x, ROWS[self.how](self.weight, self.gain))",
            "contract the parameters themselves",
            {"how": how},
        )
        for how in (
            "a variance it is multiplied with",
            "a norm and one",
            "a norm of 1 at most",
            "logaddexp of its mean",
            "another's norm",
        )
    ),
    Refusal(
        "weights that are not linear in a parameter",
        M.positive,
        {"d": (16, 64)},
        "MUF202",
        "return F.linear(x, self.weight.abs())",
        "contract the parameters themselves",
    ),
    Refusal(
        "spectral norm, a power iteration of torch's own",
        M.spectrally_normed,
        {"d": (16, 64)},
        "MUF102",
        "return self.hidden(x).tanh()",
        "the region is torch's own: convert the model without SpectralNorm",
    ),
    Refusal(
        "weights of frequencies that start at a mean",
        M.spectral,
        {"d": (16, 64)},
        "MUF204",
        'modes = torch.einsum("bkc,cok->bko", torch.fft.rfft(x, dim=1), self.weight)',
        "initialise it with zero mean",
        {"centred": False},
    ),
    Refusal(
        "a state that grows beside the channels: a decay for each pair",
        M.mamba,
        {"d": (16, 64), "inner": (32, 128), "state": (3, 12)},
        "MUF202",
        "return (state * c.unsqueeze(-2)).sum(-1)",
        KEEP_FIXED,
        {"rank": 2},
    ),
    Refusal(
        "a state that grows alone: decays further and further apart",
        M.mamba,
        {"state": (3, 12)},
        "MUF204",
        "return (state * c.unsqueeze(-2)).sum(-1)",
        "keep this size fixed",
        {"d": 16, "inner": 32, "rank": 2},
    ),
)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in REFUSALS])
def test_what_has_no_limit_is_refused_at_its_place(case: Refusal) -> None:
    base, target = ({k: v[i] for k, v in case.sizes.items()} for i in (0, 1))

    with pytest.raises(MufxError) as caught:
        mufx.convert(case.build, case.inputs, {**case.fixed, **base}, {**case.fixed, **target})

    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.hint.startswith(case.hint)) == (case.code, True)
    assert problem.place is not None
    lines = Path(problem.place.file).read_text(encoding="utf-8").splitlines()
    assert lines[problem.place.line - 1].strip() == case.line
