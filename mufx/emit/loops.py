"""Statements about equal blocks of a list of modules, folded into loops over the list."""

from __future__ import annotations

import keyword
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_PATH = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[\d+\])*\[\d+\]")
_INDEX = re.compile(r"\[(\d+)\]")
_NUMBER = re.compile(r"⟦[^⟧]*⟧|(?<![\w.⟦])-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?![\w.])")
_STRING = re.compile(r""""[^"\n]*"|'[^'\n]*'""")
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?![\w=])")
_KEYWORD = re.compile(r"([A-Za-z_]\w*)=$")
_TRIES = 8  # later lines of the same form that may begin the second round of a loop
_MOST_VALUES = 3  # numbers that differ between the rounds of one loop


def fold_loops(lines: Sequence[str], lists: Mapping[str, int]) -> list[str]:
    """Writes statements that repeat over consecutive blocks as loops over their lists.

    Args:
        lines: Python statements without indentation; blocks are written by index, as in
            `x = self.h[3](x)`. A number may be a hole (see `text.py`).
        lists: By the text of each list (`self.h`, `self.stages[0].blocks`): its length.

    Returns:
        The lines, in the same order of execution. A run of at least two groups of lines that are
        equal up to the index becomes `for block in self.h:` with an indented body. If only
        numbers differ as well, the loop runs over them too: `zip(self.h, (0.02, 0.01))`.
    """
    items = _carried(_named_return(lines, lists), lists)
    depths = {path: len(_INDEX.findall(path)) for path in lists}
    taken = frozenset(_NAME.findall("\n".join(lines)))
    for depth in sorted(set(depths.values()), reverse=True):  # the inner loops first
        level = {path: lists[path] for path, d in depths.items() if d == depth}
        items = _folded(items, level, taken)
    return [line for item in items for line in item.split("\n")]


def _named_return(lines: Sequence[str], lists: Mapping[str, int]) -> Sequence[str]:
    """A last round that is returned is a statement like those before it."""
    target, _, _ = lines[-2].partition(" = ") if len(lines) > 1 else ("", "", "")
    if not target.isidentifier() or not lines[-1].startswith("return "):
        return lines
    last = f"{target} = {lines[-1].removeprefix('return ')}"
    here, there = _parse(lines[-2], lists), _parse(last, lists)
    counts = here.blocks and [(path, i + 1) for path, i in here.blocks] == list(there.blocks)
    if counts and (here.form == there.form or _given(lines[-2], last, lists) is not None):
        return [*lines[:-1], last, f"return {target}"]
    return lines


def _carried(lines: Sequence[str], lists: Mapping[str, int]) -> list[str]:
    """`y = self.h[0](x)`, `y = self.h[1](y)` with a first line `y = x`: all are one loop then."""
    result: list[str] = []
    for i, line in enumerate(lines):
        target, following = line.partition(" = ")[0], [*lines, ""][i + 1]
        given = _given(line, following, lists) if target.isidentifier() else None
        if given is not None:
            made, _, value = result[-1].partition(" = ") if result else ("", "", "")
            if made == given and not _uses(lines[i + 1 :], given):
                result[-1] = f"{target} = {value}"
            else:
                result.append(f"{target} = {given}")
            line = _renamed(line, given, target)
        result.append(line)
    return result


def _uses(lines: Sequence[str], name: str) -> bool:
    return name in _NAME.findall("\n".join(lines))


def _given(line: str, following: str, lists: Mapping[str, int]) -> str | None:
    """What stands in a first round where the second has the first's result."""
    target, _, value = line.partition(" = ")
    here, there = _parse(line, lists).blocks, _parse(following, lists).blocks
    if not here or [(path, i + 1) for path, i in here] != list(there) or any(i for _, i in here):
        return None
    form = _parse(following, lists).form
    used = dict.fromkeys(_NAME.findall(value))
    names = (n for n in used if n != "self" and target not in used)
    return next((n for n in names if _parse(_renamed(line, n, target), lists).form == form), None)


def _renamed(text: str, name: str, other: str) -> str:
    return re.sub(rf"(?<![\w.]){name}(?![\w=])", other, text)


@dataclass(frozen=True, slots=True)
class _Item:
    """A statement, taken apart: text, and between its pieces block indices and numbers."""

    text: str
    form: tuple[str, ...]
    """The pieces of text between what may vary; lists by name, comments as they are."""
    blocks: tuple[tuple[str, int], ...]
    """(list, index)."""
    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """`count` groups of `period` items from `start` on."""

    start: int
    period: int
    count: int
    steps: tuple[tuple[bool, ...], ...]
    """For each item of the group and each of its blocks: whether the index counts up."""


