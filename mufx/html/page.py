"""Writes the page: one file that asks the network for nothing, and the same for the same input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path

from mufx.manifest import Manifest
from mufx.program import Optimizer

AROUND = 2  # source lines shown before and after a place


def of_manifest(manifest: Manifest) -> str:
    """The text of report.html for a conversion.

    Source lines are shown where the files that the manifest names are found from the working
    folder.
    """
    document = {
        "manifest": manifest.model_dump(mode="json"),
        "train": _training(manifest),
        "source": _source(manifest),
    }
    title = f"{manifest.model} in μP"
    return _filled({"title": escape(title), "data": embedded(document)})


def embedded(document: Mapping[str, object]) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _filled(values: Mapping[str, str]) -> str:
    """The template; what is filled in is never looked at again for further fields."""
    fields = {**values, "style": _file("style.css"), "script": _file("page.js")}
    first, *rest = _file("page.html").split("{{")
    parts = [first]
    for part in rest:
        name, _, after = part.partition("}}")
        parts += [fields[name], after]
    return "".join(parts)


def _file(name: str) -> str:
    return (files("mufx.html") / name).read_text(encoding="utf-8")


def _training(manifest: Manifest) -> str:
    """What a user writes to train the emitted module."""
    if manifest.emitted is None:
        return ""
    module, sgd = manifest.emitted.file.removesuffix(".py"), manifest.optimizer is Optimizer.SGD
    optimizer = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[manifest.optimizer.value]
    eps = "" if sgd else ", eps=1e-8"
    return (
        "import torch\n"
        f"from {module} import {manifest.model}\n"
        "from optim_mup import clip_grad_norm_, param_groups\n\n"
        f'model = {manifest.model}(device="cpu")\n'
        f"groups = param_groups(model, lr=1e-3, weight_decay=0.1{eps})  # as tuned at base width\n"
        f"optimizer = torch.optim.{optimizer}(groups)\n\n"
        "# in every step, after loss.backward():\n"
        "clip_grad_norm_(model, 1.0)\n"
        "optimizer.step()\n"
    )


def _source(manifest: Manifest) -> dict[str, list[str]]:
    """By file:line, the lines around each place that a change or a diagnostic names."""
    told = (*manifest.diagnostics, *manifest.unabsorbed)
    places = [*(c.place for c in manifest.changes), *(d.place for d in told)]
    named = {(place.file, place.line) for place in places if place is not None}
    found = {f"{file}:{line}": _around(Path(file), line) for file, line in sorted(named)}
    return {place: lines for place, lines in found.items() if lines}


def _around(path: Path, line: int) -> list[str]:
    """Numbered lines; none where the file is not here or is shorter."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    if not 1 <= line <= len(lines):
        return []
    start, stop = max(line - 1 - AROUND, 0), min(line + AROUND, len(lines))
    mark = {line - 1: ">"}
    return [f"{mark.get(i, ' ')} {i + 1:5} {lines[i]}" for i in range(start, stop)]
