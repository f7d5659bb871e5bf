"""One node as a Python expression."""

from __future__ import annotations

import inspect
import operator
import re
from cmath import isfinite
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import fx
from torch.overrides import resolve_name

from mufx.diagnostics import MufxError, Place, error
from mufx.emit.text import hole
from mufx.recording import InputDevice, Size
from mufx.size_text import ATOM, COMPARE, PLUS, POWER, SHIFT, TIMES, UNARY

_BINARY: Mapping[Any, tuple[str, int]] = {
    operator.add: ("+", PLUS),
    operator.sub: ("-", PLUS),
    operator.mul: ("*", TIMES),
    operator.truediv: ("/", TIMES),
    operator.floordiv: ("//", TIMES),
    operator.mod: ("%", TIMES),
    operator.matmul: ("@", TIMES),
    operator.pow: ("**", POWER),
    operator.and_: ("&", SHIFT - 1),
    operator.xor: ("^", SHIFT - 2),
    operator.or_: ("|", SHIFT - 3),
    operator.lshift: ("<<", SHIFT),
    operator.rshift: (">>", SHIFT),
    operator.eq: ("==", COMPARE),
    operator.ne: ("!=", COMPARE),
    operator.lt: ("<", COMPARE),
    operator.le: ("<=", COMPARE),
    operator.gt: (">", COMPARE),
    operator.ge: (">=", COMPARE),
}
_UNARY: Mapping[Any, str] = {operator.neg: "-", operator.invert: "~", operator.pos: "+"}
INPLACE: Mapping[Any, str] = {
    operator.iadd: "+=",
    operator.isub: "-=",
    operator.imul: "*=",
    operator.itruediv: "/=",
    operator.ipow: "**=",
    operator.imatmul: "@=",
}
_METHODS: Mapping[str, str] = {
    "+=": "add_", "-=": "sub_", "*=": "mul_", "/=": "div_", "**=": "pow_", "@=": "matmul_",
}  # fmt: skip
_ASSIGNABLE = re.compile(r"\w+|⟨[^⟩]*⟩|.*\]")  # a variable, entries of a tensor


class Names(Protocol):
    """What an expression needs to know of the body that it stands in."""

    def value(self, node: fx.Node) -> tuple[str, int]:
        """Text and precedence of a value."""
        ...

    def size(self, size: Size) -> tuple[str, int]:
        """Text and precedence of a free size."""
        ...

    def device(self) -> str:
        """Text of the device that the inputs are on."""
        ...

    def place(self, node: fx.Node) -> Place:
        """Where a node stands in the user's source."""
        ...


def expression(node: fx.Node, names: Names) -> tuple[str, int]:
    """Text and precedence of a node's operation."""
    target: Any = node.target
    if target in _BINARY and len(node.args) == 2 and not node.kwargs:
        return _binary(node, names, *_BINARY[target])
    if target in _UNARY:
        text, inner = names_value(node.args[0], names)
        return f"{_UNARY[target]}{_wrapped(text, inner, UNARY)}", UNARY
    if target is getattr:
        text, inner = names_value(node.args[0], names)
        return f"{_wrapped(text, inner, ATOM)}.{node.args[1]}", ATOM
    if target is operator.getitem:
        text, inner = names_value(node.args[0], names)
        return f"{_wrapped(text, inner, ATOM)}[{index_text(node.args[1], names)}]", ATOM
    if target in INPLACE:
        text, inner = names_value(node.args[0], names)
        method, other = _METHODS[INPLACE[target]], names_value(node.args[1], names)[0]
        return f"{_wrapped(text, inner, ATOM)}.{method}({other})", ATOM
    if node.op == "call_method":
        text, inner = names_value(node.args[0], names)
        arguments = _arguments(node, node.args[1:], names, _method_signature(str(target)))
        return f"{_wrapped(text, inner, ATOM)}.{target}({arguments})", ATOM
    name = public_name(target)
    if name is None:
        raise MufxError(
            error(
                "MUF401",
                f"{getattr(target, '__name__', target)} has no public name to be written by",
                hint="call it through a public function of torch",
                place=names.place(node),
            )
        )
    return f"{name}({_arguments(node, node.args, names, _signature(target))})", ATOM


def names_value(value: Any, names: Names) -> tuple[str, int]:
    """Text and precedence of an operand, a node or a literal."""
    if isinstance(value, fx.Node):
        return names.value(value)
    if isinstance(value, Size):
        return names.size(value)
    text = literal(value, names)
    negative = isinstance(value, (int, float)) and value < 0
    return text, UNARY if negative else ATOM


def _wrapped(text: str, inner: int, needed: int) -> str:
    return f"({text})" if inner < needed else text


def _binary(node: fx.Node, names: Names, sign: str, own: int) -> tuple[str, int]:
    left, left_inner = names_value(node.args[0], names)
    right, right_inner = names_value(node.args[1], names)
    # Python groups to the left, powers to the right; a comparison does not chain.
    needs_left = own + 1 if own in (POWER, COMPARE) else own
    needs_right = own if own == POWER else own + 1
    left, right = _wrapped(left, left_inner, needs_left), _wrapped(right, right_inner, needs_right)
    simple = own == POWER and re.fullmatch(r"[\w.⟦=⟧-]+", left + right)
    return f"{left}{sign}{right}" if simple else f"{left} {sign} {right}", own


