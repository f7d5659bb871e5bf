"""The documentation says what is: its names exist, its commands answer as printed."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import mufx
from mufx.cli import app
from mufx.diagnostics import CODES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

FILE = re.compile(r'^```python title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```console\n\$ python (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```console\n\$ mufx (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def lines(text: str) -> list[str]:
    """Without what the eye does not see: blank lines and what trails."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def hook(name: str) -> ModuleType:
    """The code that makes a page."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_api_reference() -> None:
    api = hook("api")
    text: str = api.completed("# The API\n\n::: mufx.api.convert\n")
    named = [name for pair in api.NAMED.findall(text) for name in pair if name]
    assert sorted(named) == sorted(mufx.__all__)


def test_every_pass_is_in_the_internals_in_its_order() -> None:
    described = re.findall(r"^::: mufx\.passes\.\w+\.(\w+)$", read("internals.md"), re.M)
    assert described == [step.__name__ for step in mufx.PASSES]


def test_quickstart_prints_what_mufx_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = read("quickstart.md")
    files = dict(FILE.findall(text))
    (tmp_path / "model.py").write_text(files["model.py"], encoding="utf-8")
    commands = COMMAND.findall(text)
    assert len(commands) == 3
    for arguments, expected in commands:
        result = CliRunner().invoke(app, re.sub("'", "", arguments).split())
        assert lines(result.output) == lines(expected)
    (tmp_path / "out/train.py").write_text(files["out/train.py"], encoding="utf-8")
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path / "out", check=True)


def test_readme_shows_what_the_demo_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    demo = re.search(r"mufx convert (.*) -o out/gpt", (ROOT / "Makefile").read_text())
    assert demo is not None
    printed = CliRunner().invoke(app, ["convert", *demo[1].split()]).stdout
    *shown, written = lines(printed)
    readme = lines((ROOT / "README.md").read_text(encoding="utf-8").replace("\n    ", "\n"))
    first = readme.index(shown[0])
    assert readme[first : first + len(shown)] == shown
    assert written.startswith("written: ")


def test_every_field_of_the_manifest_is_explained() -> None:
    page: str = hook("manifest").page()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert not [row for row in rows if row.endswith("|  |")]


@pytest.mark.parametrize("page", ["op-rule", "pass", "optimizer"])
def test_examples_of_extensions_print_what_their_pages_say(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    ((script, expected),) = PYTHON.findall(read(f"extend/{page}.md"))
    runpy.run_path(str(ROOT / script), run_name="__main__")
    assert lines(capsys.readouterr().out) == lines(expected)


def test_the_adapter_of_the_guide_converts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ((arguments, expected),) = COMMAND.findall(read("extend/adapter.md"))
    assert lines(CliRunner().invoke(app, arguments.split()).stdout) == lines(expected)


UNSEEN = {"MUF302", "MUF403"}  # no model is known that causes them


def test_every_code_is_explained_and_all_but_two_by_an_example() -> None:
    sections: dict[str, str] = hook("refusals").sections()
    assert sections.keys() == CODES.keys(), "explain a code in docs/refusals"
    assert {code for code, text in sections.items() if "```console" not in text} == UNSEEN
    assert all(re.match(r"\n\n\w", text) for code, text in sections.items() if code in UNSEEN)


@pytest.mark.zoo  # a build of the documentation runs them as well
def test_refusals_print_their_codes_wherever_they_run() -> None:
    page: str = hook("refusals").page()
    assert "tmp" not in page
    for code, meaning in CODES.items():
        assert f"### {code}: {meaning} {{ #{code.lower()} }}" in page


def test_an_example_that_prints_another_code_stops_the_build() -> None:
    body = "\n```console\n$ mufx convert nothing.py\n```\n"
    with pytest.raises(ValueError, match="the example of MUF002 prints"):
        hook("refusals").run("MUF002", body, {})
