"""What may import what: the compiler knows no particular pass."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "mufx"
KNOW_PASSES = {
    "__init__.py",
    "api.py",
    "auditing/entry.py",
    "check/designing.py",
    "check/predicting.py",
    "classes/planning.py",
}
"""The public entries. `__init__` names them for type checkers and imports on first use."""


def imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
    return names | {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}


def test_only_the_public_entries_import_passes() -> None:
    files = {f.relative_to(ROOT).as_posix(): f for f in ROOT.rglob("*.py")}
    core = {name: f for name, f in files.items() if not name.startswith("passes/")}
    assert len(core) > 50
    knowing = {n for n, f in core.items() if any(i.startswith("mufx.passes") for i in imported(f))}
    assert knowing == KNOW_PASSES
