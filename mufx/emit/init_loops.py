"""Statements on a module tree, folded into loops over blocks and over equal modules."""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from mufx.emit.init_statements import references
from mufx.emit.loops import fold_loops
from mufx.emit.modules import is_list, step
from mufx.emit.text import filled, holes, skeleton

_LOCAL = re.compile(r"⟨(\d+):([^⟩]*)⟩")
_DEFINITION = re.compile(r"⟨(\d+):[^⟩]*⟩ = ")
_LOOP = re.compile(r"^ *for ([\w, ]+) in ", re.MULTILINE)
_REFERENCE = re.compile(r"⟪([^⟫]*)⟫")
_WIDTH = 92
_LONGEST_GROUP = 8

_QUOTED = re.compile(r'"[^"]*"')
_HIDDEN = {ord(c): 0xE000 + i for i, c in enumerate(" ,()[]{}")}  # a line never breaks there
_SHOWN = {hidden: c for c, hidden in _HIDDEN.items()}
_RESERVED = frozenset([*dir(builtins), *keyword.kwlist])
_OURS = frozenset({"device", "tables"})
"""Variables that `init_weights` starts with."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class _Scope:
    """The names of modules at some place: the root is `self`, a block of a loop has its own."""

    model: nn.Module
    free: bool
    """Whether the statements can stand in any order."""
    variables: Mapping[Path, str] = field(default_factory=lambda: {(): "self"})
    taken: frozenset[str] = frozenset()
    depth: int = 0
    """How much of a path is decided already."""
    alike: tuple[Path, ...] = ((),)
    """All modules that the innermost variable stands for, of which statements name the first."""

    def bind(self, paths: Sequence[Path], text: str) -> _Scope:
        """Inside of the modules at these paths, which are reached as `text` one after the other."""
        path = paths[0]
        return replace(
            self,
            variables={**self.variables, path: text},
            depth=len(path),
            taken=self.taken | {text},
            alike=tuple(start + p[self.depth :] for start in self.alike for p in paths),
        )

    def lengths(self, container: Path) -> set[int]:
        """How many children a container has, in each of the modules that are alike."""
        there = (_module(self.model, start + container[self.depth :]) for start in self.alike)
        return {len(list(module.children())) for module in there}

    def free_name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.taken:
            count += 1
            name = f"{wanted}_{count}"
        return name

    def text(self, path: Path) -> str:
        """How a module or tensor is reached."""
        known = max((p for p in self.variables if path[: len(p)] == p), key=len)
        text = self.variables[known]
        for i in range(len(known), len(path)):
            text += step(_module(self.model, path[:i]), path[i], at_root=not i)
        return text


def _module(model: nn.Module, path: Path) -> nn.Module:
    return model.get_submodule(".".join(path))


def fold(statements: Iterable[str], model: nn.Module, free: bool = False) -> list[str]:
    """Lines of Python; equal statements on equal modules stand in a loop.

    `free` statements can stand in any order.
    """
    texts = list(statements)
    uses = Counter(number for text in texts for number, _ in _LOCAL.findall(text))
    counted = [_LOCAL.sub(lambda m: f"⟨{m[1]}:{m[2]}/{uses[m[1]]}⟩", text) for text in texts]
    scope = _Scope(model, free)
    lines = _with_local_names(_block(counted, scope))
    parts = [part for line in lines for part in _indented(line)]
    return fold_loops(_whole(parts), _lists(scope))  # for lists in step: a copy of each block


def _whole(lines: list[str]) -> list[str]:
    """Statements, each with the lines that belong to it."""
    statements: list[str] = []
    for line in lines:
        if statements and line.startswith((" ", ")", "]")):
            statements[-1] += f"\n{line}"
        else:
            statements.append(line)
    return statements


def _lists(scope: _Scope) -> dict[str, int]:
    """The lists of a model, as they are written, with their lengths."""
    return {
        scope.text(tuple(path.split("."))): len(module._modules)
        for path, module in scope.model.named_modules()
        if path and is_list(module)
    }


def _indented(line: str) -> list[str]:
    code = line.lstrip(" ")
    indent = line[: len(line) - len(code)]
    safe = _QUOTED.sub(lambda m: m[0].translate(_HIDDEN), code)
    parts = _wrapped(safe, _WIDTH - len(indent))
    return [indent + part.translate(_SHOWN) for part in parts]


# -- loops over the children of a container ----------------------------------------------------


@dataclass(frozen=True)
class _Segment:
    """Consecutive statements on one child of a container; `container` is None for others."""

    container: Path | None
    index: int
    items: tuple[str, ...]


def _block(items: list[str], scope: _Scope) -> list[str]:
    lines: list[str] = []
    plain: list[str] = []
    for run in _runs(_segments(items, scope)):
        for part in _parts(run, scope.model):
            deeper = _deeper(part[0], scope) if len(part) == 1 else None
            if len(part) == 1 and deeper is None:
                plain += part[0].items
                continue
            lines += _leaf_loops(plain, scope)
            plain = []
            lines += _loop(part, scope) if deeper is None else _block([*part[0].items], deeper)
    return lines + _leaf_loops(plain, scope)


def _deeper(segment: _Segment, scope: _Scope) -> _Scope | None:
    """The scope inside of a single child, if there are numbered children in it again."""
    if segment.container is None:
        return None
    path = (*segment.container, str(segment.index))
    inner = scope.bind([path], scope.text(path))
    return inner if any(_child(item, inner) is not None for item in segment.items) else None


def _segments(items: list[str], scope: _Scope) -> list[_Segment]:
    segments: list[_Segment] = []
    local: dict[str, tuple[Path, int] | None] = {}
    for item in items:
        numbers = [number for number, _ in _LOCAL.findall(item)]
        place = _child(item, scope) if references(item) else local.get((numbers or [""])[-1])
        if _DEFINITION.match(item):
            local[numbers[0]] = place
        container, index = place if place is not None else (None, 0)
        last = segments[-1] if segments else None
        if last is not None and (last.container, last.index) == (container, index):
            segments[-1] = _Segment(container, index, (*last.items, item))
        else:
            segments.append(_Segment(container, index, (item,)))
    return segments


def _child(item: str, scope: _Scope) -> tuple[Path, int] | None:
    """The outermost numbered child, below the scope, that all tensors of a statement are in."""
    paths = [tuple(name.split(".")) for name in references(item)]
    if not paths:
        return None
    first = paths[0]
    for i in range(scope.depth, len(first) - 1):
        if first[i].isdigit() and _is_container(scope.model, first[:i]):
            inside = all(path[: i + 1] == first[: i + 1] for path in paths)
            return (first[:i], int(first[i])) if inside else None
    return None


def _is_container(model: nn.Module, path: Path) -> bool:
    return bool(path) and is_list(_module(model, path))


def _runs(segments: list[_Segment]) -> list[list[_Segment]]:
    """Segments on consecutive children of the same container."""
    runs: list[list[_Segment]] = []
    for segment in segments:
        last = runs[-1][-1] if runs else None
        follows = (
            last is not None
            and segment.container is not None
            and last.container == segment.container
            and last.index + 1 == segment.index
        )
        if follows:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def _parts(run: list[_Segment], model: nn.Module) -> list[list[_Segment]]:
    """A run cut up so that all segments of a part read the same."""
    if len(run) == 1:
        return [run]
    todo, parts = list(run), list[list[_Segment]]()
    while todo:
        segment = todo.pop(0)
        last = parts[-1][-1] if parts else None
        if last is not None and _follows(last, segment):
            if _body(last, model) == _body(segment, model):
                parts[-1].append(segment)
                continue
            shared = _shared(last, segment, model, whole=len(parts[-1]) > 1)
            if shared:
                _split(parts, segment, shared, todo)
                continue
        parts.append([segment])
    return parts


def _follows(before: _Segment, after: _Segment) -> bool:
    return before.index + 1 == after.index


def _shared(before: _Segment, after: _Segment, model: nn.Module, whole: bool) -> int:
    """How many statements at the end of `before` are those at the begin of `after`."""
    a, b = _body(before, model), _body(after, model)
    longest = min(len(a), len(b))
    for count in range(longest, 0, -1):
        if whole and count != len(a):
            return 0
        end, begin = _cut(before, len(a) - count, len(a)), _cut(after, 0, count)
        if _body(end, model) == _body(begin, model):
            return count
    return 0


def _cut(segment: _Segment, start: int, stop: int) -> _Segment:
    return _Segment(segment.container, segment.index, segment.items[start:stop])


def _split(
    parts: list[list[_Segment]], segment: _Segment, shared: int, todo: list[_Segment]
) -> None:
    """Lets the shared statements be a part of their own."""
    before = parts[-1].pop()
    head = _cut(before, 0, len(before.items) - shared)
    tail = _cut(before, len(before.items) - shared, len(before.items))
    if head.items:
        parts[-1].append(head)
        parts.append([tail])
    else:
        parts[-1].append(tail)
    parts[-1].append(_cut(segment, 0, shared))
    rest = _cut(segment, shared, len(segment.items))
    if rest.items:
        todo.insert(0, rest)


def _body(segment: _Segment, model: nn.Module) -> tuple[str, ...]:
    """The statements without numbers, relative to the child that they are about."""
    if segment.container is None:
        return segment.items
    child = (*segment.container, str(segment.index))
    return _relative(segment.items, child, model, skeleton)


def _relative(
    items: Sequence[str], owner: Path, model: nn.Module, form: object = None
) -> tuple[str, ...]:
    """Statements with tensors as `owner` reaches them, and their own local variables numbered.

    A local variable that is used elsewhere too keeps its number, which no other statement has.
    """
    own: dict[str, str] = {}
    texts: list[str] = []
    found = Counter(_LOCAL.findall("\n".join(items)))
    inside = {number for (number, hint), n in found.items() if hint.endswith(f"/{n}")}
    for item in items:
        for number in inside.intersection(_DEFINITION.findall(item)):
            own[number] = f"own{len(own)}"
        text = _LOCAL.sub(lambda m: f"⟨{own.get(m[1], m[1])}:{m[2]}⟩", item)
        text = _REFERENCE.sub(lambda m: _reached(m[1], owner, model) or m[0], text)
        texts.append(skeleton(text) if form is skeleton else text)
    return tuple(texts)


def _reached(name: str, owner: Path, model: nn.Module) -> str | None:
    """How a tensor in `owner` is reached from there: a chain and a class have each their way."""
    path = tuple(name.split("."))
    if not owner or path[: len(owner)] != owner:
        return None
    places = range(len(owner), len(path))
    steps = (step(_module(model, path[:i]), path[i], at_root=not i) for i in places)
    return "⟪*" + "".join(steps) + "⟫"


def _loop(part: list[_Segment], scope: _Scope) -> list[str]:
    container = part[0].container
    assert container is not None
    paths = [(*container, str(segment.index)) for segment in part]
    name = scope.free_name(_noun([_module(scope.model, path) for path in paths]))
    children = scope.text(container)
    start, stop = part[0].index, part[-1].index + 1
    to_the_end = scope.lengths(container) == {stop}
    if start or not to_the_end:
        children += f"[{start or ''}:{'' if to_the_end else stop}]"
    items, columns = _numbers(part)
    inner = scope.bind(paths, name)
    inner = replace(inner, taken=inner.taken | set(columns))
    body = _block(items, inner)
    if not columns:
        header = f"for {name} in {children}:"
    else:
        values = [f"({', '.join(column)})" for column in columns.values()]
        zipped = ", ".join([children, *values])
        header = f"for {', '.join([name, *columns])} in zip({zipped}, strict=True):"
    return [header, *(f"    {line}" for line in body)]


def _numbers(part: list[_Segment]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The first segment's statements; numbers that differ between segments become variables."""
    rows = [[h.value for item in s.items for h in holes(item)] for s in part]
    names = [h.name for item in part[0].items for h in holes(item)]
    columns: dict[str, tuple[str, ...]] = {}
    known: dict[tuple[str, ...], str] = {}
    texts: list[str | None] = []
    for i, name in enumerate(names):
        column = tuple(row[i] for row in rows)
        if len(set(column)) == 1:
            texts.append(None)
            continue
        if column not in known:
            variable, count = name or "number", 1
            while variable in columns:
                count += 1
                variable = f"{name or 'number'}_{count}"
            known[column], columns[variable] = variable, column
        texts.append(known[column])
    chosen = iter(texts)
    items = [
        filled(item, lambda _, h: next(chosen) or f"⟦{h.name}={h.value}⟧") for item in part[0].items
    ]
    return items, columns


