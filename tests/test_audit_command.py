"""`mufx audit`: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner, Result

import mufx
from mufx import cli
from mufx.auditing.records import AuditReport, Finding, Quantity
from mufx.auditing.show import show
from mufx.diagnostics import Diagnostic, MufxError, Place, Severity, warning
from mufx.loading import import_file

ROOT = Path(__file__).parent.parent
GPT = "tests/models/mup_gpt.py:GPT"
MLP = "examples/mlp.py"

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def ran(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["audit", *words])


# -- what is printed ----------------------------------------------------------------------------


def test_a_gpt_in_standard_parametrization(golden: Golden) -> None:
    result = ran("examples/gpt.py")
    assert (result.exit_code, result.stderr) == (1, "")
    assert max(map(len, result.stdout.splitlines())) <= 100
    golden("audit/gpt.txt", result.stdout)


def test_a_gpt_in_mup(golden: Golden) -> None:
    result = ran(GPT, "--optimizer", "optimizer")
    assert (result.exit_code, result.stderr) == (0, "")
    golden("audit/mup_gpt.txt", result.stdout)


def test_groups_that_are_all_equal(golden: Golden) -> None:
    result = ran(GPT, "--optimizer", "plain")
    assert result.exit_code == 1
    golden("audit/inactive.txt", result.stdout)


def printed(report: AuditReport) -> str:
    file = StringIO()
    show(report, Console(file=file, width=100))
    return file.getvalue()


def test_the_head_has_the_knobs_that_differ() -> None:
    base = {"width": 16, "depth": 2, "vision": {"width": 8, "depth": 2}}
    target = {"width": 64, "depth": 2, "vision": {"width": 16, "depth": 2}}
    head, *_ = printed(AuditReport("Net", "adamw", base, target, False, {}, ())).splitlines()
    assert head == "Net: width=16,vision={'width': 8} -> width=64,vision={'width': 16}, adamw"


NAME = "encoder.layer.attention.projection.query_and_key_and_value.weight"


def deviation(quantity: Quantity) -> Finding:
    place = Place(str(ROOT / "a/rather/long/folder/of/some/package/net.py"), 7)
    numbers = (1 / 6, 1.0, 1.0, 1.0, 6.0)
    return Finding(
        "MUF611", Severity.ERROR, quantity, NAME, "hidden", *numbers, "activation", place, "", ""
    )


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (1, [NAME, "hidden, a/rather/long/folder/of/some/package/net.py:7"]),
        (
            4,
            [
                "encoder.layer.attention.projection.",
                "query_and_key_and_value.weight",
                "hidden",
                "long/folder/of/some/package/net.py:7",
            ],
        ),
    ],
)
def test_a_long_name_breaks_after_a_dot(columns: int, lines: list[str]) -> None:
    findings = tuple(map(deviation, list(Quantity)[:columns]))
    report = AuditReport("Net", "adamw", {"d": 1}, {"d": 2}, False, {}, findings)

    table = [line.strip() for line in printed(report).splitlines()]

    first = next(i for i, line in enumerate(table) if line.startswith("encoder"))
    shown = [line.split("   ")[0] for line in table[first : first + len(lines)]]
    assert shown == lines


def test_long_knobs_break_between_knobs() -> None:
    names = [f"a_knob_with_a_long_name_{i}" for i in range(5)]
    base, target = dict.fromkeys(names, 64), dict.fromkeys(names, 256)
    report = AuditReport("Net", "adamw", base, target, False, {}, ())

    head = printed(report).partition("\n \n")[0].split("role")[0]

    words = [w.strip(",") for line in head.splitlines() for w in line.split()]
    assert [w for w in words if "=" in w] == [f"{n}={v}" for v in (64, 256) for n in names]


def part(layer: int, line: int = 7) -> Diagnostic:
    place = Place("net.py", line, f"h.{layer}.attn", "Attention")
    message = f"an axis of h.{layer}.qkv.weight grows in part"
    return warning("MUF206", message, hint="split it", place=place)


def test_a_warning_of_many_layers_is_printed_once() -> None:
    several = (part(0), part(1), part(2), part(0, line=9))
    report = AuditReport("Net", "adamw", {"d": 1}, {"d": 2}, False, {}, (), diagnostics=several)

    assert printed(report).splitlines()[-7:] == [
        "net.py:7: warning MUF206: an axis of h.*.qkv.weight grows in part (3 times)",
        "  in module: h.*.attn (Attention)",
        "  hint: split it",
        "net.py:9: warning MUF206: an axis of h.0.qkv.weight grows in part",
        "  in module: h.0.attn (Attention)",
        "  hint: split it",
        "clean: 4 warnings of the analysis",
    ]


def test_json() -> None:
    result = ran(GPT, "--optimizer", "plain", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert document["findings"][0]["code"] == "MUF616"
    wanted = next(f for f in document["findings"] if f["parameter"] == "blocks.1.up.weight")
    assert (wanted["quantity"], wanted["expected"], wanted["found"]) == ("lr", 0.25, 1.0)
    assert wanted["place"]["file"] == "tests/models/mup_gpt.py"
    assert document["parameters"]["head.weight"]["role"] == "output"
    assert document["parameters"]["head.weight"]["multiplier"] == 0.25
    assert document["sizes"] == {"activation": 4.0}


@pytest.mark.parametrize(("least", "status"), [("error", 0), ("warning", 0), ("note", 1)], ids=str)
def test_fail_on(least: str, status: int) -> None:
    result = ran(GPT, "--optimizer", "optimizer", "--fail-on", least)
    assert result.exit_code == status


def test_an_optimizer_of_another_file(tmp_path: Path) -> None:
    file = tmp_path / "training.py"
    file.write_text(
        "import torch\n\ndef make(model):\n    return torch.optim.SGD(model.parameters())\n"
    )
    result = ran(MLP, "--optimizer", f"{file}:make")
    assert result.exit_code == 1
    assert "MLP: width=64 -> width=1024, sgd, groups as made" in result.stdout


# -- what is refused ----------------------------------------------------------------------------


def test_an_optimizer_that_is_not_there() -> None:
    result = ran(GPT, "--optimizer", "optimzer")
    assert result.exit_code == 2
    assert "error MUF601: there is no function optimzer" in result.stderr
    assert "did you mean optimizer?" in result.stderr


def test_unknown_knobs_and_missing_models_are_usage_errors() -> None:
    assert ran(MLP, "--base", "depth=1", "--target", "depth=2").exit_code == 2
    assert ran("nowhere.py").exit_code == 2
    assert ran(MLP, "--fail-on", "everything").exit_code == 2


def refused(optimizer: Callable[[nn.Module], object] | str, **target: int) -> str:
    mlp: Any = import_file(ROOT / MLP)
    sizes = {"width": 64}, {"width": 512, **target}
    with pytest.raises(MufxError) as caught:
        mufx.audit(mlp.MLP, mlp.example_inputs, *sizes, optimizer=optimizer)
    return str(caught.value)


def test_an_optimizer_that_raises() -> None:
    def broken(model: nn.Module) -> object:
        return torch.optim.AdamW(model.parameters(), lr=-1.0)  # here

    message = refused(broken)
    here = next(
        i for i, t in enumerate(Path(__file__).read_text().splitlines(), 1) if "# here" in t
    )
    assert message.startswith(f"{__file__}:{here}: error MUF601: broken raised on the model")
    assert "Invalid learning rate" in message


def test_something_else_than_an_optimizer() -> None:
    assert "MUF601: <lambda> returns a list, not an optimizer" in refused(
        lambda model: list(model.parameters())
    )


def test_an_optimizer_that_misses_parameters() -> None:
    def partial(model: nn.Module) -> object:
        return torch.optim.AdamW([p for n, p in model.named_parameters() if "fc" in n])

    message = refused(partial)
    assert (
        "MUF602: of the parameters, the optimizer of partial leaves out out.weight, out.bias"
        in (message)
    )
    assert message.startswith(__file__)


def test_an_optimizer_of_another_model() -> None:
    def foreign(model: nn.Module) -> object:
        other = nn.Linear(2, 2, device="meta")
        return torch.optim.AdamW([*model.parameters(), *other.parameters()])

    assert "has 2 that are not the model's" in refused(foreign)


def test_frozen_parameters_need_no_group() -> None:
    mlp: Any = import_file(ROOT / MLP)

    def optimizer(model: nn.Module) -> object:
        model.get_parameter("fc2.weight").requires_grad_(False)
        return torch.optim.Adam([p for p in model.parameters() if p.requires_grad])

    report = mufx.audit(
        mlp.MLP, mlp.example_inputs, {"width": 64}, {"width": 512}, optimizer=optimizer
    )
    rates = {f.parameter for f in report.findings if f.code == "MUF611"}
    assert rates == {"out.weight"}


def test_an_update_rule_without_a_table() -> None:
    message = refused(lambda model: torch.optim.Rprop(model.parameters()))
    assert "MUF603: there is no table for the update rule of Rprop" in message


def test_equal_sizes() -> None:
    mlp: Any = import_file(ROOT / MLP)
    with pytest.raises(MufxError, match="MUF604"):
        mufx.audit(mlp.MLP, mlp.example_inputs, {"width": 64}, {"width": 64}, vary=("width",))
