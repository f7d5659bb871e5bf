"""`mufx check`: what it sees, keeps, and refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import mufx
from mufx.api import convert_source, trace
from mufx.check.checking import checked
from mufx.check.designing import by_design
from mufx.check.experiment import Experiment, prepared
from mufx.check.own import own_changes
from mufx.check.predicting import Prediction
from mufx.check.request import Request, Variant, parsed
from mufx.check.result import Checked, NodeRow
from mufx.check.show import NO_FIRST_STEP, conclusions, show
from mufx.check.slopes import Slope, Verdict, fit
from mufx.check.storage import FILE, Runs
from mufx.check.training import Run, distance, first_step, run
from mufx.check.watch import activations
from mufx.check.widths import check_widths, chosen
from mufx.cli import app
from mufx.diagnostics import MufxError
from mufx.discovery import find
from mufx.inputs import Inputs
from mufx.source import load

EXAMPLES = Path(__file__).parent.parent / "examples"
MLP = str(EXAMPLES / "mlp.py")
WIDTHS = (64, 128, 256, 512)


def experiment(**changed: object) -> Experiment:
    settings: dict[str, Any] = {"widths": WIDTHS, "lr": 1e-2, "batch": 64, "seeds": 2, **changed}
    return prepared(Request(**settings), load(MLP), find(MLP))


def test_slope_and_error_of_a_power_law() -> None:
    sizes = [[float(width) ** 0.5] * 3 for width in WIDTHS]

    slope = fit(WIDTHS, sizes)

    assert slope.value == pytest.approx(0.5)
    assert slope.error == pytest.approx(0.0, abs=1e-9)
    assert slope.verdict is Verdict.GROWS
    assert slope.relative_to(0.5) is Verdict.FLAT


def test_seeds_that_disagree_are_too_noisy_to_say() -> None:
    sizes = [[width**1.0, width**-1.0] for width in WIDTHS]

    assert fit(WIDTHS, sizes).verdict is Verdict.NOISY


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.3, 0.05, Verdict.GROWS),
        (0.3, 0.1, Verdict.NOISY),  # a right conversion reaches this in one check of four
        (0.1, 0.1, Verdict.FLAT),
        (-0.6, 0.1, Verdict.FLAT),
        (-0.8, 0.1, Verdict.VANISHES),
    ],
)
def test_a_slope_counts_where_two_errors_are_past_its_bound(
    value: float, error: float, verdict: Verdict
) -> None:
    assert Slope(value, error).verdict is verdict


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ([0.0, 1.0, 1.0, 1.0], Verdict.STILL),
        ([1.0, 1.0, 0.0, 1.0], Verdict.VANISHES),
        ([0.0, 0.0, 0.0, 0.0], Verdict.CONSTANT),
        ([math.inf, 1.0, 1.0, 1.0], Verdict.DIVERGED),
    ],
)
def test_sizes_without_a_slope(sizes: list[float], verdict: Verdict) -> None:
    assert fit(WIDTHS, [[size] for size in sizes]).verdict is verdict


class Routed(nn.Module):
    """An embedding of tokens beside how many there are of each, and memory that is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 8)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shares = tokens.float().histc(4) / 8
        embedded = self.embedding(tokens)
        copied = embedded.new_empty(embedded.shape)
        copied.copy_(embedded * shares[0])
        return copied, shares


def test_counts_and_unwritten_memory_are_no_activations() -> None:
    found = activations(Routed(), ((torch.tensor([0, 1, 1, 3]),), {}))

    assert list(found) == ["embedding:embedding#1", ":mul#1", ":copy#1"]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.project(x).view(2, 5, 2, 4).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(q, q, q, scale=0.5)


