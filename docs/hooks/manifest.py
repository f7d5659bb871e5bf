"""The page of the manifest, from its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

SCHEMA = Path(__file__).parents[1] / "manifest.schema.json"

HEAD = """# The manifest

`manifest.json` is what a conversion decided, as data. `mufx convert` writes it beside
`model_mup.py`; `optim_mup.py` reads it to make the optimizer's groups. The same input gives the
same bytes.

The document carries its own digest and that of `model_mup.py`. Groups are refused where either was
edited: scales cannot be set by hand (`MUF503`, `MUF505`). The schema's version is {version}; a
reader refuses any other (`MUF502`). The JSON Schema (draft 2020-12) is
[manifest.schema.json](manifest.schema.json).

Every scale is a factor relative to base width. At base width all of them are 1.

"""
Schema = dict[str, Any]

MEANINGS = {
    "after": "the number that stands there now",
    "axis": "the axis of the weight that the rows lie along",
    "base": "the knobs at base width",
    "base_shape": "its shape at base width",
    "because": "why",
    "before": "the number that stood there",
    "changes": "what was rewritten in the forward pass",
    "code": "see [the codes](refusals.md)",
    "diagnostics": "the warnings and notes of the conversion",
    "digest": "of its bytes",
    "eps_scale": "factor on Adam's eps",
    "file": "relative, so that it is the same on any machine",
    "form": "which table",
    "group": "the name of its group",
    "groups": "by name",
    "hint": "what to do",
    "line": "from 1",
    "lr_scale": "factor on the learning rate",
    "message": "what is",
    "module": "the path of the module, empty for the root",
    "mufx_version": "that wrote it",
    "node": "of the recorded graph",
    "optimizer": "that the scales are for",
    "parameters": "by name, tied ones once",
    "role": "what it is of the axes that grow",
    "schema_version": "of this document",
    "severity": "how much it matters",
    "shape": "its shape at target width",
    "source": "what was converted",
    "spec": "as it was given",
    "start": "the first row",
    "stop": "the row after the last",
    "target": "the knobs at target width",
    "torch_version": "that recorded the model",
    "weight_decay_scale": "factor on the weight decay",
}
"""Of the fields that have no description in the schema."""


def on_files(files: Any, config: Any) -> Any:
    """Adds the page."""
    files.append(File.generated(config, "manifest.md", content=page()))
    return files


def page() -> str:
    """The page: a table for each record, the document first."""
    schema: Schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    records = {schema["title"]: schema} | schema["$defs"]
    version = schema["properties"]["schema_version"]["const"]
    return HEAD.format(version=version) + "\n".join(section(t, r) for t, r in records.items())


def section(title: str, record: Schema) -> str:
    """The heading of a record, what it is, and its fields or values."""
    lines = [f"## {title}", "", record.get("description", "").split("\n\n")[0], ""]
    if "enum" in record:
        return "\n".join(
            [*lines, "One of " + ", ".join(f"`{v}`" for v in record["enum"]) + ".", ""]
        )
    rows = [
        f"| `{name}` | {kind(field)} | {meaning(name, field)} |"
        for name, field in record["properties"].items()
    ]
    return "\n".join([*lines, "| field | type | |", "|---|---|---|", *rows, ""])


def meaning(name: str, field: Schema) -> str:
    """What a field holds; every field has to say."""
    return str(field["description"] if field.get("description") else MEANINGS[name])


def kind(field: Schema) -> str:
    """The type of a field in words, with a link to the record it holds."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(kind(choice) for choice in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {kind(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        held = field["additionalProperties"]
        return f"object of {kind(held)}" if held else "object"
    return f"{field.get('type', 'any')}{_limits(field)}"


def _limits(field: Schema) -> str:
    if "exclusiveMinimum" in field:
        return f" > {field['exclusiveMinimum']:g}"
    if "minimum" in field:
        return f" >= {field['minimum']:g}"
    return ", sha256" if "pattern" in field else ""
