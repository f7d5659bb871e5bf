"""What the model's own source says at a line: the statement, and the names it binds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SourceStatement:
    """One simple statement: its first line, and the names that it assigns to."""

    start: int
    targets: tuple[str, ...]
    is_return: bool = False


@lru_cache(maxsize=64)
def _statements(file: str) -> dict[int, SourceStatement]:
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[int, SourceStatement] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        first, last = node.lineno, _last_line(node)
        statement = SourceStatement(first, tuple(_targets(node)), isinstance(node, ast.Return))
        for line in range(first, last + 1):
            known = found.get(line)
            if known is None or known.start < first:
                found[line] = statement
    return found


def _last_line(node: ast.stmt) -> int:
    body: list[ast.stmt] | None = getattr(node, "body", None)
    if body:
        return max(node.lineno, body[0].lineno - 1)
    return node.end_lineno or node.lineno


def _targets(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        yield from _names(node.targets[0])
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        yield from _names(node.target)


def _names(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Attribute):
        yield target.attr
    elif isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield next(_names(element), "_")
    elif isinstance(target, ast.Starred):
        yield from _names(target.value)


def statement_at(file: str, line: int) -> SourceStatement:
    """The innermost statement at a line; a nameless one where the source is not to be had."""
    return _statements(file).get(line, SourceStatement(line, ()))
