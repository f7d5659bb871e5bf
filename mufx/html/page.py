"""Writes the page: one file that asks the network for nothing, and the same for the same input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import Final

from pydantic import TypeAdapter

from mufx.html.document import Document

_DATA: Final = '<script type="application/json" id="data">'
SCRIPTS: Final = ("dom.js", "table.js", "tree.js", "entry.js", "scale.js", "plot.js", "page.js")


def written(document: Document) -> str:
    """The text of the page of a document."""
    return _filled({"title": escape(document.title), "data": embedded(asdict(document))})


def read(text: str) -> Document:
    """The document of a page.

    Raises:
        ValueError: where the text is no page of this version.
    """
    _, found, rest = text.partition(_DATA)
    if not found:
        raise ValueError("it is no page of mufx")
    return TypeAdapter(Document).validate_json(rest.partition("</script>")[0])


def embedded(document: Mapping[str, object]) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _filled(values: Mapping[str, str]) -> str:
    """The template; what is filled in is never looked at again for further fields."""
    fields = {**values, "start": _DATA, "style": _file("style.css"), "script": _script()}
    first, *rest = _file("page.html").split("{{")
    parts = [first]
    for part in rest:
        name, _, after = part.partition("}}")
        parts += [fields[name], after]
    return "".join(parts)


def _script() -> str:
    """All scripts as one, in a scope of its own."""
    text = "\n".join(_file(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{text}}})();\n'


def _file(name: str) -> str:
    return (files("mufx.html") / name).read_text(encoding="utf-8")