def _folded(items: list[str], lists: Mapping[str, int], taken: frozenset[str]) -> list[str]:
    parsed = [_parse(item, lists) for item in items]
    positions: dict[tuple[str, ...], list[int]] = defaultdict(list)
    ranks: list[int] = []
    for i, item in enumerate(parsed):
        ranks.append(len(positions[item.form]))
        positions[item.form].append(i)
    result: list[str] = []
    at = 0
    while at < len(parsed):
        later = positions[parsed[at].form][ranks[at] + 1 : ranks[at] + 1 + _TRIES]
        run = _longest(parsed, at, later)
        if run is None:
            result.append(parsed[at].text)
            at += 1
            continue
        result.append(_loop(run, parsed, lists, taken))
        at += run.period * run.count
    return result


# -- taking statements apart ------------------------------------------------------------------


def _parse(text: str, lists: Mapping[str, int]) -> _Item:
    form: list[str] = []
    blocks: list[tuple[str, int]] = []
    numbers: list[str] = []
    for kind, piece in _pieces(text, lists):
        if kind == "block":
            path, index = piece.rsplit("[", 1)
            blocks.append((path, int(index[:-1])))
            form.append(f"⟪{path}⟫")
        elif kind == "number":
            numbers.append(piece)
            form.append("⟪#⟫")
        else:
            form.append(piece)
    return _Item(text, tuple(form), tuple(blocks), tuple(numbers))