# -- loops over equal modules --------------------------------------------------------------


def _leaf_loops(items: list[str], scope: _Scope) -> list[str]:
    items = _equal_together(items, scope.model) if scope.free else items
    lines: list[str] = []
    at = 0
    while at < len(items):
        length, count = _best_group(items, at, scope.model)
        if count == 1:
            lines.append(_final(items[at], scope))
            at += 1
            continue
        owners = [_owner(items[at + i * length]) for i in range(count)]
        paths = [owner for owner in owners if owner is not None]
        name = scope.free_name(_noun([_module(scope.model, p) for p in paths]))
        texts = ", ".join(scope.text(p) for p in paths)
        inner = scope.bind(paths, name)
        lines.append(f"for {name} in ({texts}):")
        lines += [f"    {_final(item, inner)}" for item in items[at : at + length]]
        at += length * count
    return lines


def _equal_together(items: list[str], model: nn.Module) -> list[str]:
    """Free statements so that modules with the same statements follow each other."""
    modules: dict[Path, list[str]] = {}
    for item in items:
        modules.setdefault(_owner(item) or (), []).append(item)
    groups: dict[tuple[str, ...], list[str]] = {}
    for owner, own in modules.items():
        groups.setdefault(_relative(own, owner, model), []).extend(own)
    return [item for group in groups.values() for item in group]


