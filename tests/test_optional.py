"""Without the optional packages: everything but what needs them works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CHILD = """
import json, sys


class Without:
    # a finder that finds nothing of some packages
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in HIDDEN
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


HIDDEN, words = json.loads(sys.argv[1]), sys.argv[2:]
sys.meta_path[:] = map(Without, sys.meta_path)
from mufx.cli import app

app(words)
"""
IMPORTED_AS = {"pyyaml": "yaml"}


def optional() -> list[str]:
    """The packages of the extras, as they are imported."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line for lines in extras["optional-dependencies"].values() for line in lines]
    packages = {re.split(r"[<>=\[]", line)[0] for line in named} | {"mup"}
    return sorted(IMPORTED_AS.get(name, name.replace("-", "_")) for name in packages)


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, json.dumps(optional()), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_is_optional() -> None:
    assert {"transformers", "matplotlib", "optuna", "diffusers", "x_transformers"} <= {*optional()}
    assert {"torch", "numpy", "typer"}.isdisjoint(optional())


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ["convert", "examples/mlp.py", "--report", "OUT/report.html", "-o", "OUT"],
            0,
            "written: ",
        ),
        (["audit", "examples/mlp.py"], 1, "not μP: "),
        (["classes", "examples/mlp.py"], 0, "fc1.weight:0=4"),
        (["convert", "hf:llama", "-o", "OUT"], 2, "error MUF017: hf: names models of transformers"),
    ],
    ids=["convert", "audit", "classes", "hf"],
)
def test_without_them(words: list[str], status: int, said: str, tmp_path: Path) -> None:
    done = ran(*(word.replace("OUT", str(tmp_path / "out")) for word in words))
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
