"""The audit of one live instance, and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import mufx
from mufx.auditing.records import AuditReport
from mufx.classes.judging import audit_instance
from mufx.cli import app
from mufx.diagnostics import MufxError
from tests.models import mup_gpt

GROW = {
    "residual": 4,
    "blocks.*.up.weight:0": 4,
    "blocks.*.out.weight:1.0": 2,
    "blocks.*.out.weight:1.1": 2,
    "blocks.*.qkv.weight:0.0.1": 2,
}


def place(function: Callable[..., object], line: int) -> str:
    return f"mup_gpt.py:{function.__code__.co_firstlineno + line}"


NUMBERS: dict[str, str | float] = {
    place(mup_gpt.Block.forward, 4): "grows",
    place(mup_gpt.GPT.forward, 4): 0.25,
}


def audit(optimizer: Callable[..., object]) -> AuditReport:
    model = mup_gpt.GPT(128, 4)
    return audit_instance(model, mup_gpt.example_inputs, GROW, numbers=NUMBERS, optimizer=optimizer)


def found(report: AuditReport) -> set[tuple[str, str | None]]:
    return {(f.code, f.role) for f in report.findings}


def test_a_live_model_in_mup_is_clean() -> None:
    report = audit(mup_gpt.optimizer)
    assert report.ok
    assert [d.code for d in report.diagnostics] == ["MUF710"]
    assert report.parameters["head.weight"].role == "output"


@pytest.mark.parametrize("optimizer", [mup_gpt.optimizer, mup_gpt.plain])
def test_what_two_sizes_find_one_instance_finds(optimizer: Callable[..., object]) -> None:
    """Without the inits the form is not settled, so a second finding may follow from a first."""
    sizes = (mup_gpt.base, mup_gpt.target)
    expected = mufx.audit(mup_gpt.GPT, mup_gpt.example_inputs, *sizes, optimizer=optimizer)
    mine = audit(optimizer)
    assert found(expected) <= found(mine)
    assert mine.ok == expected.ok


def test_learning_rates_that_do_not_follow_the_width_are_found() -> None:
    def squared(model: mup_gpt.GPT) -> torch.optim.Optimizer:
        return torch.optim.AdamW(mup_gpt.groups(model, power=2.0, compensated=False))

    assert ("MUF611", "hidden") in found(audit(squared))


def test_groups_that_are_all_equal_are_found() -> None:
    assert ("MUF616", None) in found(audit(mup_gpt.plain))


def test_nothing_that_grows_is_nothing_to_judge() -> None:
    with pytest.raises(MufxError, match="MUF604"):
        audit_instance(mup_gpt.GPT(128, 4), mup_gpt.example_inputs, {})


# -- the command line ---------------------------------------------------------------------------

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.up = nn.Linear(4, width)
        self.mid = nn.Linear(width, width)
        self.down = nn.Linear(width, 3)

    def forward(self, x):
        x = torch.relu(self.up(x))
        return self.down(torch.relu(x + self.mid(x)))

net = Net(32)

def example_inputs(batch=2):
    return (torch.zeros(batch, 4),)
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(MODEL)
    return str(tmp_path / "net.py")


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["classes", *args])


def test_the_command_prints_the_classes_of_a_live_instance(model: str) -> None:
    result = run(f"{model}:net", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [(r["name"], r["sizes"], r["end"]) for r in rows] == [
        ("up.weight:0", [32], ""),
        ("down.weight:0", [3], "output"),
        ("up.weight:1", [4], "input"),
    ]
    assert rows[0]["alias"] == "residual"


def test_a_class_is_built_with_the_knobs_given(model: str) -> None:
    result = run(f"{model}:Net", "--target", "width=16")
    assert result.exit_code == 0, result.output
    assert "16" in result.stdout
    assert "--grow 'residual=4'" in result.stdout


def test_with_growth_the_command_prints_groups(model: str) -> None:
    result = run(f"{model}:net", "--grow", "residual=4")
    assert result.exit_code == 0, result.output
    assert "residual: 8 -> 32" in result.stdout
    rows = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["hidden", "x0.25"] in rows
    assert ["output", "x0.25"] in rows
    assert ["input", "x1"] in rows


def test_the_command_audits_a_live_instance(model: str) -> None:
    plain = CliRunner().invoke(app, ["audit", f"{model}:net", "--grow", "residual=4", "--json"])
    assert plain.exit_code == 1, plain.output
    found = {(f["code"], f["parameter"]) for f in json.loads(plain.stdout)["findings"]}
    assert ("MUF611", "mid.weight") in found
    refused = CliRunner().invoke(app, ["audit", f"{model}:net", "--grow", "nothing=4"])
    assert refused.exit_code == 2


def test_growth_of_nothing_is_refused(model: str) -> None:
    result = run(f"{model}:net", "--grow", "residul=4")
    assert result.exit_code == 2
    assert "did you mean residual" in result.output


@pytest.mark.parametrize(
    ("option", "value", "code"), [("--grow", "residual", "MUF703"), ("--number", "x", "MUF707")]
)
def test_options_that_cannot_be_read(model: str, option: str, value: str, code: str) -> None:
    result = run(f"{model}:net", "--grow", "residual=4", option, value)
    assert result.exit_code == 2
    assert code in result.output


def test_a_file_without_inputs_says_how_to_give_them(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(MODEL.partition("def example_inputs")[0])
    result = run(f"{file}:net")
    assert result.exit_code == 2
    assert "MUF012" in result.output
    assert run(f"{file}:net", "--input", "x:float32[batch,4]").exit_code == 0