def _best_group(items: list[str], at: int, model: nn.Module) -> tuple[int, int]:
    """The length and number of equal groups from `at` on that save most lines."""
    best, saved = (1, 1), 0
    for length in range(1, _LONGEST_GROUP + 1):
        count = _repeats(items, at, length, model)
        saving = length * count - length - 1
        if count > 1 and saving > saved:
            best, saved = (length, count), saving
    return best


def _repeats(items: list[str], at: int, length: int, model: nn.Module) -> int:
    first = _group(items, at, length, model)
    if first is None:
        return 1
    seen, count = {first[0]}, 1
    while True:
        group = _group(items, at + count * length, length, model)
        if group is None or group[1] != first[1] or group[0] in seen:
            return count
        seen.add(group[0])
        count += 1


def _group(
    items: list[str], at: int, length: int, model: nn.Module
) -> tuple[Path, tuple[str, ...]] | None:
    """The one module that statements are about, and what they say of it."""
    if at + length > len(items):
        return None
    chosen = items[at : at + length]
    owner = _owner(chosen[0])
    if not owner or any(_owner(item) != owner for item in chosen):
        return None
    return owner, _relative(chosen, owner, model)


def _owner(item: str) -> Path | None:
    """The module that directly holds all tensors of a statement."""
    owners = {tuple(name.split("."))[:-1] for name in references(item)}
    return owners.pop() if len(owners) == 1 else None


