"""The documentation says what is: its names exist, its commands answer as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mufx
from mufx.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

FILE = re.compile(r'^```python title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```console\n\$ mufx (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def lines(text: str) -> list[str]:
    """Without what the eye does not see: blank lines and what trails."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_every_public_name_is_in_the_api_reference() -> None:
    described = set(re.findall(r"^::: mufx\.[\w.]*?(\w+)$|`mufx\.(\w+)`", read("api.md"), re.M))
    assert {name for pair in described for name in pair} >= set(mufx.__all__)


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
