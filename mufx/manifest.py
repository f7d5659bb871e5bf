"""The manifest: what was decided about every parameter, as data that outlives the conversion.

A manifest is the same text for the same input, and carries the hash of everything in it, so an
edit by hand is noticed where it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mufx.diagnostics import Diagnostic, MufxError, Place, Severity, error
from mufx.program import Form, Optimizer, Role

SCHEMA_VERSION: Final = 1


def _plain(value: object) -> object:
    """A knob's value as JSON reads it back; what JSON does not have is told in words."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))  # an address differs from run to run


Knob = Annotated[object, BeforeValidator(_plain)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )


class RowsEntry(_Record):
    """Rows of a fused weight with a role, and so an init, of their own."""

    axis: int
    start: int
    stop: int
    role: Role
    init_correction: Factor = Field(description="further factor on what these rows start with")


class ParameterEntry(_Record):
    """One parameter: its role and every number that follows; all scales are 1 at base."""

    role: Role
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    m_in: Scale = Field(description="fan-in at target over fan-in at base")
    m_out: Scale = Field(description="fan-out at target over fan-out at base")
    multiplier: Scale = Field(description="factor on the weight in the forward pass")
    init_scale: Factor = Field(description="factor on the standard deviation at base width")
    init_correction: Factor = Field(description="factor on what the constructor draws at target")
    lr_scale: Scale
    weight_decay_scale: Factor
    eps_scale: Scale
    clip_scale: Scale = Field(description="factor on the gradient inside a global norm")
    absorbed: Scale = Field(
        default=1.0, description="further factor where the model's own forward pass is kept"
    )
    init_size: Factor = Field(
        default=0.0, description="root mean square of what the constructor draws at target"
    )
    group: str
    tied: tuple[str, ...] = Field(description="the other names of the same tensor")
    because: tuple[str, ...] = Field(description="from an operation to the role, in steps")
    rows: tuple[RowsEntry, ...] = Field(default=(), description="rows with a role of their own")


class Group(_Record):
    """Parameters that the optimizer treats alike."""

    lr_scale: Scale
    weight_decay_scale: Factor
    eps_scale: Scale
    parameters: tuple[str, ...] = Field(description="sorted")


class Change(_Record):
    """One place of the forward pass that was rewritten."""

    node: str
    module: str
    file: str
    line: int
    before: str
    after: str
    because: str

    @property
    def place(self) -> Place:
        """Where the rewritten operation stands in the user's source."""
        return Place(self.file, self.line, self.module)


class DiagnosticEntry(_Record):
    """One finding of the conversion."""

    code: str
    severity: Severity
    message: str
    hint: str
    file: str | None
    line: int | None
    module: str

    @property
    def place(self) -> Place | None:
        """Where it is in the user's source, if it is anywhere."""
        if self.file is None or self.line is None:
            return None
        return Place(self.file, self.line, self.module)

    @property
    def diagnostic(self) -> Diagnostic:
        """The diagnostic of this record."""
        return Diagnostic(self.code, self.message, self.hint, self.place, self.severity)

    @classmethod
    def of(cls, diagnostic: Diagnostic) -> DiagnosticEntry:
        """The record of a diagnostic."""
        place = diagnostic.place
        return cls(
            code=diagnostic.code,
            severity=diagnostic.severity,
            message=diagnostic.message,
            hint=diagnostic.hint,
            file=place.file if place else None,
            line=place.line if place else None,
            module=place.module if place else "",
        )


class SourceEntry(_Record):
    """What was converted: as the user gave it (empty for a library call), and its hash."""

    spec: str
    digest: Digest


class EmittedEntry(_Record):
    """The file that was written, beside the manifest, and the hash of its bytes."""

    file: str
    digest: Digest


