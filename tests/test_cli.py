"""The command line: what it prints, what it writes, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import JsonValue
from typer.testing import CliRunner, Result

from mufx import cli, output
from mufx.commands import converting
from mufx.diagnostics import MufxError
from mufx.manifest import Change, EmittedEntry, Manifest, ParameterEntry, SourceEntry, grouped
from mufx.program import Form, Optimizer, Role
from mufx.source import Source

MODELS = Path(__file__).parent / "models"
MLP = str(MODELS / "mlp.py")
GPT = str(MODELS / "gpt.py")
FILES = {"model_mup.py": "import torch\n", "manifest.json": "{}\n"}


def knobs(given: Mapping[str, object]) -> dict[str, JsonValue]:
    return {name: value for name, value in given.items() if isinstance(value, int | str)}


def entry(role: Role, shape: tuple[int, ...], lr: float, tied: str = "") -> ParameterEntry:
    return ParameterEntry(
        role=role,
        shape=shape,
        base_shape=shape,
        m_in=1 / lr,
        m_out=4,
        multiplier=1,
        init_scale=1,
        init_correction=1,
        lr_scale=lr,
        weight_decay_scale=1 / lr,
        eps_scale=0.25,
        clip_scale=1,
        group="",
        tied=(tied,) if tied else (),
        because=("linear contracts its input axis", "the axis grows"),
    )


@dataclass
class FakeConversion:
    """A conversion of any model: three parameters, and one change seen twice."""

    source: Source
    optimizer: Optimizer
    form: Form

    def files(self) -> dict[str, str]:
        return FILES

    @property
    def manifest(self) -> Manifest:
        parameters, groups = grouped(
            {
                "into.weight": entry(Role.INPUT, (256, 10), 1.0, tied="out.weight"),
                "into.bias": entry(Role.INPUT, (256,), 1.0),
                "hidden.0.weight": entry(Role.HIDDEN, (256, 256), 0.25),
            }
        )
        change = Change(
            node="softmax",
            module="attn",
            file=str(Path.cwd() / "model.py"),
            line=7,
            before="scale=None",
            after="scale=0.125",
            because="the contracted axis grows " * 10,
        )
        return Manifest(
            mufx_version="0",
            torch_version="0",
            model=self.source.name,
            source=SourceEntry(spec=self.source.spec, digest=self.source.digest),
            emitted=EmittedEntry(file="model_mup.py", digest=self.source.digest),
            base=knobs(self.source.base),
            target=knobs(self.source.target),
            optimizer=self.optimizer,
            form=self.form,
            parameters=parameters,
            groups=groups,
            changes=(change, change),
            diagnostics=(),
        )


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[FakeConversion]:
    """The conversions that commands asked for; a small stand-in answers them."""
    made: list[FakeConversion] = []

    def convert_source(
        source: Source, *, optimizer: str, form: str, progress: Callable[[str], None]
    ) -> FakeConversion:
        progress("converting [everything]")
        made.append(FakeConversion(source, Optimizer(optimizer), Form(form)))
        return made[-1]

    monkeypatch.setattr(converting, "convert_source", convert_source)
    return made


def ran(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


# -- convert ------------------------------------------------------------------------------------


def test_a_conversion_is_written_and_reported(
    converted: list[FakeConversion], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    result = ran("convert", MLP, "-o", out)
    assert (result.exit_code, result.stderr) == (0, "")
    assert written(out) == FILES
    assert "MLP: width=64 -> width=256, adamw, table3" in result.stdout
    assert "65,536" in result.stdout
    assert "x 0.25" in result.stdout
    assert "changed: model.py:7 (2 times)" in result.stdout
    assert "scale=0.125" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_knobs_are_not_cut(converted: list[FakeConversion]) -> None:
    fixed = ",n_layer=2,vocab_size=97,block_size=64,bias=True,n_head=2"
    sizes = ["--base", f"n_embd=64{fixed}", "--target", f"n_embd=256{fixed}"]
    result = ran("convert", GPT, *sizes, "--input", "idx:int64[batch,16]<97")

    title = f"GPT: n_embd=64{fixed} -> n_embd=256{fixed}, adamw, table3"
    assert title in result.stdout.splitlines()


def test_options_reach_the_conversion(converted: list[FakeConversion]) -> None:
    words = ["--base", "n_embd=64,n_head=2", "--target", "n_embd=256,n_head=8"]
    words += ["--input", "idx:int64[batch,16]<97", "--batch", "7"]
    result = ran("convert", GPT, *words, "--form", "table8", "--optimizer", "sgd")
    assert result.exit_code == 0
    (made,) = converted
    assert (made.form, made.optimizer) == ("table8", "sgd")
    assert made.source.target == {"n_embd": 256, "n_head": 8}
    (idx,) = made.source.inputs(2, made.source.base)[1].values()
    assert getattr(idx, "shape", None) == (7, 16)


def test_equal_sizes_vary_a_knob(converted: list[FakeConversion]) -> None:
    sizes = ["--base", "width=64,depth=2", "--target", "width=64,depth=2"]
    assert ran("convert", MLP, *sizes, "--vary", "width, depth").exit_code == 0
    assert converted[0].source.vary == ("width", "depth")


@pytest.mark.parametrize("options", [[], ["--dry-run", "-o", "out"]])
def test_nothing_is_written_unless_asked_for(
    converted: list[FakeConversion],
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ran("convert", MLP, *options)
    assert result.exit_code == 0
    assert "written: nothing" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_document_whatever_the_file_prints(
    converted: list[FakeConversion], tmp_path: Path
) -> None:
    model = tmp_path / "model.py"
    model.write_text("print('hello from the file')\n" + Path(MLP).read_text())
    result = ran("convert", model, "--json", "-o", tmp_path / "out")
    document = json.loads(result.stdout)
    assert document["model"] == "MLP"
    assert [(g["group"], g["tensors"], g["lr_scale"]) for g in document["groups"]] == [
        ("hidden", 1, 0.25),
        ("input", 2, 1.0),
    ]
    assert document["written"] == [str(tmp_path / "out" / name) for name in FILES]
    assert "hello from the file" in result.stderr


# -- explain ------------------------------------------------------------------------------------


def test_a_parameter_is_explained(converted: list[FakeConversion]) -> None:
    result = ran("explain", MLP, "hidden.0.weight")
    assert result.exit_code == 0
    assert "because linear contracts its input axis" in result.stdout
    assert "lr_scale" in result.stdout
    document = json.loads(ran("explain", MLP, "hidden.0.weight", "--json").stdout)
    assert document["numbers"]["lr_scale"] == 0.25
    assert document["because"] == ["linear contracts its input axis", "the axis grows"]


def test_a_tied_parameter_is_explained_by_any_of_its_names(
    converted: list[FakeConversion],
) -> None:
    assert ran("explain", MLP, "out.weight").stdout.startswith("into.weight\n")


def test_an_unknown_parameter(converted: list[FakeConversion]) -> None:
    result = ran("explain", MLP, "hiden.0.weight")
    assert result.exit_code == 2
    assert "error MUF016: MLP has no parameter hiden.0.weight" in result.stderr
    assert "did you mean hidden.0.weight?" in result.stderr


# -- refusals -----------------------------------------------------------------------------------


def test_refusals_are_located_and_nothing_is_written(
    converted: list[FakeConversion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MODELS)
    words = ["--base", "widht=64", "--target", "width=256"]
    result = ran("convert", "mlp.py", *words, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "mlp.py:25: error MUF007: build has no knob widht\n" in result.stderr
    assert "  hint: did you mean width? knobs: width, depth\n" in result.stderr
    assert converted == []
    assert not (tmp_path / "out").exists()


def test_refusals_as_json() -> None:
    result = ran("convert", MODELS / "none.py", "--json")
    assert result.exit_code == 2
    (problem,) = json.loads(result.stdout)["diagnostics"]
    assert (problem["code"], problem["severity"], problem["line"]) == ("MUF001", "error", None)


def test_malformed_options_are_collected() -> None:
    words = ["--base", "width", "--target", "width=", "--input", "x"]
    result = ran("convert", MLP, *words)
    assert result.exit_code == 2
    assert [result.stderr.count(f"error {code}") for code in ("MUF008", "MUF013")] == [2, 1]


@pytest.mark.parametrize("words", [["convert"], ["convert", MLP, "--form", "table1"], ["no"]])
def test_wrong_usage_has_the_same_exit_status(words: list[str]) -> None:
    assert ran(*words).exit_code == 2


# -- the output folder --------------------------------------------------------------------------


def test_a_folder_with_other_files_is_left_alone(
    converted: list[FakeConversion], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    result = ran("convert", MLP, "-o", tmp_path, "--force")
    assert result.exit_code == 2
    assert "holds other files: thesis.tex" in result.stderr
    assert converted == []
    assert written(tmp_path) == {"thesis.tex": "x"}


def test_an_existing_conversion_needs_force(
    converted: list[FakeConversion], tmp_path: Path
) -> None:
    (tmp_path / "model_mup.py").write_text("old")
    refused = ran("convert", MLP, "-o", tmp_path)
    assert refused.exit_code == 2
    assert "add --force" in refused.stderr
    assert written(tmp_path) == {"model_mup.py": "old"}
    assert ran("convert", MLP, "-o", tmp_path, "--force").exit_code == 0
    assert written(tmp_path) == FILES


def test_a_replaced_conversion_leaves_no_tables_and_its_page(
    converted: list[FakeConversion], tmp_path: Path
) -> None:
    for name in ("model_mup.py", "tables_mup.pt", "report.html"):
        (tmp_path / name).write_text("old")

    assert ran("convert", MLP, "-o", tmp_path, "--force").exit_code == 0
    assert written(tmp_path) == {**FILES, "report.html": "old"}


def test_a_file_is_no_folder(converted: list[FakeConversion], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    result = ran("convert", MLP, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "is not a folder" in result.stderr


def test_what_importing_the_emitted_file_leaves_is_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    output.check_folder(tmp_path, force=False)
    output.write_files(tmp_path, FILES)
    assert (tmp_path / "manifest.json").read_text() == "{}\n"


def test_a_failed_write_leaves_no_drafts(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(MufxError, match="MUF015"):
        output.write_files(tmp_path, {"manifest.json": "{}"})
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


# -- starting up --------------------------------------------------------------------------------


def test_help_does_not_import_torch_and_says_that_files_are_executed() -> None:
    code = "import sys, mufx.cli; assert 'torch' not in sys.modules; mufx.cli.app(['--help'])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "executes" in result.stdout
    assert "convert" in result.stdout