def in_place(node: fx.Node, place: str, other: str) -> str:
    """The statement of `x *= y` and its kin; Python assigns to no call, so a view has a method."""
    sign = INPLACE[node.target]
    if _ASSIGNABLE.fullmatch(place):
        return f"{place} {sign} {other}"
    return f"{place}.{_METHODS[sign]}({other})"


def index_text(index: Any, names: Names) -> str:
    """What stands between the brackets of a subscript."""
    if isinstance(index, tuple):
        text = ", ".join(index_text(i, names) for i in index)
        return text + "," if len(index) == 1 else text
    if isinstance(index, slice):
        start, stop = ("" if v is None else literal(v, names) for v in (index.start, index.stop))
        step = "" if index.step is None else f":{literal(index.step, names)}"
        return f"{start}:{stop}{step}"
    return literal(index, names)


def literal(value: Any, names: Names, name: str = "") -> str:  # noqa: C901  one case a line
    """Text of an argument."""
    if isinstance(value, fx.Node):
        return names.value(value)[0]
    if isinstance(value, Size):
        return names.size(value)[0]
    if isinstance(value, InputDevice):
        return names.device()
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return f'float("{value}")'
    if isinstance(value, (bool, int, float)) or (isinstance(value, complex) and isfinite(value)):
        return hole(value, name)
    if value is None or value is Ellipsis:
        return "None" if value is None else "..."
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, torch.Size):
        value = tuple(value)
    if isinstance(value, tuple):
        items = ", ".join(literal(v, names, name) for v in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, list):
        return f"[{', '.join(literal(v, names, name) for v in value)}]"
    if isinstance(value, slice):
        parts = (literal(v, names) for v in (value.start, value.stop, value.step))
        return f"slice({', '.join(parts)})"
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        return str(value)
    if value in (bool, int, float):  # a dtype of torch by its name in Python
        return str(value.__name__)
    raise MufxError(
        error(
            "MUF402",
            f"an argument of type {type(value).__name__} cannot be written as source",
            hint="pass a number, a string, a dtype or a tensor",
        )
    )


@cache
def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _method_signature(name: str) -> inspect.Signature | None:
    function = getattr(torch.Tensor, name, None)
    found = _signature(function) if inspect.isfunction(function) else None
    if found is None:
        return None
    return found.replace(parameters=list(found.parameters.values())[1:])


# These differ between training and evaluation: written always, one line serves both.
_BY_MODE = frozenset({"dropout_p", "p", "training", "train"})


def _arguments(
    node: fx.Node, positional: tuple[Any, ...], names: Names, signature: inspect.Signature | None
) -> str:
    """The arguments of a call, without those that are the function's defaults."""
    parameters = list(signature.parameters.values()) if signature is not None else []
    keywords = dict(node.kwargs)
    args = list(positional)
    defaults = {p.name: p.default for p in parameters} or _schema_defaults(_plain_name(node.target))
    for name, value in list(keywords.items()):
        default = defaults.get(name, inspect.Parameter.empty)
        if name not in _BY_MODE and _is_default(default, value):
            del keywords[name]
    while args and len(args) <= len(parameters):
        last = parameters[len(args) - 1]
        if last.name in _BY_MODE or not _is_default(last.default, args[-1]):
            break
        args.pop()
    texts: list[str] = []
    for i, value in enumerate(args):
        known = parameters[i].name if i < len(parameters) else ""
        texts.append(literal(value, names, known))
    for i in range(len(args), len(parameters)):  # keywords that continue the positions
        name = parameters[i].name
        if name not in keywords or not isinstance(keywords[name], fx.Node):
            break
        texts.append(literal(keywords.pop(name), names, name))
    texts.extend(f"{name}={literal(value, names, name)}" for name, value in keywords.items())
    return ", ".join(texts)


def _plain_name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", ""))


@cache
def _schema_defaults(name: str) -> Mapping[str, object]:
    """Defaults of a builtin's keyword arguments, where all its overloads agree."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return {}
    found: dict[str, object] = {}
    differ: set[str] = set()
    for overload in packet.overloads():
        for argument in getattr(packet, overload)._schema.arguments:
            default = argument.default_value if argument.has_default_value() else ...
            if found.setdefault(argument.name, default) != default:
                differ.add(argument.name)
    return {k: v for k, v in found.items() if k not in differ and v is not ...}


def _is_default(default: object, value: object) -> bool:
    if default is inspect.Parameter.empty or isinstance(value, (fx.Node, Size)):
        return False
    return type(default) is type(value) and bool(default == value)


@cache
def public_name(function: Callable[..., Any]) -> str | None:
    """How a torch function is written with `import torch` and `import torch.nn.functional as F`."""
    name = getattr(function, "__name__", "")
    for prefix, module in _NAMESPACES:
        if getattr(module, name, None) is function:
            return f"{prefix}.{name}"
    resolved = resolve_name(function)
    if resolved and resolved.startswith("torch.") and "_C." not in resolved:
        return str(resolved)
    if isinstance(function, (torch._ops.OpOverloadPacket, torch._ops.OpOverload)):
        return f"torch.ops.{function}"
    return None


_NAMESPACES: tuple[tuple[str, Any], ...] = (
    ("F", F),
    ("torch", torch),
    ("torch.linalg", torch.linalg),
    ("torch.fft", torch.fft),
    ("torch.special", torch.special),
    ("torch.nn.init", torch.nn.init),
    ("torch._VF", torch._VF),
)