def test_logits_inside_a_fused_kernel_are_seen_and_views_are_not() -> None:
    torch.manual_seed(0)
    model, x = Attention(), torch.randn(2, 5, 8)

    found = activations(model, ((x,), {}))

    q = model.project(x)[0].view(5, 2, 4).transpose(0, 1)
    name = ":scaled_dot_product_attention#1"
    assert list(found) == ["project:linear#1", f"{name}/logits", name]
    torch.testing.assert_close(found[f"{name}/logits"], q @ q.transpose(1, 2) * 0.5)


@pytest.mark.parametrize("sizes", [(5, 4), (2, 5, 4), (3, 2, 5, 4), (3, 1, 2, 5, 4)])
def test_logits_of_attention_in_any_number_of_axes(sizes: tuple[int, ...]) -> None:
    class Attending(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x, scale=1.0)

    torch.manual_seed(0)
    x = torch.randn(sizes)

    found = activations(Attending(), ((x,), {}))

    heads = x.reshape(-1, 5, 4)[:2]
    expected = (heads @ heads.mT)[: 1 if len(sizes) == 2 else 2]
    torch.testing.assert_close(found[":scaled_dot_product_attention#1/logits"], expected)


def test_a_loss_that_is_not_finite_ends_a_run_and_is_recorded() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)

    batch: Inputs = ((torch.ones(3, 2),), {})
    seen = run(model, optimizer, lambda m, b: m(*b[0]).pow(2).sum(), [batch] * 9, batch)

    assert seen.diverged is not None
    assert seen.changes == {}


@pytest.mark.parametrize(
    "loss_of",
    [
        pytest.param(lambda m, b: m(*b[0]).pow(2).sum(), id="loss"),
        pytest.param(lambda m, b: m(*b[0]).mul(1e30).nan_to_num(0.0, 0.0, 0.0).sum(), id="node"),
    ],
)
def test_what_the_last_step_blows_up_diverged(loss_of: Callable[..., torch.Tensor]) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    batch: Inputs = ((torch.ones(3, 2),), {})

    seen = run(model, optimizer, loss_of, [batch], batch)

    assert seen == Run({}, {}, {}, diverged=1)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = torch.ones(4, 4).triu(1) > 0
        logits: torch.Tensor = self.project(x).masked_fill(above, -math.inf)
        return logits.softmax(-1)


def test_a_distance_is_a_mean_over_finite_entries_and_changes_neither_value() -> None:
    one, other = torch.tensor([1.0, -math.inf, 4.0]), torch.tensor([3.0, -math.inf, 3.0])

    assert distance(one, other) == pytest.approx(1.5)
    assert distance(torch.tensor([3 + 4j]), torch.tensor([0j])) == pytest.approx(5.0)
    assert one.tolist() == [1.0, -math.inf, 4.0]
    assert other.tolist() == [3.0, -math.inf, 3.0]


def test_a_mask_of_minus_infinity_never_was_finite() -> None:
    model = Masked()
    batch: Inputs = ((torch.eye(4),), {})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    seen = run(model, optimizer, lambda m, b: m(*b[0])[:, 0].sum(), [batch], batch)

    assert seen.diverged is None
    assert seen.changes[":masked_fill#1"] > 0


@pytest.fixture(scope="module")
def mlp() -> Checked:
    return checked(experiment(), lambda settings: Runs(None, settings))


def test_the_converted_mlp_is_flat_both_ways_and_the_original_grows(mlp: Checked) -> None:
    assert mlp.passes
    assert {row.verdict for row in mlp.of(Variant.MUP)} == {Verdict.FLAT}
    assert {row.verdict for row in mlp.of(Variant.APPLIED)} == {Verdict.FLAT}
    assert mlp.largest(Variant.SP) > 0.5


def test_a_table_wider_than_the_console_keeps_the_names_of_the_nodes(mlp: Checked) -> None:
    name = "a.long.way.down:scaled_dot_product_attention#1/logits"
    console = Console(file=StringIO(), width=60)

    show(replace(mlp, rows=(replace(mlp.rows[0], node=name),)), console)

    assert isinstance(console.file, StringIO)
    assert f"{name} " in console.file.getvalue()