class Manifest(_Record):
    """Everything that a conversion decided."""

    schema_version: Literal[1] = SCHEMA_VERSION
    mufx_version: str
    torch_version: str
    model: str = Field(description="name of the root's class")
    source: SourceEntry
    emitted: EmittedEntry | None = Field(description="null where the model's own class is kept")
    base: Mapping[str, Knob]
    target: Mapping[str, Knob]
    optimizer: Optimizer
    form: Form
    parameters: dict[str, ParameterEntry]
    groups: dict[str, Group]
    changes: tuple[Change, ...]
    unabsorbed: tuple[DiagnosticEntry, ...] = Field(
        default=(),
        description="changes that no parameter can take over: only emitted code will do",
    )
    diagnostics: tuple[DiagnosticEntry, ...]

    @property
    def digest(self) -> str:
        """The sha256 of everything in the manifest."""
        return _digest(self.model_dump(mode="json"))


def dumps(manifest: Manifest) -> str:
    """The text of manifest.json: sorted, indented, the same for the same manifest.

    Raises:
        MufxError: `MUF504` where a parameter is not in exactly one group.
    """
    _check_groups(manifest, None)
    document = manifest.model_dump(mode="json")
    return _text({**document, "digest": _digest(document)})


def loads(text: str, where: str = "manifest.json") -> Manifest:
    """The manifest that `dumps` wrote; `where` is the file that problems are reported at.

    Raises:
        MufxError: `MUF501` for what is no manifest, `MUF502` for one of another version,
            `MUF503` for one that was edited, `MUF504` for a parameter not in exactly one group.
    """
    document = _decoded(text, where)
    _check_version(document, text, where)
    digest = document.pop("digest", None)
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as invalid:
        raise MufxError(*_invalid(invalid, text, where)) from None
    if digest != manifest.digest:
        raise MufxError(
            error(
                "MUF503",
                "the manifest does not hold what was written into it: its digest is another",
                hint="undo the edit, or convert the model again; scales cannot be set by hand",
                place=Place(where, _line(text, "digest")),
            )
        )
    _check_groups(manifest, Place(where, _line(text, "groups")))
    return manifest


