"""Long lines of emitted files are broken and mean the same."""

from __future__ import annotations

import ast

import pytest

from mufx.emit.layout import wrapped

LONG = " + ".join(f"number_{i}" for i in range(12))


@pytest.mark.parametrize(
    "line",
    [
        f"x = call({LONG})",
        f"x = call({LONG}, other, key={LONG})",
        f"x = table[{LONG}]",
        f"x = table[{LONG}, {LONG}]",
        f"x = ({LONG}) // 4",
        f"x = 2 * ({LONG})",
        f"assert (1 + ({LONG})) // 2 > 1",
        f"x = calls[0]({LONG})",
        f"x = ({LONG}, {LONG})",
        f"x = [{LONG}]",
        f"x = all(({LONG}) > 2 for _ in range(3))",
        f'x = call("(", {LONG})',
        f"x = y + ({LONG}) * z",
        f"x = torch.cos(({LONG}).sin())",
        f"x = f(({LONG},))",
        f"x = f({LONG}, ({LONG}))",
        f"return nn.ModuleList({LONG} for _ in range(4))",
    ],
)
@pytest.mark.parametrize("indent", ["", "        "])
def test_a_broken_line_means_the_same(line: str, indent: str) -> None:
    lines = wrapped(indent + line).splitlines()

    assert len(lines) > 1
    assert _meaning("\n".join(text.removeprefix(indent) for text in lines)) == _meaning(line)


def test_the_first_line_of_a_call_with_one_argument_ends_with_a_comma() -> None:
    line = f"x = call(first_of_all({LONG}))"

    assert wrapped(line) == f"x = call(\n    first_of_all(\n        {LONG},\n    ),\n)"


def _meaning(code: str) -> str:
    return ast.dump(ast.parse(code))