@pytest.mark.parametrize("nothing", [Slope(None), Slope(0.1, 0.2)])
def test_a_check_that_judged_nothing_does_not_hold(mlp: Checked, nothing: Slope) -> None:
    found = replace(mlp, rows=tuple(replace(row, change=nothing) for row in mlp.rows))

    assert not found.passes
    assert found.departures == ()
    assert "no node of it was judged" in conclusions(found)[-1]


def test_a_check_says_of_how_much_it_says_nothing(mlp: Checked) -> None:
    row = mlp.of(Variant.MUP)[0]
    noisy = replace(row, change=Slope(0.2, 0.2))

    found = replace(mlp, rows=(noisy, row, row))

    assert found.passes
    assert "μP: 1 of 3 nodes are too noisy to say; more --seeds, or widths further apart, tell" in (
        conclusions(found)
    )


def test_prediction_and_measurement_have_the_same_nodes(mlp: Checked) -> None:
    assert all(row.predicted is not None for v in (Variant.SP, Variant.MUP) for row in mlp.of(v))
    assert [row.node for row in mlp.of(Variant.MUP) if row.disagrees] == []


@pytest.mark.parametrize(
    ("optimizer", "first", "second", "readout"),
    [("adamw", 0.0, 1.0, 1.5), ("sgd", -0.5, 0.5, 1.0)],
)
def test_a_first_step_in_standard_parametrization_has_the_slopes_of_theory(
    optimizer: str, first: float, second: float, readout: float
) -> None:
    source = load(MLP, {"width": 2**12}, {"width": 2**15})
    program = convert_source(source, optimizer=optimizer).program
    original = trace(source, optimizer=optimizer).train

    found = Prediction(program, original, converted=False, batch=1).exponents(8)

    assert found["fc1:linear#1"] == pytest.approx(first, abs=0.02)
    assert found["fc2:linear#1"] == pytest.approx(second, abs=0.02)
    assert found["out:linear#1"] == pytest.approx(readout, abs=0.02)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
def test_a_first_step_in_mup_has_slopes_of_zero_in_every_form(optimizer: str, form: str) -> None:
    source = load(MLP, {"width": 2**12}, {"width": 2**15})
    program = convert_source(source, optimizer=optimizer, form=form).program

    found = Prediction(program, program.train, converted=True, batch=1).exponents(8)

    layers = [found[f"{name}:linear#1"] for name in ("fc1", "fc2", "out")]
    assert layers == pytest.approx([0.0, 0.0, 0.0], abs=0.02)