# -- text ------------------------------------------------------------------------------------


def _noun(modules: list[nn.Module]) -> str:
    """The last word of a class name: LlamaDecoderLayer is a layer, LayerNorm a norm."""
    nouns: set[str] = set()
    for module in modules:
        words = re.findall(r"[A-Z][a-z]+", type(module).__name__)
        nouns.add(words[-1].lower() if words else "module")
    noun = nouns.pop() if len(nouns) == 1 else "module"
    return "module" if noun in _RESERVED else noun


def _final(item: str, scope: _Scope) -> str:
    text = _REFERENCE.sub(lambda m: scope.text(tuple(m[1].split("."))), item)
    return filled(text)


def _with_local_names(lines: list[str]) -> list[str]:
    names: dict[str, str] = {}
    text = "\n".join(lines)
    loops = {name for group in _LOOP.findall(text) for name in group.split(", ")}
    for number, hint in _LOCAL.findall(text):
        if number not in names:
            wanted = hint.partition("/")[0]
            taken, name, count = loops | _OURS | set(names.values()), wanted, 1
            while name in taken:
                count += 1
                name = f"{wanted}_{count}"
            names[number] = name
    return [_LOCAL.sub(lambda m: names[m[1]], line) for line in lines]


def _wrapped(line: str, width: int) -> list[str]:
    """A statement over several lines where it is too long, broken between arguments."""
    code, mark, comment = line.partition("  # ")
    if len(line) <= width:
        return [line]
    head = [f"# {comment}"] if mark else []
    group = _last_group(code, width)
    if len(code) <= width or group is None:
        return [*head, code]
    start, stop = group
    inside = textwrap.wrap(code[start:stop], width - 4, break_long_words=False)
    if not all(_balanced(text) for text in inside):
        inside = [t for a in _arguments(code[start:stop]) for t in _wrapped(a, width - 4)]
    return [*head, code[:start], *(f"    {text}" for text in inside), *_wrapped(code[stop:], width)]


def _balanced(text: str) -> bool:
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}"))


def _last_group(code: str, width: int) -> tuple[int, int] | None:
    """The inside of the last outermost bracket that begins on the first line."""
    found, at = None, 0
    while (opening := code.find("(", at)) >= 0:
        at = _closing(code, opening)
        if at < 0 or (found is not None and opening >= width):
            break
        if at > opening + 1:
            found = (opening + 1, at)
    return found


def _closing(code: str, opening: int) -> int:
    depth = 0
    for i in range(opening, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i
    return -1


def _arguments(text: str) -> list[str]:
    """The arguments of a call, each with its comma."""
    parts, depth, start = list[str](), 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start : i + 1].strip())
            start = i + 1
    return [*parts, text[start:].strip()] if text[start:].strip() else parts