def _pieces(text: str, lists: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The kinds "text", "block" and "number" in turn; joined, the pieces are the text."""
    for line in text.splitlines(keepends=True):
        code, mark, comment = line.partition("# ")
        start = 0
        for begin, end in _references(code, lists):
            yield from _numbers(code[start:begin])
            yield "block", code[begin:end]
            start = end
        yield from _numbers(code[start:])
        if mark:
            yield "text", mark + comment


def _references(code: str, lists: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Where blocks of the lists stand, as `self.h[3]`."""
    for match in _PATH.finditer(code):
        for index in _INDEX.finditer(match[0]):
            if match[0][: index.start()] in lists:
                yield match.start(), match.start() + index.end()


def _numbers(text: str) -> Iterator[tuple[str, str]]:
    """Digits in a string are a name, as in `get_parameter("0")`, and no number."""
    quoted = [match.span() for match in _STRING.finditer(text)]
    start = 0
    for match in _NUMBER.finditer(text):
        if any(begin < match.start() < end for begin, end in quoted):
            continue
        yield "text", text[start : match.start()]
        yield "number", match[0]
        start = match.end()
    if start < len(text):
        yield "text", text[start:]


# -- finding runs -----------------------------------------------------------------------------


def _longest(items: Sequence[_Item], start: int, later: Sequence[int]) -> _Run | None:
    """The run from `start` on with the fewest lines in a group; of equal ones the longest."""
    if not items[start].blocks:
        return None
    for second in later:
        run = _run(items, start, second - start)
        if run is not None:
            return run
    return None


def _run(items: Sequence[_Item], start: int, period: int) -> _Run | None:
    first = items[start : start + period]
    steps = _steps(first, items[start + period : start + 2 * period])
    if steps is None or not _in_step(first, steps):
        return None
    count = 2
    while True:
        before = start + (count - 1) * period
        group = items[before + period : before + 2 * period]
        if _steps(items[before : before + period], group) != steps:
            break
        count += 1
    run = _Run(start, period, count, steps)
    return run if len(_columns(run, items)) <= _MOST_VALUES else None


def _steps(before: Sequence[_Item], after: Sequence[_Item]) -> tuple[tuple[bool, ...], ...] | None:
    """Which indices count up by one from one group to the next, if nothing else changes."""
    if len(before) != len(after):
        return None
    steps: list[tuple[bool, ...]] = []
    for a, b in zip(before, after, strict=True):
        if a.form != b.form:
            return None
        deltas = [j - i for (_, i), (_, j) in zip(a.blocks, b.blocks, strict=True)]
        if any(delta not in (0, 1) for delta in deltas):
            return None
        steps.append(tuple(delta == 1 for delta in deltas))
    return tuple(steps)


def _in_step(group: Sequence[_Item], steps: tuple[tuple[bool, ...], ...]) -> bool:
    """Whether every statement is about the next block, and each list is at one index."""
    current: dict[str, int] = {}
    for item, counts in zip(group, steps, strict=True):
        if item.blocks and not any(counts):
            return False
        for (path, index), up in zip(item.blocks, counts, strict=True):
            if up and current.setdefault(path, index) != index:
                return False
    return bool(current)


# -- writing loops ----------------------------------------------------------------------------


def _columns(run: _Run, items: Sequence[_Item]) -> dict[tuple[int, int], tuple[str, ...]]:
    """The numbers that differ between the groups, by item of the group and place in it."""
    columns: dict[tuple[int, int], tuple[str, ...]] = {}
    for i in range(run.period):
        rows = [items[run.start + g * run.period + i].numbers for g in range(run.count)]
        for k, column in enumerate(zip(*rows, strict=True)):
            if len(set(column)) > 1:
                columns[i, k] = column
    return columns


def _loop(run: _Run, items: Sequence[_Item], lists: Mapping[str, int], used: frozenset[str]) -> str:
    group = items[run.start : run.start + run.period]
    inner = _NAME.findall("\n".join(item.text for item in group))  # of loops folded before
    taken = {*used, *inner}
    sources: dict[str, str] = {}
    names: dict[str, str] = {}
    for item, counts in zip(group, run.steps, strict=True):
        for (path, index), up in zip(item.blocks, counts, strict=True):
            if up and path not in names:
                names[path] = _free(_singular(path), taken)
                sources[names[path]] = _slice(path, index, index + run.count, lists[path])
    values = _values(_columns(run, items), group, taken, sources)
    body = [
        _rewritten(item, counts, names, {k: v for (j, k), v in values.items() if j == i})
        for i, (item, counts) in enumerate(zip(group, run.steps, strict=True))
    ]
    over = next(iter(sources.values()))
    if len(sources) > 1:
        over = f"zip({', '.join(sources.values())})"
    head = f"for {', '.join(sources)} in {over}:"
    return "\n".join([head, *(f"    {line}" for text in body for line in text.split("\n"))])


def _values(
    columns: Mapping[tuple[int, int], tuple[str, ...]],
    group: Sequence[_Item],
    taken: set[str],
    sources: dict[str, str],
) -> dict[tuple[int, int], str]:
    """A loop variable for each number that differs; `-b` where one is another's negative."""
    known: dict[tuple[str, ...], str] = {}
    values: dict[tuple[int, int], str] = {}
    # positive columns first, so that it is the negative one that is written with a sign
    for place in sorted(columns, key=lambda p: (columns[p][0].startswith("-"), p)):
        column = columns[place]
        positive = tuple(v.removeprefix("-") for v in column)
        if column not in known:
            if positive in known and all(v.startswith("-") for v in column):
                known[column] = f"-{known[positive]}"
            else:
                known[column] = _free(_value_name(group[place[0]], place[1]), taken)
                sources[known[column]] = f"({', '.join(column)})"
        values[place] = known[column]
    return values


def _value_name(item: _Item, place: int) -> str:
    """The name of a number: its hole's, or that of the argument that it is given for."""
    number = item.numbers[place]
    if number.startswith("⟦"):
        return number[1:].partition("=")[0] or "value"
    positions = [i for i, piece in enumerate(item.form) if piece == "⟪#⟫"]
    at = positions[place]
    found = _KEYWORD.search(item.form[at - 1]) if at else None
    return found[1] if found else "value"


def _rewritten(
    item: _Item, counts: tuple[bool, ...], names: Mapping[str, str], values: Mapping[int, str]
) -> str:
    """The statement with loop variables in the place of blocks and numbers."""
    blocks = iter(zip(item.blocks, counts, strict=True))
    numbers = iter(enumerate(item.numbers))
    text = ""
    for piece in item.form:
        if piece == "⟪#⟫":
            place, number = next(numbers)
            text += values.get(place, number)
        elif piece.startswith("⟪"):
            (path, index), up = next(blocks)
            text += names[path] if up else f"{path}[{index}]"
        else:
            text += piece
    return text


def _slice(path: str, start: int, stop: int, length: int) -> str:
    if (start, stop) == (0, length):
        return path
    return f"{path}[{start or ''}:{stop if stop != length else ''}]"


def _singular(path: str) -> str:
    """A name for one of a list: `blocks` -> `block`, `h` -> `block`."""
    name = _INDEX.sub("", path).rpartition(".")[2]
    if len(name) < 3:
        return "block"
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    if name.endswith("s") and not name.endswith("ss"):
        return name[:-1]
    return name if name in ("layer", "block", "stage") else "module"


def _free(wanted: str, taken: set[str]) -> str:
    """`wanted`, or with a number if it is in use."""
    name, count = wanted, 1
    while name in taken or keyword.iskeyword(name):
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name