class TensorScaled(nn.Module):
    """Attention whose scale is a tensor, computed from the size of the head, as in DeBERTa."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, width, bias=False), nn.Linear(4, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key = self.query(x), self.key(x)
        scale = torch.sqrt(torch.tensor(float(query.shape[-1])))
        return torch.bmm(query, key.mT / scale).softmax(-1)


def test_a_constant_that_grows_is_no_part_of_what_base_starts_with() -> None:
    inputs = (torch.randn(2, 3, 4),)
    program = mufx.convert(TensorScaled, inputs, {"width": 16}, {"width": 64}).program

    prediction = Prediction(program, program.train, converted=True, batch=2)
    sizes, _ = prediction.starts(4, by_design(program, 4))

    (start,) = (value for name, value in sizes.items() if "bmm" in name)
    assert start == pytest.approx(-0.5)  # sqrt(d) products of either sign, over d


def test_fused_attention_is_seen_step_by_step() -> None:
    torch.manual_seed(0)
    model, x = nn.MultiheadAttention(8, 2, bias=False), torch.randn(5, 1, 8)

    found = activations(model, ((x, x, x), {}))

    q, k, _ = nn.functional.linear(x[:, 0], model.in_proj_weight).chunk(3, dim=-1)
    logits = q.view(5, 2, 4).transpose(0, 1) @ k.view(5, 2, 4).permute(1, 2, 0) / 2
    torch.testing.assert_close(found[":scaled_dot_product_attention#1/logits"], logits)
    torch.testing.assert_close(found[":linear#4"].flatten(), model(x, x, x)[0].flatten())


def test_a_run_that_diverged_fails_the_check() -> None:
    made = experiment(seeds=1)

    def runs(settings: str) -> Runs:
        kept = Runs(None, settings)
        kept.get("mup", 128, 0, lambda: Run({}, {}, {}, diverged=3))
        return kept

    found = checked(made, runs)

    assert not found.passes
    assert (Variant.MUP, 128, 0, 3) in found.diverged
    assert {row.verdict for row in found.of(Variant.MUP)} == {Verdict.DIVERGED}


def test_finished_runs_are_taken_up_and_a_cut_line_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / FILE
    Runs(file, "a").get("mup", 64, 0, lambda: Run({"x": 0.0}, {"x": 1.0}, {"x": 2.0}))
    with file.open("a") as stream:
        stream.write('{"settings": "a", "key": "mup 64 1", "ru')
    again = Run({}, {"x": 5.0}, {"x": 5.0})

    second = Runs(file, "a")

    assert second.get("mup", 64, 0, lambda: again) == Run({"x": 0.0}, {"x": 1.0}, {"x": 2.0})
    assert second.get("mup", 64, 1, lambda: again) == again
    assert Runs(file, "a").get("mup", 64, 1, lambda: Run({}, {}, {})) == again
    assert Runs(file, "b").get("mup", 64, 0, lambda: again) == again


def test_one_width_more_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / FILE
    settings: dict[str, Any] = {"seeds": 1, "steps": 1, "variants": (Variant.MUP,)}
    checked(experiment(**settings), partial(Runs, file))
    before = file.read_text()

    checked(experiment(widths=(*WIDTHS, 1024), **settings), partial(Runs, file))

    after = file.read_text()
    assert after.startswith(before)
    assert [json.loads(line)["key"] for line in after[len(before) :].splitlines()] == ["mup 1024 0"]


def test_nodes_that_some_runs_lack_are_reported(mlp: Checked) -> None:
    (run_, *others) = mlp.runs[Variant.MUP][128]
    without = {name: size for name, size in run_.changes.items() if name != "fc2:linear#1"}
    lacking = (replace(run_, changes=without), *others)
    runs = {**mlp.runs, Variant.MUP: {**mlp.runs[Variant.MUP], 128: lacking}}

    found = replace(mlp, runs=runs)

    assert found.document()["missing"] == {"mup": ["fc2:linear#1"]}
    assert "μP, emitted: left out, not in every run (1): fc2:linear#1" in conclusions(found)
    assert mlp.document()["missing"] == {}


class Single(nn.Module):
    """Computes in float32, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.project(x.float())
        return projected


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.project(x)
        return projected.reshape(7)


def stepped(model: nn.Module) -> tuple[Mapping[str, float], Mapping[str, float]]:
    batch: Inputs = ((torch.ones(3, 2),), {})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return first_step(model, optimizer, lambda m, b: m(*b[0]).sum(), batch, batch)


def test_a_precision_of_its_own_leaves_the_first_step_out(mlp: Checked) -> None:
    assert stepped(Single()) == ({}, {})

    runs = {
        v: {w: tuple(replace(r, first={}) for r in made) for w, made in by.items()}
        for v, by in mlp.runs.items()
    }
    assert NO_FIRST_STEP in conclusions(replace(mlp, runs=runs))
    assert NO_FIRST_STEP not in conclusions(mlp)


def test_another_error_in_the_first_step_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="shape '\\[7\\]' is invalid"):
        stepped(Wrong())


