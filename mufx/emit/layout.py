"""Breaks lines that are too long to read, at the commas of their outermost bracket."""

from __future__ import annotations

WIDTH = 100


def wrapped(line: str) -> str:
    """The line, or several if it is longer than `WIDTH`."""
    code, mark, comment = line.partition("  # ")
    if len(line) <= WIDTH or not code.strip():
        return line
    indent = code[: len(code) - len(code.lstrip())]
    if mark and len(code) <= WIDTH:
        return f"{indent}# {comment}\n{code}"
    opened = _outermost(code)
    if opened is None:
        return line
    start, end = opened
    parts = _split(code[start + 1 : end])
    if len(parts) < 2 and not parts[0].strip():
        return line
    head = f"{indent}# {comment}\n" if mark else ""
    together = f"{indent}    {code[start + 1 : end].strip()}"
    if len(together) <= WIDTH:
        return head + "\n".join([code[: start + 1], together, indent + code[end:]])
    comma = "," if len(parts) > 1 or (_is_call(code, start) and _GENERATES not in parts[0]) else ""
    inner = [wrapped(f"{indent}    {part.strip()}{comma}") for part in parts if part.strip()]
    return head + "\n".join([code[: start + 1], *inner, indent + code[end:]])


_GENERATES = " for _ in range("


def _is_call(code: str, opened: int) -> bool:
    """Whether a bracket takes arguments: one that groups or indexes would make a tuple of `a,`."""
    before = code[:opened]
    return code[opened] == "(" and (before[-1:].isalnum() or before.endswith(("_", ")", "]")))


def _outermost(code: str) -> tuple[int, int] | None:
    """Where the last bracket that closes at depth 0 opens and closes."""
    depth, start, found = 0, 0, None
    quoted = ""
    for i, c in enumerate(code):
        if quoted:
            quoted = "" if c == quoted else quoted
        elif c in "\"'":
            quoted = c
        elif c in "([{":
            if depth == 0:
                start = i
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0 and (found is None or i - start > found[1] - found[0]):
                found = (start, i)
    return found


def _split(text: str) -> list[str]:
    parts, depth, begin, quoted = [], 0, 0, ""
    for i, c in enumerate(text):
        if quoted:
            quoted = "" if c == quoted else quoted
        elif c in "\"'":
            quoted = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[begin:i])
            begin = i + 1
    return [*parts, text[begin:]]