def load(path: str | Path) -> Manifest:
    """The manifest in a file; the emitted file beside it, if there is one, has to be its own.

    Raises:
        MufxError: as `loads`, `MUF501` for a file that cannot be read, and `MUF505` where the
            emitted file was edited or is another's.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise MufxError(_unreadable(str(problem), Place(str(path), 1))) from None
    manifest = loads(text, where=str(path))
    if manifest.emitted is None:
        return manifest
    emitted = path.with_name(manifest.emitted.file)
    if emitted.is_file() and _sha256(emitted.read_bytes()) != manifest.emitted.digest:
        raise MufxError(
            error(
                "MUF505",
                f"{emitted.name} is not the file that the manifest was written with",
                hint="restore both, or change the original model and convert it again",
                place=Place(str(emitted), 1),
            )
        )
    return manifest


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of manifest.json."""
    schema = Manifest.model_json_schema(mode="serialization")
    schema["properties"]["digest"] = {
        "description": "sha256 of this document without this field: keys sorted, indented by 2",
        "pattern": "^[0-9a-f]{64}$",
        "title": "Digest",
        "type": "string",
    }
    schema["required"] = sorted([*schema["required"], "digest"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


# -- groups -------------------------------------------------------------------------------------


def make_groups(parameters: Mapping[str, ParameterEntry]) -> dict[str, Group]:
    """One group for each triple of scales of learning rate, weight decay and eps.

    Names are the roles in the group ("hidden", "input+scalar"), numbered where several groups
    have the same roles; they do not depend on the order of `parameters`. The entries' own
    `group` is not read: see `grouped`.
    """
    scales = {name: _scales(entry) for name, entry in parameters.items()}
    names = group_names(scales, {name: entry.role for name, entry in parameters.items()})
    members: dict[str, list[str]] = {}
    for name, group in names.items():
        members.setdefault(group, []).append(name)
    groups: dict[str, Group] = {}
    for group, held in members.items():
        lr, decay, eps = scales[held[0]]
        groups[group] = Group(
            lr_scale=lr, weight_decay_scale=decay, eps_scale=eps, parameters=tuple(held)
        )
    return groups


def group_names(
    scales: Mapping[str, tuple[float, float, float]], roles: Mapping[str, Role]
) -> dict[str, str]:
    """By parameter, sorted: the name of its group; see `make_groups`."""
    members: dict[tuple[float, float, float], list[str]] = {}
    for name in sorted(scales):
        members.setdefault(scales[name], []).append(name)
    names: dict[str, str] = {}
    used: Counter[str] = Counter()
    for held in members.values():
        found = {roles[name] for name in held}
        title = "+".join(role.value for role in Role if role in found)
        used[title] += 1
        numbered = title if used[title] == 1 else f"{title}-{used[title]}"
        names.update(dict.fromkeys(held, numbered))
    return names


def grouped(
    parameters: Mapping[str, ParameterEntry],
) -> tuple[dict[str, ParameterEntry], dict[str, Group]]:
    """The parameters with the name of their group set, and the groups."""
    groups = make_groups(parameters)
    group_of = {name: group for group, held in groups.items() for name in held.parameters}
    named = {n: p.model_copy(update={"group": group_of[n]}) for n, p in parameters.items()}
    return named, groups


def _scales(entry: ParameterEntry | Group) -> tuple[float, float, float]:
    return entry.lr_scale, entry.weight_decay_scale, entry.eps_scale


def _check_groups(manifest: Manifest, place: Place | None) -> None:
    """Every parameter is in the group that it names, in no other, and has its scales."""
    held: dict[str, list[str]] = {name: [] for name in manifest.parameters}
    for group, content in manifest.groups.items():
        for name in content.parameters:
            held.setdefault(name, []).append(group)
    wrong = [name for name, groups in held.items() if not _in_its_group(manifest, name, groups)]
    if wrong:
        raise MufxError(
            *(
                error(
                    "MUF504",
                    f"{name} is in {_listed(held[name])}, and has to be in the one that it names, "
                    "with its scales",
                    hint="convert the model again",
                    place=place,
                )
                for name in sorted(wrong)
            )
        )


def _in_its_group(manifest: Manifest, name: str, groups: list[str]) -> bool:
    entry = manifest.parameters.get(name)
    return (
        entry is not None
        and groups == [entry.group]
        and _scales(entry) == _scales(manifest.groups[entry.group])
    )


def _listed(groups: list[str]) -> str:
    return "the groups " + ", ".join(groups) if groups else "no group"


# -- text ---------------------------------------------------------------------------------------


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, indent=2, allow_nan=False) + "\n"


def _digest(document: Mapping[str, Any]) -> str:
    return _sha256(_text(document).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _line(text: str, key: str) -> int:
    """The line of a key of the document itself, 1 where it is not there."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(f'  "{key}"'):
            return number
    return 1


def _unreadable(message: str, place: Place) -> Diagnostic:
    hint = "give the manifest.json that `mufx convert` wrote"
    return error("MUF501", message, hint=hint, place=place)


def _decoded(text: str, where: str) -> dict[str, Any]:
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as problem:
        line = problem.lineno if isinstance(problem, json.JSONDecodeError) else 1
        message = f"this is not JSON: {problem}"
        raise MufxError(_unreadable(message, Place(where, line))) from None
    if not isinstance(document, dict):
        raise MufxError(_unreadable("this is not a JSON object", Place(where, 1)))
    return {str(key): value for key, value in document.items()}


def _check_version(document: Mapping[str, Any], text: str, where: str) -> None:
    version = document.get("schema_version")
    if type(version) is int and version == SCHEMA_VERSION:  # True and 1.0 are equal to it
        return
    place = Place(where, _line(text, "schema_version"))
    if version is None:
        raise MufxError(_unreadable("this has no schema_version: it is no manifest", place))
    raise MufxError(
        error(
            "MUF502",
            f"schema_version is {version!r}; this mufx reads version {SCHEMA_VERSION}",
            hint="convert the model again with this mufx, or install the one that wrote it",
            place=place,
        )
    )


def _invalid(invalid: ValidationError, text: str, where: str) -> list[Diagnostic]:
    return [
        _unreadable(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}",
            Place(where, _line(text, str(problem["loc"][0])) if problem["loc"] else 1),
        )
        for problem in invalid.errors()
    ]