class Derived(nn.Module):
    """A weight that is made of a parameter, and a bias that is added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight * 0.5).add_(self.bias)


def test_the_most_that_a_step_can_change_is_a_sum_of_one_sign() -> None:
    x = torch.tensor([[3.0, -5.0], [0.0, 1.0]])
    steps = {"weight": torch.tensor([[0.1, 0.1]]), "bias": torch.tensor([-0.2])}

    found = own_changes(Derived(), ((x,), {}), steps)

    assert list(found) == [":linear#1 weight", ":add#1 bias"]
    torch.testing.assert_close(found[":linear#1 weight"], torch.tensor([[0.4], [0.05]]))
    torch.testing.assert_close(found[":add#1 bias"], torch.full((2, 1), 0.2))


def row(start: float, change: float, *, node: str = "x:mul#1", predicted: float = 0.0) -> NodeRow:
    begins, ends, size = Slope(start, 0.01), Slope(change, 0.01), Slope(0.0)
    return NodeRow(Variant.MUP, node, begins, size, ends, 0.0, Slope(predicted, 0.01), predicted)


@pytest.mark.parametrize(
    ("made", "departs"),
    [
        (row(0.0, 0.2), True),
        (row(0.2, 0.0), True),
        (row(0.0, -0.7), True),
        (row(-0.5, -0.7), False),
        (row(0.0, -0.7, predicted=-0.5), False),
        (row(-2.0, -1.2), True),
        (row(0.2, 0.4, node="norm:rsqrt#1"), False),
        (row(-0.5, 0.2), False),
        (replace(row(-0.5, 0.2), size=Slope(0.2, 0.01)), True),
    ],
)
def test_what_departs(made: NodeRow, departs: bool) -> None:
    assert made.departs is departs


def test_to_stop_moving_departs_and_what_never_moves_is_not_judged() -> None:
    lost, constant = (Slope(None, 0.0, why) for why in (Verdict.VANISHES, Verdict.CONSTANT))

    assert replace(row(0.0, 0.0), change=lost).departs
    assert replace(row(0.0, 0.0), change=lost, variant=Variant.APPLIED).departs
    assert not replace(row(1.06, 0.0, node="time_proj:arange#1"), change=constant).departs


def test_a_killed_check_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL in the middle: what was finished is not run again, and the result is the same."""
    asked = ["check", MLP, "--base", "width=8", "--widths", "8:64", "--seeds", "1"]
    asked += ["--steps", "40", "-o"]
    runs = tmp_path / "killed" / FILE
    command = [sys.executable, "-m", "mufx", *asked, str(runs.parent)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not runs.exists() or not runs.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = [line for line in runs.read_text().splitlines(keepends=True) if line[-1] == "\n"]

    done = CliRunner().invoke(app, [*asked, str(runs.parent)])
    whole = CliRunner().invoke(app, [*asked, str(tmp_path / "whole")])

    lines = runs.read_text().splitlines(keepends=True)
    keys = [json.loads(line)["key"] for line in lines if line.startswith('{"settings"')]
    assert lines[: len(before)] == before
    assert len(keys) == len(set(keys)) == 3 * 4
    assert done.stdout == whole.stdout


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"widths": (64, 128, 256)}, "MUF760"),
        ({"widths": (8, 16, 32, 64)}, "MUF760"),
        ({"device": "nowhere"}, "MUF761"),
        ({"device": "meta"}, "MUF761"),
        ({"lr": 0.0}, "MUF761"),
        ({"lr": math.nan}, "MUF761"),
        ({"lr": math.inf}, "MUF761"),
    ],
)
def test_bad_settings_are_refused(changed: dict[str, object], code: str) -> None:
    with pytest.raises(MufxError) as problem:
        experiment(**changed)

    assert problem.value.diagnostics[0].code == code


