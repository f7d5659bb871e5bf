"""Sizes as Python text: `(T + 1) // 2` from an expression of sympy over their names."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from torch.utils._sympy.printers import PythonPrinter

ATOM, POWER, UNARY, TIMES, PLUS, SHIFT, COMPARE = 20, 14, 13, 12, 11, 10, 6
"""How tightly Python's operators bind."""

_PRECEDENCE: Mapping[type[ast.operator], int] = {
    ast.Add: PLUS,
    ast.Sub: PLUS,
    ast.Mult: TIMES,
    ast.Div: TIMES,
    ast.FloorDiv: TIMES,
    ast.Mod: TIMES,
    ast.Pow: POWER,
    ast.LShift: SHIFT,
    ast.RShift: SHIFT,
}
_POWER = re.compile(r"\b(\w+) \*\* (\d[\d.]*)")


def size_text(expr: Any) -> tuple[str, int]:
    """Text and precedence of a size."""
    text: str = PythonPrinter().doprint(expr)
    tree: Any = _Plain().visit(ast.parse(text, mode="eval").body)
    return _POWER.sub(r"\1**\2", ast.unparse(tree)), _precedence(tree)


def _precedence(tree: ast.expr) -> int:
    if isinstance(tree, ast.BinOp):
        return _PRECEDENCE.get(type(tree.op), 0)
    if isinstance(tree, ast.UnaryOp):
        return UNARY
    if isinstance(tree, ast.Compare):
        return COMPARE
    return ATOM if isinstance(tree, (ast.Name, ast.Constant, ast.Call, ast.Attribute)) else 0


class _Plain(ast.NodeTransformer):
    """`(-1)*T + 1` as `1 - T`, `math.trunc(torch.sym_float(T) ** 0.5)` as `int(T ** 0.5)`."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Functions that make whole numbers."""
        self.generic_visit(node)
        name = ast.unparse(node.func)
        if name == "math.trunc":
            node.func = ast.Name("int")
        if name in {"math.trunc", "math.ceil", "math.floor", "round"}:
            node.args = [_whole(node.args[0])]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Numbers that are compared are as large without a float."""
        self.generic_visit(node)
        node.left, node.comparators = _whole(node.left), [_whole(c) for c in node.comparators]
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Signs, from the inside out."""
        self.generic_visit(node)
        if _is_float(node.right):
            node.left = _whole(node.left)
        if _is_float(node.left):
            node.right = _whole(node.right)
        if isinstance(node.op, ast.Mult) and _is_minus_one(node.left):
            return ast.UnaryOp(ast.USub(), node.right)
        if isinstance(node.op, ast.Mult) and isinstance(node.left, ast.UnaryOp):
            product = ast.BinOp(node.left.operand, ast.Mult(), node.right)
            return ast.UnaryOp(ast.USub(), product)
        if not isinstance(node.op, ast.Add):
            return node
        left, right = node.left, node.right
        number_first = isinstance(left, ast.Constant) and not isinstance(right, ast.UnaryOp)
        if isinstance(left, ast.UnaryOp) or number_first:
            left, right = right, left
        if isinstance(right, ast.UnaryOp):
            return ast.BinOp(left, ast.Sub(), right.operand)
        return ast.BinOp(left, ast.Add(), right)


def _is_minus_one(tree: ast.expr) -> bool:
    return ast.unparse(tree) == "-1"


def _is_float(tree: ast.expr) -> bool:
    return isinstance(tree, ast.Constant) and isinstance(tree.value, float)


def _whole(tree: ast.expr) -> ast.expr:
    """`T` of `torch.sym_float(T)`, for where Python makes it a float by itself."""
    if isinstance(tree, ast.Call) and ast.unparse(tree.func) == "torch.sym_float":
        return tree.args[0]
    return tree
