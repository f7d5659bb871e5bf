"""The manifest: what is written is read back, and nothing else is read."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mufx.diagnostics import MufxError, Place, note
from mufx.manifest import (
    Change,
    DiagnosticEntry,
    EmittedEntry,
    Manifest,
    ParameterEntry,
    SourceEntry,
    dumps,
    grouped,
    json_schema,
    load,
    loads,
    make_groups,
)
from mufx.program import Form, Optimizer, Role

SCHEMA = Path(__file__).parents[1] / "docs" / "manifest.schema.json"


def entry(role: Role = Role.HIDDEN, **changed: Any) -> ParameterEntry:
    values: dict[str, Any] = {
        "role": role,
        "shape": (8, 8),
        "base_shape": (4, 4),
        "m_in": 2.0,
        "m_out": 2.0,
        "multiplier": 1.0,
        "init_scale": 0.5**0.5,
        "init_correction": 1.0,
        "lr_scale": 0.5,
        "weight_decay_scale": 2.0,
        "eps_scale": 0.5,
        "clip_scale": 1.0,
        "group": "hidden",
        "tied": (),
        "because": ("linear contracts an axis that grows and keeps one",),
    }
    return ParameterEntry(**{**values, **changed})


def manifest(**changed: Any) -> Manifest:
    """Two groups, one change, one diagnostic."""
    gain = entry(Role.INPUT, lr_scale=1.0, weight_decay_scale=1.0, shape=(8,), base_shape=(4,))
    parameters, groups = grouped({"up.weight": entry(), "norm.weight": gain})
    values: dict[str, Any] = {
        "mufx_version": "0.1.0",
        "torch_version": "2.13.0",
        "model": "MLP",
        "source": SourceEntry(spec="model.py:MLP", digest="a" * 64),
        "emitted": EmittedEntry(file="model_mup.py", digest=sha256(b"the emitted file")),
        "base": {"width": 4},
        "target": {"width": 8},
        "optimizer": Optimizer.ADAMW,
        "form": Form.TABLE3,
        "parameters": parameters,
        "groups": groups,
        "changes": (
            Change(
                node="scaled_dot_product_attention",
                module="attn",
                file="model.py",
                line=7,
                before="1/sqrt(8)",
                after="sqrt(4)/8",
                because="queries and keys correlate after training",
            ),
        ),
        "diagnostics": (
            DiagnosticEntry.of(note("MUF304", "stays", place=Place("model.py", 9, "attn", "A"))),
        ),
    }
    return Manifest(**{**values, **changed})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def codes(error: MufxError) -> list[str]:
    return [d.code for d in error.diagnostics]


# -- writing and reading ------------------------------------------------------------------------


def test_what_is_written_is_read_back() -> None:
    written = manifest()
    assert loads(dumps(written)) == written
    assert loads(dumps(written)).digest == written.digest


def test_text_is_sorted_and_does_not_depend_on_order() -> None:
    one = manifest(base={"a": 1, "b": (2, 3)})
    other = manifest(
        base={"b": [2, 3], "a": 1},
        parameters=dict(reversed(one.parameters.items())),
        groups=dict(reversed(one.groups.items())),
    )
    document = json.loads(dumps(one))
    assert dumps(one) == dumps(other)
    assert list(document) == sorted(document)
    assert document["schema_version"] == 1


def test_published_schema_is_current() -> None:
    expected = json.dumps(json_schema(), sort_keys=True, indent=2) + "\n"
    assert SCHEMA.read_text(encoding="utf-8") == expected


def test_schema_requires_exactly_the_fields_of_the_text() -> None:
    document = json.loads(dumps(manifest()))
    schema = json_schema()
    assert sorted(schema["properties"]) == sorted(document) == schema["required"]
    assert schema["additionalProperties"] is False


def test_the_hash_is_of_the_text_without_it() -> None:
    document = json.loads(dumps(manifest()))
    digest = document.pop("digest")
    text = json.dumps(document, sort_keys=True, indent=2) + "\n"
    assert digest == sha256(text.encode())


def test_records_are_frozen_and_know_their_fields() -> None:
    written = manifest()
    with pytest.raises(ValidationError, match="frozen"):
        written.optimizer = Optimizer.SGD
    with pytest.raises(ValidationError, match="Extra inputs"):
        entry(learning_rate=1.0)
    with pytest.raises(ValidationError, match="greater than 0"):
        entry(lr_scale=0.0)


class Unknown:
    pass


def test_knobs_are_data_or_words() -> None:
    knobs = {
        "sizes": (1, 2.5),
        "options": {"bias": True, 3: None},
        "activation": Unknown,
        "instance": Unknown(),
        "dtype": torch.bfloat16,
        "limit": math.inf,
    }
    written = manifest(base=knobs)
    assert written.base == {
        "sizes": [1, 2.5],
        "options": {"bias": True, "3": None},
        "activation": f"<class '{__name__}.Unknown'>",
        "instance": f"<{__name__}.Unknown object>",
        "dtype": "torch.bfloat16",
        "limit": "inf",
    }
    assert loads(dumps(written)) == written


def test_places_are_those_of_the_diagnostics() -> None:
    written = manifest()
    nowhere = DiagnosticEntry.of(note("MUF304", "stays"))
    assert str(written.changes[0].place) == "model.py:7"
    assert str(written.diagnostics[0].place) == "model.py:9"
    assert nowhere.place is None


scales = st.floats(min_value=1e-300, max_value=1e300)
roles = st.sampled_from(Role)
words = st.text(st.characters(codec="utf-8"), max_size=8)
knobs = st.dictionaries(
    words, st.integers() | st.booleans() | words | st.none() | st.tuples(st.integers(), words)
)
parameters = st.dictionaries(
    words,
    st.builds(
        lambda role, m, lr, wd, eps, tied: entry(
            role, m_in=m, lr_scale=lr, weight_decay_scale=wd, eps_scale=eps, tied=tied
        ),
        roles,
        scales,
        scales,
        scales,
        scales,
        st.tuples(words),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(parameters, knobs, words)
def test_any_manifest_is_read_back(
    entries: dict[str, ParameterEntry], base: dict[str, Any], model: str
) -> None:
    named, groups = grouped(entries)
    written = manifest(parameters=named, groups=groups, base=base, model=model)
    assert loads(dumps(written)) == written
    assert dumps(loads(dumps(written))) == dumps(written)


# -- groups -------------------------------------------------------------------------------------


def test_groups_are_named_by_their_roles() -> None:
    groups = make_groups(
        {
            "out": entry(Role.OUTPUT, eps_scale=1.0),
            "up": entry(),
            "wide": entry(lr_scale=0.25),
            "gain": entry(Role.INPUT, lr_scale=1.0),
            "temperature": entry(Role.SCALAR, lr_scale=1.0),
        }
    )
    members = {name: group.parameters for name, group in groups.items()}
    assert members == {
        "input+scalar": ("gain", "temperature"),
        "output": ("out",),
        "hidden": ("up",),
        "hidden-2": ("wide",),
    }
    assert groups["hidden-2"].lr_scale == 0.25


@settings(max_examples=60, deadline=None)
@given(parameters)
def test_every_parameter_is_in_one_group_of_its_scales(
    entries: dict[str, ParameterEntry],
) -> None:
    groups = make_groups(entries)
    members = [name for group in groups.values() for name in group.parameters]
    triples = [(g.lr_scale, g.weight_decay_scale, g.eps_scale) for g in groups.values()]
    assert sorted(members) == sorted(entries)
    assert len(set(triples)) == len(triples)
    assert make_groups(dict(reversed(entries.items()))) == groups


# -- what is refused ----------------------------------------------------------------------------


def edited(**changed: object) -> str:
    return json.dumps({**json.loads(dumps(manifest())), **changed}, sort_keys=True, indent=2)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("{\n  nonsense", "MUF501", "not JSON"),
        ("[" * 100_000, "MUF501", "not JSON"),
        ("[]", "MUF501", "not a JSON object"),
        ("{}", "MUF501", "no schema_version"),
        (edited(schema_version=2), "MUF502", "schema_version is 2"),
        (edited(schema_version=True), "MUF502", "schema_version is True"),
        (edited(surprise=1), "MUF501", "surprise: Extra inputs"),
        (edited(parameters=[]), "MUF501", "parameters: "),
        (edited(base={"width": float("nan")}), "MUF503", "digest"),
        (edited(target={"width": 16}), "MUF503", "digest"),
        (edited(digest="0" * 64), "MUF503", "digest"),
        (edited(digest=None), "MUF503", "digest"),
    ],
    ids=range(12),
)
def test_what_is_not_a_manifest_is_refused(text: str, code: str, said: str) -> None:
    with pytest.raises(MufxError) as refused:
        loads(text, where="out/manifest.json")
    assert codes(refused.value) == [code]
    assert said in str(refused.value)
    assert "out/manifest.json:" in str(refused.value)


def test_a_problem_is_located_at_its_line() -> None:
    text = edited(schema_version=7)
    line = next(n for n, row in enumerate(text.splitlines(), 1) if "schema_version" in row)
    with pytest.raises(MufxError) as refused:
        loads(text, where="m.json")
    assert refused.value.diagnostics[0].place == Place("m.json", line)


def test_a_parameter_is_in_exactly_one_group() -> None:
    groups = manifest().groups
    hidden, gain = groups["hidden"], groups["input"]
    twice = gain.model_copy(update={"parameters": ("norm.weight", "up.weight")})
    unknown = hidden.model_copy(update={"parameters": ("up.weight", "who")})
    other = hidden.model_copy(update={"lr_scale": 0.125})
    for wrong, said in (
        ({"input": gain}, "up.weight is in no group"),
        ({"hidden": hidden, "input": twice}, "up.weight is in the groups hidden, input"),
        ({"hidden": unknown, "input": gain}, "who is in the groups hidden"),
        ({"hidden": other, "input": gain}, "with its scales"),
        ({"others": hidden, "input": gain}, "up.weight is in the groups others"),
    ):
        defective = manifest(groups=wrong)
        with pytest.raises(MufxError) as refused:
            dumps(defective)
        assert codes(refused.value) == ["MUF504"]
        assert said in str(refused.value)


def test_a_manifest_with_a_parameter_in_no_group_is_not_read() -> None:
    defective = manifest(groups={})
    document = {**defective.model_dump(mode="json"), "digest": defective.digest}
    with pytest.raises(MufxError) as refused:
        loads(json.dumps(document), where="m.json")
    assert codes(refused.value) == ["MUF504", "MUF504"]
    assert "m.json:1" in str(refused.value)


def test_a_file_is_loaded_with_the_emitted_file_beside_it(tmp_path: Path) -> None:
    path, emitted = tmp_path / "manifest.json", tmp_path / "model_mup.py"
    path.write_text(dumps(manifest()), encoding="utf-8")
    assert load(path) == manifest()
    emitted.write_bytes(b"the emitted file")
    assert load(str(path)) == manifest()
    emitted.write_bytes(b"the emitted file, edited")
    with pytest.raises(MufxError) as refused:
        load(path)
    assert codes(refused.value) == ["MUF505"]
    assert str(emitted) in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.json"
    latin.write_bytes(b"\xe9")
    for path in (tmp_path / "missing.json", tmp_path, latin):
        with pytest.raises(MufxError) as refused:
            load(path)
        assert codes(refused.value) == ["MUF501"]
        assert str(path) in str(refused.value)