GPT = str(EXAMPLES / "gpt.py")
DEFAULTS = {
    "mlp": {"width": [64, 128, 256, 512, 1024]},
    "gpt": {"n_embd": [64, 144, 256, 400], "n_head": [2, 3, 4, 5]},
    "llama": {"dim": [64, 144, 256, 400], "hidden_dim": [160, 410, 800, 1343]},
    "resnet": {"width": [16, 24, 48, 64]},
    "encoder": {"d_model": [64, 100, 144, 256], "nhead": [4, 5, 6, 8]},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_widths_by_default_are_four_or_more_that_the_model_takes(name: str) -> None:
    source = load(str(EXAMPLES / f"{name}.py"))

    def fits(knobs: Mapping[str, object]) -> bool:
        try:
            with torch.device("meta"):
                args, kwargs = source.inputs(2, source.base)
                source.build(**knobs)(*args, **kwargs)
        except (ValueError, RuntimeError, AssertionError):
            return False
        return True

    found = chosen(source, fits)

    assert found is not None
    assert {knob: [at[knob] for at in found.values()] for knob in DEFAULTS[name]} == DEFAULTS[name]


def test_base_and_target_of_the_gpt_are_enough_to_check_it() -> None:
    knobs = {"n_layer": 1}
    source = load(GPT, {"n_embd": 64, "n_head": 2, **knobs}, {"n_embd": 256, "n_head": 4, **knobs})

    made = prepared(Request(seeds=1), source, find(GPT))

    assert list(made.models.widths) == [64, 144, 256, 400]


def test_too_few_widths_are_answered_with_widths_from_base() -> None:
    resnet = str(EXAMPLES / "resnet.py")

    with pytest.raises(MufxError) as problem:
        check_widths(load(resnet), (16, 32, 64), lambda _: True, find(resnet).factory.place)

    (said,) = problem.value.diagnostics
    assert said.code == "MUF760"
    assert "--widths 16,24,48,64" in str(said.hint)


def test_a_width_that_the_model_does_not_take_is_named() -> None:
    knobs = {"n_head": 2, "n_layer": 1}
    source = load(GPT, {"n_embd": 64, **knobs}, {"n_embd": 256, **knobs})

    with pytest.raises(MufxError) as problem:
        prepared(Request(widths=(64, 128, 255, 512)), source, find(GPT))

    (said,) = problem.value.diagnostics
    assert (said.code, said.place) == ("MUF760", find(GPT).factory.place)
    assert "width 255 is no size of the model: at n_embd=255" in said.message
    assert "is not a multiple of 2 heads" in said.message


def test_widths_are_typed_as_for_a_sweep() -> None:
    assert parsed("64:512") == parsed("64,128,256,512") == (64, 128, 256, 512)


@pytest.mark.parametrize("typed", ["8:wide", "64,-1", "64,1.5", "", "64,x"])
def test_widths_that_cannot_be_read_are_refused(typed: str) -> None:
    with pytest.raises(MufxError) as problem:
        parsed(typed)

    assert problem.value.diagnostics[0].code == "MUF761"


def test_batches_that_end_early_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "few.py"
    file.write_text(
        "import torch\n\n\ndef data(batch):\n"
        "    yield torch.randn(batch, 32), torch.zeros(batch, dtype=torch.long)\n"
    )

    with pytest.raises(MufxError) as problem:
        experiment(data=str(file))

    assert problem.value.diagnostics[0].code == "MUF754"


def test_the_command_fails_and_says_where_where_training_diverges() -> None:
    asked = ["check", MLP, "--optimizer", "sgd", "--lr", "1e9", "--seeds", "1", "--steps", "9"]

    done = CliRunner().invoke(app, asked)

    assert done.exit_code == 1
    assert "μP, emitted diverged at width=64, seed 0, in step" in done.output
    assert "μP does not hold" in done.output


def test_the_command_writes_numbers_and_figures(tmp_path: Path) -> None:
    settings = ["--widths", "64:512", "--lr", "1e-2", "--seeds", "1", "--batch", "64"]

    done = CliRunner().invoke(app, ["check", MLP, *settings, "-o", str(tmp_path), "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "check.json").read_text())["passes"]
    assert ">out:linear#1</text>" in (tmp_path / "check.svg").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"check.json", "check.png", "check.svg", FILE}
