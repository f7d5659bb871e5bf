"""What a page says about training: its command is run, and its code."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import mufx
from mufx import cli
from mufx.html.command import Typed, typed
from mufx.html.document import Code, Document
from mufx.html.of_conversion import of_conversion
from mufx.html.page import read
from tests.pages import KINDS, document

MODEL = Path(__file__).parent / "models" / "sweepable.py"
GROWN = {"into.weight:0": 32}
TUNED = {"width": 32, "gain": 2}
TOLD = """
group = next(group for group in optimizer.param_groups if group["lr_scale"] == 1)
print(group["lr"], group["weight_decay"])
"""


def codes(page: Document) -> list[str]:
    """The code of the sections on training."""
    train = [section for section in page.sections if section.id in {"train", "tuned"}]
    return [block.text for each in train for block in each.blocks if isinstance(block, Code)]


def run(command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "mufx"
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code in {0, 1}, result.output


@pytest.mark.parametrize(
    ("command", "rate", "decay", "target"),
    [
        ("convert model.py --target width=16", 1e-3, 0.1, {"width": 16}),
        ("convert model.py --input 'x:float32[3,4]' --batch 3", 1e-3, 0.1, {"width": 32}),
        ("convert model.py:net --grow into.weight:0=4 --init *=fan_in", 1e-3, 0.1, GROWN),
        ("check model.py --widths 8,16,32,64 --steps 4 --seeds 1 --lr .02", 0.02, 0, {"width": 64}),
        ("sweep model.py --over gain=2,3 --set lr=.3 --steps 1 --seeds 1", 0.3, 0, TUNED),
    ],
)
def test_the_command_and_the_code_of_a_page_train_what_it_says_with_what_it_says(
    command: str,
    rate: float,
    decay: float,
    target: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = MODEL.read_text(encoding="utf-8")
    (tmp_path / "model.py").write_text(f"{model}\n\nnet = Classifier(32)\n", encoding="utf-8")
    run(f"mufx {command} --report report.html")
    converts, trains = codes(read((tmp_path / "report.html").read_text(encoding="utf-8")))
    run(converts)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["target"] == target
    given = [sys.executable, "-c", trains + TOLD]
    told = subprocess.run(given, cwd=tmp_path / "out", check=True, capture_output=True, text=True)
    assert [float(word) for word in told.stdout.split()] == [rate, decay]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_clipped_is_not_told_to_be_clipped(kind: str) -> None:
    assert [code for code in codes(document(kind)) if "clip_grad_norm_(" in code] == []


def test_a_command_is_typed_with_all_that_says_which_model_it_is() -> None:
    given = typed(
        "a model.py", {"--vary": "width", "--input": ["x:float32[2,4]", "y"], "--no": None}
    )
    assert given.convert({"width": 8}, {"width": 32}, "sgd", "table8") == (
        "mufx convert 'a model.py' --base width=8 --target width=32 --vary width "
        "--input 'x:float32[2,4]' --input y --optimizer sgd --form table8 -o out"
    )


def test_a_page_from_python_names_no_command() -> None:
    made = mufx.convert(
        nn.Linear, (torch.randn(2, 3),), *({"in_features": 3, "out_features": n} for n in (4, 8))
    )
    assert len(codes(of_conversion(made))) == 1
    assert len(codes(of_conversion(made, typed=Typed("model.py")))) == 2
