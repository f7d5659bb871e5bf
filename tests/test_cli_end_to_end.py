"""The real command line on the examples, and on everything that can be wrong with its input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import mufx
from mufx import cli, manifest
from mufx.api import import_emitted
from mufx.diagnostics import MufxError

ROOT = Path(__file__).parent.parent
BAD = Path(__file__).parent / "models" / "bad"
MLP = Path(__file__).parent / "models" / "mlp.py"
EXAMPLES = {"mlp": "adam", "gpt": "adamw", "llama": "sgd", "resnet": "sgd", "encoder": "adamw"}
FORMS = {
    "mlp": "table9",
    "gpt": "table8",
    "llama": "table3",
    "resnet": "table3",
    "encoder": "table8",
}


def ran(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


# -- the examples -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_written_explained_and_can_be_trained(name: str, tmp_path: Path) -> None:
    spec, out = ROOT / "examples" / f"{name}.py", tmp_path / "out"
    result = ran("convert", spec, "--optimizer", EXAMPLES[name], "--form", FORMS[name],
                 "--json", "-o", out)  # fmt: skip
    assert (result.exit_code, result.exception) == (0, None)
    document = json.loads(result.stdout)
    written = [str(out / name) for name in ("model_mup.py", "optim_mup.py", "manifest.json")]
    assert document["written"] == written

    found = manifest.load(out / "manifest.json")
    assert (found.optimizer, found.form) == (EXAMPLES[name], FORMS[name])
    emitted = import_emitted(out / "model_mup.py")
    with torch.device("meta"):
        model: nn.Module = getattr(emitted, found.model)()
    groups = mufx.param_groups(model, found, lr=0.1)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert max(g["lr"] for g in groups) != min(g["lr"] for g in groups)

    parameter = max(found.parameters, key=lambda n: found.parameters[n].m_in)
    told = ran("explain", spec, parameter)
    assert told.exit_code == 0
    assert told.stdout.startswith(f"{parameter}\n")
    assert "because" in told.stdout


def test_a_dry_run_of_an_example_writes_nothing(tmp_path: Path) -> None:
    result = ran("convert", ROOT / "examples" / "mlp.py", "--dry-run", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "written: nothing" in result.stdout
    assert not (tmp_path / "out").exists()


# -- refusals -----------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, list[str], str, int | None, str]] = {
    "no such file": ("missing.py", [], "MUF001", None, "missing.py"),
    "raises on import": ("raises.py", [], "MUF002", 3, "no luck today"),
    "no module in it": ("no_model.py", [], "MUF003", 1, "no nn.Module class"),
    "several classes": ("several.py", [], "MUF004", 6, "First"),
    "an unknown knob": (
        "good.py", ["--base", "widht=16", "--target", "widht=64"], "MUF007", 10, "widht"
    ),
    "a knob without effect": (
        "good.py", ["--base", "p=1", "--target", "p=2"], "MUF010", 10, "p changes nothing"
    ),
    "other graphs": ("structures.py", [], "MUF106", 16, "sigmoid"),
    "inputs that do not fit": (
        "good.py", ["--input", "x:float32[batch,7]"], "MUF105", 18, "[2, 7]"
    ),
    "an operation without a rule": ("no_rule.py", [], "MUF202", 15, "cdist uses centres"),
    "knobs that do not divide": ("no_division.py", [], "MUF011", 11, "8 heads do not divide 65"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_input_is_one_located_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, words, code, line, part = REFUSED[name]
    monkeypatch.chdir(BAD)
    result = ran("convert", file, *words, "--json", "-o", tmp_path / "out")
    assert result.exit_code == 2
    (found,) = json.loads(result.stdout)["diagnostics"]
    assert (found["code"], found["severity"], found["line"]) == (code, "error", line)
    assert found["file"] is None or Path(found["file"]).name == file
    assert part in found["message"]
    assert found["hint"]
    assert list(tmp_path.iterdir()) == []

    printed = ran("convert", file, *words, "-o", tmp_path / "out")
    assert (printed.exit_code, printed.stdout) == (2, "")
    assert printed.stderr.count(f"error {code}: ") == 1
    assert "Traceback" not in printed.stderr


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = ran("convert", BAD / "good.py", "-o", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.count("error MUF015: ") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


# -- manifests ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "out"
    assert ran("convert", MLP, "-o", out).exit_code == 0
    return out


def raised(call: Callable[[], object]) -> str:
    with pytest.raises(MufxError) as caught:
        call()
    (found,) = caught.value.diagnostics
    assert found.hint
    return found.code


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ('"schema_version": 1', '"schema_version": 99', "MUF502"),
        ('"lr_scale": 0.25', '"lr_scale": 0.5', "MUF503"),
        ("{", "", "MUF501"),
    ],
    ids=["another version", "edited", "no JSON"],
)
def test_a_manifest_that_is_not_ours(
    written: Path, tmp_path: Path, before: str, after: str, code: str
) -> None:
    text = (written / "manifest.json").read_text()
    assert before in text
    path = tmp_path / "manifest.json"
    path.write_text(text.replace(before, after, 1))
    assert raised(lambda: manifest.load(path)) == code


def test_a_manifest_beside_another_file(written: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "model_mup.py"):
        (tmp_path / name).write_text((written / name).read_text())
    with (tmp_path / "model_mup.py").open("a") as file:
        file.write("# edited\n")
    assert raised(lambda: manifest.load(tmp_path / "manifest.json")) == "MUF505"


def test_a_manifest_of_another_module(written: Path) -> None:
    found = manifest.load(written / "manifest.json")
    other = nn.Sequential(nn.Linear(3, 4))
    assert raised(lambda: mufx.param_groups(other, found, lr=0.1)) == "MUF506"
