"""The page of the manifest, from its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

SCHEMA = Path(__file__).parents[1] / "manifest.schema.json"

HEAD = """# The manifest

`manifest.json` is what a conversion decided, as data. `mufx convert` writes it beside
`model_mup.py`, which reads it to make the optimizer's groups. The same input gives the same bytes.

The document carries its own digest and that of `model_mup.py`. Groups are refused where either was
edited: scales cannot be set by hand (`MUF503`, `MUF505`). The schema's version is {version}; a
reader refuses any other (`MUF502`). The JSON Schema (draft 2020-12) is
[manifest.schema.json](manifest.schema.json).

Every scale is a factor relative to base width. At base width all of them are 1.

"""
Schema = dict[str, Any]


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
        f"| `{name}` | {kind(field)} | {field.get('description', '')} |"
        for name, field in record["properties"].items()
    ]
    return "\n".join([*lines, "| field | type | |", "|---|---|---|", *rows, ""])


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
